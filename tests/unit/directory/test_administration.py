from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from doorward.core.accounts import Passkey
from doorward.core.clock import ManualClock
from doorward.core.errors import ConflictError, InvalidConfigError, InvalidRequestError, NotFoundError
from doorward.core.feed import Delta
from doorward.core.identity import DeviceCertificate, IdentityLink, KeyRecord
from doorward.core.ids import IdSource
from doorward.core.model import EntityUid
from doorward.directory.administration import Directory
from doorward.directory.org import parse
from doorward.directory.snapshot import Snapshot
from doorward.store.opened import Store

uid = EntityUid.of
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLOCK = ManualClock(NOW)
DANA, LAPTOP = uid("User", "dana"), uid("Device", "laptop-7")
CAST = """
users:
  dana: { roles: [data-scientist], projects: [fraud], identities: [{ issuer: i, subject: s }] }
  omar: {}
devices: { laptop-7: { managed: true, owner: dana, certificate: "%s" } }
zones: { office: [10.0.0.0/8] }
assets: { Dataset::"store/training": { owner: omar, sensitivity: 2 } }
""" % ("ab" * 32)


@pytest.fixture
def store() -> Iterator[Store]:
    opened = Store.open("sqlite://", Path())
    yield opened
    opened.close()


@pytest.fixture
def directory(store: Store) -> Directory:
    made = reopened(store)
    made.apply(parse(CAST, "org.yaml"), operator="operator:0")
    return made


def reopened(store: Store) -> Directory:
    return Directory(store, CLOCK, IdSource(CLOCK))


def key(name: str = "k1", **fields: Any) -> KeyRecord:
    return KeyRecord(**{"id": name, "hash": f"h-{name}", "subject": DANA, "created": NOW, **fields})


def lines(plan: Any) -> list[tuple[str, str, str]]:
    return [(item.op.value, item.kind, item.name) for item in plan.items]


class TestApply:
    def test_applying_twice_changes_nothing_the_second_time(self, directory: Directory) -> None:
        before = directory.known()
        plan = directory.apply(parse(CAST, "org.yaml"))
        assert plan.items == ()
        assert (plan.version, directory.known()) == (before.version, before)

    def test_a_plan_changes_nothing(self, directory: Directory) -> None:
        before = directory.known()
        plan = directory.plan(parse("users: { dana: {}, eli: {} }", "org.yaml"), prune=True)
        assert ("add", "User", "eli") in lines(plan)
        assert directory.known() == before

    def test_it_is_one_version_one_delta_and_lasts(self, directory: Directory, store: Store) -> None:
        heard: list[Delta] = []
        directory.subscribe(heard.append)
        old = directory.snapshot
        directory.apply(parse("users: { dana: { clearance: 2 }, eli: {} }", "org.yaml"))
        assert [delta.version for delta in heard] == [old.version + 1]
        assert old.with_delta(heard[0]).known == directory.known()
        assert reopened(store).known() == directory.known()

    def test_what_is_not_named_is_left_alone(self, directory: Directory) -> None:
        directory.apply(parse("users: { eli: {} }", "org.yaml"))
        assert directory.entity(DANA) is not None
        assert directory.snapshot.zone_of("10.0.0.1") == "office"

    def test_an_object_that_is_named_is_stated_whole(self, directory: Directory) -> None:
        plan = directory.apply(parse("users: { dana: { projects: [fraud] } }", "org.yaml"))
        assert lines(plan) == [("remove", "Identity", "i s"), ("change", "User", "dana")]
        assert plan.items[1].changes == {
            "in": [['Project::"fraud"', 'Role::"data-scientist"'], ['Project::"fraud"']]
        }
        assert directory.snapshot.principal_of("i", "s") is None

    def test_prune_removes_what_is_not_named(self, directory: Directory) -> None:
        directory.register_upstreams({"store": "testing"})
        plan = directory.apply(parse("users: { omar: {} }", "org.yaml"), prune=True)
        assert ("remove", "User", "dana") in lines(plan)
        assert ("remove", "Zone", "office") in lines(plan)
        kinds = {entity.kind for entity in directory.snapshot.stated}
        assert kinds == {"User", "Upstream"}
        assert directory.people()[0].uid == uid("User", "omar")

    def test_prune_that_leaves_a_name_without_its_object_is_refused(self, directory: Directory) -> None:
        before = directory.known()
        text = 'assets: { Dataset::"store/training": { owner: omar } }'
        with pytest.raises(InvalidConfigError, match="omar"):
            directory.apply(parse(text, "org.yaml"), prune=True)
        assert directory.known() == before

    def test_names_declared_earlier_may_be_used(self, directory: Directory) -> None:
        directory.apply(parse("services: { etl: { owner: omar, environment: testing } }", "org.yaml"))
        with pytest.raises(InvalidConfigError, match="ghost"):
            directory.plan(parse("services: { etl: { owner: ghost } }", "org.yaml"))

    def test_a_circle_across_files_is_refused(self, directory: Directory) -> None:
        directory.apply(parse("groups: { a: { groups: [b] } }", "org.yaml"))
        with pytest.raises(InvalidConfigError, match="lies in itself"):
            directory.apply(parse("groups: { b: { groups: [a] } }", "org.yaml"))

    def test_mentioning_a_group_or_project_does_not_empty_it(self, directory: Directory) -> None:
        directory.apply(parse("projects: { fraud: { purposes: [scoring] } }", "org.yaml"))
        directory.apply(parse("users: { dana: { projects: [fraud] } }", "org.yaml"))
        assert directory.snapshot.purposes_of(DANA) == {"scoring"}

    def test_a_zone_that_takes_anothers_network_is_refused(self, directory: Directory) -> None:
        with pytest.raises(InvalidConfigError, match="two zones"):
            directory.plan(parse("zones: { lab: [10.0.0.0/8] }", "org.yaml"))

    def test_an_identity_moves_only_if_both_sides_are_named(self, directory: Directory) -> None:
        claim = "identities: [{ issuer: i, subject: s }]"
        with pytest.raises(ConflictError, match="linked to"):
            directory.plan(parse(f"users: {{ eli: {{ {claim} }} }}", "org.yaml"))
        directory.apply(parse(f"users: {{ dana: {{}}, eli: {{ {claim} }} }}", "org.yaml"))
        assert directory.snapshot.principal_of("i", "s") == uid("User", "eli")

    def test_a_link_made_otherwise_outlives_a_file_that_never_stated_it(self, directory: Directory) -> None:
        directory.link_identity(IdentityLink("j", "t", DANA))
        directory.apply(parse("users: { dana: {} }", "org.yaml"))
        assert directory.snapshot.principal_of("j", "t") == DANA
        assert directory.snapshot.principal_of("i", "s") is None

    def test_a_plan_that_is_no_longer_true_is_not_applied(self, directory: Directory) -> None:
        stated = parse("users: { eli: {} }", "org.yaml")
        plan = directory.plan(stated)
        directory.apply(parse("users: { rhea: {} }", "org.yaml"))
        with pytest.raises(ConflictError, match="changed"):
            directory.apply(stated, expected=plan)


class TestRemovalsApplyAtOnce:
    def test_deactivating_a_user_makes_her_inactive_in_the_delta(self, directory: Directory) -> None:
        heard: list[Snapshot] = []
        gateway = directory.snapshot
        directory.subscribe(lambda delta: heard.append(gateway.with_delta(delta)))
        directory.apply(parse("users: { dana: { active: false } }", "org.yaml"))
        assert not heard[0].is_active(DANA)

    def test_a_user_of_the_same_name_inherits_nothing(self, directory: Directory, store: Store) -> None:
        directory.add_key(key())
        directory.link_identity(IdentityLink("j", "t", DANA))
        passkey = Passkey(credential_id=b"c", principal=DANA, public_key=b"p", sign_count=0, created=NOW)
        directory.accounts.add_passkey(passkey)
        directory.accounts.add_passkey(replace(passkey, credential_id=b"d", principal=uid("User", "omar")))
        directory.apply(parse("users: { omar: {} }", "org.yaml"), prune=True)
        directory.apply(parse("users: { dana: {} }", "org.yaml"))
        for known in (directory.snapshot, reopened(store).snapshot):
            assert known.is_active(DANA)
            assert known.key_by_hash("h-k1") is None
            assert known.principal_of("i", "s") is None
            assert known.principal_of("j", "t") is None
        assert directory.accounts.list_passkeys(DANA) == []

    def test_a_device_that_goes_takes_its_certificates_and_bound_keys(self, directory: Directory) -> None:
        directory.add_key(key(device=LAPTOP))
        directory.bind_certificate(DeviceCertificate("cd" * 32, LAPTOP, NOW + timedelta(days=90)))
        directory.apply(parse("users: { dana: {}, omar: {} }", "org.yaml"), prune=True)
        assert directory.keys() == []
        assert directory.snapshot.certificates == {}

    def test_a_revoked_certificate_is_not_bound_again_by_a_file_or_by_hand(
        self, directory: Directory, store: Store
    ) -> None:
        assert directory.snapshot.device_of_certificate("ab" * 32, NOW) == LAPTOP
        assert directory.revoke_certificates(LAPTOP) == ["ab" * 32]
        for now in (directory, reopened(store)):
            assert now.snapshot.device_of_certificate("ab" * 32, NOW) is None
            with pytest.raises(ConflictError, match="revoked"):
                now.apply(parse(CAST, "org.yaml"))
            with pytest.raises(ConflictError, match="revoked"):
                now.bind_certificate(DeviceCertificate("ab" * 32, LAPTOP, NOW + timedelta(days=1)))


class TestCredentials:
    def test_a_key_is_added_once_and_revoked_at_once(self, directory: Directory, store: Store) -> None:
        directory.add_key(key(access_key_id="AK", s3_secret="derived", networks=("10.0.0.0/8",)))
        found = reopened(store).snapshot.key_by_access_key_id("AK")
        assert found == key(access_key_id="AK", networks=("10.0.0.0/8",))
        for same in (key(), key("k2", hash="h-k1"), key("k2", access_key_id="AK")):
            with pytest.raises(ConflictError):
                directory.add_key(same)
        assert directory.keys(DANA) == [found]
        assert directory.keys(uid("User", "omar")) == []
        directory.revoke_key("k1")
        assert reopened(store).snapshot.key_by_hash("h-k1") is None
        with pytest.raises(NotFoundError):
            directory.revoke_key("k1")

    def test_a_key_needs_a_known_subject_and_device(self, directory: Directory) -> None:
        wrong = [
            key(subject=uid("User", "ghost")),
            key(subject=uid("Dataset", "store/training")),
            key(device=uid("Device", "ghost")),
            key(device=DANA),
        ]
        for one in wrong:
            with pytest.raises(NotFoundError):
                directory.add_key(one)

    def test_a_certificate_proves_one_known_device(self, directory: Directory) -> None:
        until = NOW + timedelta(days=90)
        with pytest.raises(NotFoundError):
            directory.bind_certificate(DeviceCertificate("ee", uid("Device", "ghost"), until))
        directory.bind_certificate(DeviceCertificate("ee", LAPTOP, until))
        with pytest.raises(ConflictError):
            directory.bind_certificate(DeviceCertificate("ee", LAPTOP, until))

    def test_an_identity_has_one_principal(self, directory: Directory) -> None:
        with pytest.raises(ConflictError):
            directory.link_identity(IdentityLink("i", "s", uid("User", "omar")))
        directory.unlink_identity("i", "s")
        directory.link_identity(IdentityLink("i", "s", uid("User", "omar")))
        assert directory.snapshot.principal_of("i", "s") == uid("User", "omar")
        with pytest.raises(NotFoundError):
            directory.unlink_identity("x", "y")

    def test_a_revoked_token_stays_revoked_until_it_would_have_ended(
        self, directory: Directory, store: Store
    ) -> None:
        directory.revoke_token("jti", NOW + timedelta(minutes=15))
        version = directory.snapshot.version
        directory.revoke_token("jti", NOW + timedelta(minutes=15))
        assert directory.snapshot.version == version
        assert reopened(store).snapshot.token_revoked("jti")
        later = ManualClock(NOW + timedelta(minutes=15))
        assert not Directory(store, later, IdSource(later)).snapshot.token_revoked("jti")


class TestLowering:
    def test_it_is_on_record_with_a_reason_and_can_be_ended(self, directory: Directory, store: Store) -> None:
        child = uid("Dataset", "store/training/public")
        directory.apply(parse('assets: { Dataset::"store/training/public": { sensitivity: 0 } }', "org.yaml"))

        def level(known: Directory) -> object:
            found = known.entity(child)
            assert found is not None
            return found.attrs["sensitivity"]

        assert level(directory) == 2
        with pytest.raises(InvalidRequestError):
            directory.lower(child, reason=" ", operator="omar")
        directory.lower(child, reason="published", operator="omar")
        assert (level(directory), level(reopened(store))) == (0, 0)
        directory.raise_again(child, operator="omar")
        assert (level(directory), level(reopened(store))) == (2, 2)

    def test_removing_the_asset_ends_it(self, directory: Directory) -> None:
        directory.lower(uid("Dataset", "store/training"), reason="x", operator="omar")
        directory.apply(parse("users: { omar: {}, dana: {} }", "org.yaml"), prune=True)
        assert directory.snapshot.lowered == frozenset()


def test_a_subscriber_that_fails_does_not_keep_a_revocation_from_the_next(directory: Directory) -> None:
    heard: list[int] = []

    def fails(_delta: Delta) -> None:
        raise RuntimeError

    directory.subscribe(fails)
    stop = directory.subscribe(lambda delta: heard.append(delta.version))
    directory.add_key(key())
    stop()
    directory.revoke_key("k1")
    assert heard == [directory.snapshot.version - 1]


def test_another_process_that_wrote_meanwhile_makes_a_change_fail(directory: Directory, store: Store) -> None:
    other = reopened(store)
    other.add_key(key())
    with pytest.raises(ConflictError, match="no longer"):
        directory.add_key(key("k2"))
    assert directory.snapshot.key_by_hash("h-k2") is None


NAMES = st.sampled_from(["a", "b", "c"])
USERS = st.dictionaries(
    NAMES,
    st.fixed_dictionaries(
        {},
        optional={
            "clearance": st.integers(0, 3),
            "roles": st.lists(NAMES, max_size=2).map(lambda names: f"[{', '.join(names)}]"),
            "trained_until": st.sampled_from(["2026-01-01", "2026-01-01T10:00:00.123456Z"]),
            "purposes": st.lists(NAMES, max_size=2).map(lambda names: f"[{', '.join(names)}]"),
        },
    ),
    max_size=3,
)


@settings(max_examples=40, deadline=None)
@given(USERS, USERS, st.booleans())
def test_apply_is_idempotent_and_ends_where_the_file_says(
    first: dict[str, dict[str, object]],
    second: dict[str, dict[str, object]],
    prune: bool,  # noqa: FBT001 -- drawn by hypothesis
) -> None:
    store = Store.open("sqlite://", Path())
    directory = reopened(store)
    for users in (first, second):
        body = ", ".join(
            f"{name}: {{ {', '.join(f'{k}: {v}' for k, v in facts.items())} }}"
            for name, facts in users.items()
        )
        stated = parse(f"users: {{ {body} }}", "org.yaml")
        directory.apply(stated, prune)
        once = directory.known()
        assert directory.apply(stated, prune).items == ()
        assert directory.known() == once
        assert reopened(store).known() == once
    names = {entity.uid.id for entity in directory.people()}
    assert names == (set(second) if prune else {*first, *second})
    store.close()
