from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.core.errors import ConflictError
from doorward.core.feed import Delta, Known
from doorward.core.identity import DeviceCertificate, IdentityLink, KeyRecord
from doorward.core.model import Entity, EntityUid
from doorward.core.values import entity_to_json, uid_to_json
from doorward.directory.snapshot import Snapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
uid = EntityUid.of
TRAINING = uid("Dataset", "store/training")


def snapshot(*entities: Entity, **fields: object) -> Snapshot:
    return Snapshot.of(
        msgspec.convert(
            {"version": 1, "entities": [entity_to_json(e) for e in entities], **fields}, Known, strict=False
        )
    )


def asset(name: str, kind: str = "Dataset", *, projects: tuple[str, ...] = (), **attrs: object) -> Entity:
    return Entity(uid(kind, name), attrs, frozenset(uid("Project", p) for p in projects))  # type: ignore[arg-type]  # test values


def sensitivity(found: Entity | None) -> object:
    assert found is not None
    return found.attrs["sensitivity"]


class TestNamesCoverWhatLiesUnderThem:
    def test_an_unregistered_object_is_what_its_nearest_ancestor_is(self) -> None:
        known = snapshot(
            asset("store", sensitivity=0),
            Entity(TRAINING, {"sensitivity": 2, "live": True}, tags={"team": "fraud"}),
        )
        found = known.resolve(uid("Dataset", "store/training/2026/a.csv"))
        above = known.entity(TRAINING)
        assert found is not None
        assert above is not None
        assert (found.attrs, found.tags) == (above.attrs, {"team": "fraud"})
        assert found.parents == {TRAINING}

    @pytest.mark.parametrize(
        "name",
        [
            "store/training-2",
            "store/training-2/a",
            "store/trainin",
            "store",
            "",
            "/store/training",
            "store/training//a",
            "store/training/./a",
            "store/training/../training/a",
            "store/training/a/..",
            "store/training/a\x00b",
            "STORE/training/a",
        ],
    )
    def test_a_name_not_under_it_or_with_two_readings_is_unknown(self, name: str) -> None:
        known = snapshot(asset("store/training", sensitivity=0))
        assert known.resolve(uid("Dataset", name)) is None
        assert known.covering(name, ("Dataset", "Model")) is None

    def test_a_folder_marker_names_the_same_place(self) -> None:
        known = snapshot(asset("store/training", sensitivity=1), asset("store/training/pii", sensitivity=3))
        assert sensitivity(known.resolve(uid("Dataset", "store/training/pii/"))) == 3
        assert known.covering("store/training/pii/", ("Dataset",)) == uid("Dataset", "store/training/pii")

    def test_another_kind_does_not_cover(self) -> None:
        known = snapshot(asset("store/training", sensitivity=0))
        assert known.resolve(uid("Model", "store/training/a")) is None

    def test_people_are_never_covered_by_name(self) -> None:
        known = snapshot(Entity(uid("User", "dana")))
        assert known.resolve(uid("User", "dana/admin")) is None

    def test_a_child_overrides_but_is_at_least_as_sensitive(self) -> None:
        known = snapshot(
            asset("store/a", sensitivity=2, owner=uid("User", "omar")),
            asset("store/a/public", sensitivity=0, owner=uid("User", "dana")),
            asset("store/a/secret", sensitivity=3),
        )
        public = known.resolve(uid("Dataset", "store/a/public/x"))
        assert public is not None
        assert (sensitivity(public), public.attrs["owner"]) == (2, uid("User", "dana"))
        secret = known.resolve(uid("Dataset", "store/a/secret/x"))
        assert secret is not None
        assert (sensitivity(secret), secret.attrs["owner"]) == (3, uid("User", "omar"))

    def test_a_lowered_child_keeps_its_own_sensitivity(self) -> None:
        entities = asset("store/a", sensitivity=2), asset("store/a/public", sensitivity=0)
        lowered = snapshot(*entities, lowered=['Dataset::"store/a/public"'])
        assert sensitivity(lowered.resolve(uid("Dataset", "store/a/public/x"))) == 0
        assert sensitivity(lowered.resolve(uid("Dataset", "store/a/other"))) == 2

    def test_a_registered_child_does_not_inherit_an_approval(self) -> None:
        known = snapshot(
            asset("registry/m", "Model", approver=uid("User", "rhea"), stage="Production", sensitivity=1),
            asset("registry/m/2", "Model"),
        )
        version = known.entity(uid("Model", "registry/m/2"))
        assert version is not None
        assert not {"approver", "stage"} & version.attrs.keys()

    def test_a_registered_child_lies_in_its_ancestor(self) -> None:
        known = snapshot(asset("store/a", projects=("fraud",)), asset("store/a/b"))
        child = known.entity(uid("Dataset", "store/a/b"))
        assert child is not None
        assert {uid("Dataset", "store/a"), uid("Upstream", "store")} <= child.parents
        assert uid("Project", "fraud") in known.closure([child.uid])

    def test_a_tool_is_never_in_a_tool_as_the_schema_knows_no_such_nesting(self) -> None:
        known = snapshot(asset("tools/fs", "Tool", projects=("ops",), writes=False))
        found = known.resolve(uid("Tool", "tools/fs/read"))
        assert found is not None
        assert {parent.kind for parent in found.parents} == {"Project", "Upstream", "Environment"}

    def test_what_is_not_stated_is_what_opens_least(self) -> None:
        known = snapshot(asset("store/a"), asset("tools/t", "Tool"))
        data = known.entity(uid("Dataset", "store/a"))
        assert data is not None
        assert data.attrs == {
            "sensitivity": 3,
            "environment": uid("Environment", "production"),
            "purposes": frozenset(),
            "live": True,
        }

    def test_an_asset_takes_its_upstreams_environment(self) -> None:
        place = uid("Environment", "testing")
        known = snapshot(asset("store/a"), Entity(uid("Upstream", "store"), parents=frozenset({place})))
        data = known.entity(uid("Dataset", "store/a"))
        assert data is not None
        assert data.attrs["environment"] == place

    def test_the_longest_declared_name_decides_the_kind(self) -> None:
        known = snapshot(asset("store/a"), asset("store/a/weights", "Model"))
        kinds = ("Dataset", "Model")
        assert known.covering("store/a/weights/x.bin", kinds) == uid("Model", "store/a/weights")
        assert known.covering("store/a/weights-2/x.bin", kinds) == uid("Dataset", "store/a")
        assert known.covering("store/a/weights/x.bin", ("Dataset",)) == uid("Dataset", "store/a")


SEGMENT = st.text(alphabet="ab-.", min_size=1, max_size=3)
NAME = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)
TREE = st.dictionaries(NAME, st.integers(0, 3), max_size=8)


@given(TREE, NAME)
def test_covering_is_the_longest_registered_segment_prefix(tree: dict[str, int], name: str) -> None:
    known = snapshot(*(asset(n, sensitivity=level) for n, level in tree.items()))
    segments = name.split("/")
    clear = not {".", ".."} & set(segments)
    prefixes = ["/".join(segments[:n]) for n in range(len(segments), 0, -1)]
    expected = next((p for p in prefixes if p in tree), None) if clear else None
    found = known.covering(name, ("Dataset",))
    assert (None if found is None else found.id) == expected
    if clear:
        assert (known.resolve(uid("Dataset", name)) is None) == (expected is None)


@given(TREE, st.sets(NAME, max_size=3))
def test_a_child_is_at_least_as_sensitive_as_its_parent_unless_lowered(
    tree: dict[str, int], lowered: set[str]
) -> None:
    notes = [f'Dataset::"{name}"' for name in lowered]
    known = snapshot(*(asset(n, sensitivity=level) for n, level in tree.items()), lowered=notes)
    for name, stated in tree.items():
        child = known.resolve(uid("Dataset", name))
        above = known.covering(name.rpartition("/")[0], ("Dataset",))
        if above is None or name in lowered or {".", ".."} & set(name.split("/")):
            assert sensitivity(child) == stated
        else:
            assert sensitivity(child) >= sensitivity(known.resolve(above))  # type: ignore[operator]  # whole numbers


class TestPrincipals:
    def test_purposes_are_her_own_and_her_projects(self) -> None:
        dana = Entity(
            uid("User", "dana"), {"purposes": frozenset({"marketing"})}, frozenset({uid("Project", "fraud")})
        )
        project = Entity(uid("Project", "fraud"), {"purposes": frozenset({"fraud-model"})})
        known = snapshot(dana, project)
        assert known.purposes_of(dana.uid) == {"marketing", "fraud-model"}
        assert known.purposes_of(uid("User", "nobody")) == frozenset()
        # The schema gives projects no attributes: the entity policies see has none.
        assert known.closure([dana.uid])[project.uid].attrs == {}

    def test_unstated_attributes_open_nothing(self) -> None:
        known = snapshot(Entity(uid("Device", "d")), Entity(uid("User", "u")))
        device, user = known.entity(uid("Device", "d")), known.entity(uid("User", "u"))
        assert device is not None
        assert user is not None
        assert (device.attrs["managed"], device.attrs["compliant"], device.attrs["clearance"]) == (
            False,
            False,
            0,
        )
        assert device.attrs["environment"] == uid("Environment", "production")
        assert (user.attrs["active"], user.attrs["risk"], user.attrs["clearance"]) == (True, 0, 0)

    def test_active_means_registered_and_active(self) -> None:
        known = snapshot(
            Entity(uid("User", "dana")), Entity(uid("User", "gone"), {"active": False}), asset("store/a")
        )
        assert known.is_active(uid("User", "dana"))
        assert not known.is_active(uid("User", "gone"))
        assert not known.is_active(uid("User", "nobody"))
        assert not known.is_active(uid("Dataset", "store/a"))


class TestClosure:
    def test_it_holds_ancestors_and_what_attributes_name(self) -> None:
        group, above = uid("Group", "lab"), uid("Group", "house")
        omar = Entity(uid("User", "omar"), {}, frozenset({group}))
        known = snapshot(omar, Entity(group, parents=frozenset({above})), asset("store/a", owner=omar.uid))
        found = known.closure([uid("Dataset", "store/a/x")])
        expected = {
            uid("Dataset", "store/a/x"),
            uid("Dataset", "store/a"),
            uid("Upstream", "store"),
            uid("Environment", "production"),
            omar.uid,
            group,
            above,
        }
        assert found.keys() == expected

    def test_an_unknown_owner_is_left_out(self) -> None:
        known = snapshot(asset("store/a", owner=uid("User", "ghost")))
        assert uid("User", "ghost") not in known.closure([uid("Dataset", "store/a")])

    def test_a_circle_of_groups_ends(self) -> None:
        a, b = uid("Group", "a"), uid("Group", "b")
        known = snapshot(Entity(a, parents=frozenset({b})), Entity(b, parents=frozenset({a})))
        assert known.closure([a]).keys() == {a, b}


def key(name: str = "k1", **fields: object) -> KeyRecord:
    record = KeyRecord(id=name, hash=f"hash-{name}", subject=uid("User", "dana"), created=NOW)
    return msgspec.structs.replace(record, **fields)


class TestCredentials:
    def test_keys_are_found_by_hash_and_access_key_id_only(self) -> None:
        known = Snapshot.of(Known(version=1, keys=(key(access_key_id="AK"), key("k2"))))
        found = known.key_by_hash("hash-k1")
        assert found is not None
        assert found.id == "k1"
        assert known.key_by_access_key_id("AK") == found
        assert known.key_by_hash("k1") is None
        # A key without an access key id is not found by an empty one.
        assert known.key_by_access_key_id("") is None

    def test_a_certificate_counts_until_it_expires_and_while_its_device_is_active(self) -> None:
        device = Entity(uid("Device", "laptop"))
        certificate = DeviceCertificate("ff", device.uid, NOW)
        known = Known(version=1, entities=(entity_to_json(device),), certificates=(certificate,))
        one = Snapshot.of(known)
        assert one.device_of_certificate("ff", NOW - timedelta(microseconds=1)) == device.uid
        assert one.device_of_certificate("ff", NOW) is None
        assert one.device_of_certificate("fe", NOW - timedelta(days=1)) is None
        off = Entity(device.uid, {"active": False})
        two = one.with_delta(Delta(version=2, entities=(entity_to_json(off),)))
        assert two.device_of_certificate("ff", NOW - timedelta(days=1)) is None

    def test_an_identity_is_issuer_and_subject(self) -> None:
        known = Snapshot.of(Known(version=1, identities=(IdentityLink("i", "s", uid("User", "dana")),)))
        assert known.principal_of("i", "s") == uid("User", "dana")
        assert known.principal_of("j", "s") is None

    def test_a_key_is_a_governed_object_under_the_control_of_keys(self) -> None:
        known = Snapshot.of(Known(version=1, keys=(key(),)))
        found = known.resolve(uid("Key", "k1"))
        assert found is not None
        assert found.attrs == {"subject": uid("User", "dana")}
        assert uid("Control", "keys") in known.closure([uid("Key", "k1")])
        assert known.resolve(uid("Key", "k2")) is None


class TestDeltas:
    def test_a_gap_or_a_repeat_is_refused(self) -> None:
        for version in (1, 3):
            with pytest.raises(ConflictError):
                Snapshot.of(Known(version=1)).with_delta(Delta(version=version))

    def test_the_one_before_stays_as_it_was(self) -> None:
        before = Snapshot.of(Known(version=1, keys=(key(),), zones={"a": ("10.0.0.0/8",)}))
        known = before.known
        after = before.with_delta(Delta(version=2, keys_removed=("k1",), zones={}, tokens_revoked=("j",)))
        assert before.known == known
        assert before.key_by_hash("hash-k1") is not None
        assert after.key_by_hash("hash-k1") is None
        assert (after.token_revoked("j"), after.zone_of("10.0.0.1")) == (True, "unknown")

    def test_a_changed_parent_changes_its_children(self) -> None:
        before = snapshot(asset("store/a", sensitivity=1), asset("store/a/b", sensitivity=0))
        assert sensitivity(before.resolve(uid("Dataset", "store/a/b"))) == 1
        raised = entity_to_json(asset("store/a", sensitivity=3))
        after = before.with_delta(Delta(version=2, entities=(raised,)))
        assert sensitivity(after.resolve(uid("Dataset", "store/a/b"))) == 3

    def test_zones_narrow_and_read_mapped_addresses(self) -> None:
        known = snapshot(zones={"office": ["10.0.0.0/8"], "lab": ["10.7.0.0/16"], "six": ["2001:db8::/32"]})
        assert [known.zone_of(ip) for ip in ("10.7.1.1", "10.8.0.1", "::ffff:10.7.0.9")] == [
            "lab",
            "office",
            "lab",
        ]
        assert [known.zone_of(ip) for ip in ("2001:db8::1", "11.0.0.1", "x", "")] == ["six", *["unknown"] * 3]


IDS = st.sampled_from(["a", "b", "c"])
ENTITIES = st.dictionaries(IDS, st.integers(0, 3), max_size=3)


@given(ENTITIES, ENTITIES, st.sets(IDS), st.sets(IDS), st.sets(IDS))
def test_a_delta_on_a_snapshot_is_the_snapshot_of_the_new_state(
    before: dict[str, int], changed: dict[str, int], removed: set[str], keys: set[str], keys_removed: set[str]
) -> None:
    removed -= changed.keys()
    first = Known(
        version=1,
        entities=tuple(entity_to_json(asset(n, sensitivity=s)) for n, s in before.items()),
        keys=tuple(key(k) for k in keys_removed),
    )
    delta = Delta(
        version=2,
        entities=tuple(entity_to_json(asset(n, sensitivity=s)) for n, s in changed.items()),
        entities_removed=tuple(uid_to_json(uid("Dataset", n)) for n in removed),
        keys=tuple(key(k) for k in keys - keys_removed),
        keys_removed=tuple(keys_removed),
    )
    wire = msgspec.json.decode(msgspec.json.encode(delta), type=Delta)
    after = {n: s for n, s in before.items() if n not in removed} | changed
    second = Known(
        version=2,
        entities=tuple(entity_to_json(asset(n, sensitivity=s)) for n, s in after.items()),
        keys=tuple(key(k) for k in keys - keys_removed),
    )
    assert Snapshot.of(first).with_delta(wire).known == Snapshot.of(second).known


def test_a_key_is_found_by_its_id_and_the_issuers_keys_are_kept() -> None:
    jwks = {"keys": [{"kid": "1"}]}
    known = Snapshot.of(Known(version=1, keys=(key(),), issuer_jwks=jwks))
    after = known.with_delta(Delta(version=2, keys_removed=("k1",)))
    assert known.key_by_id("k1") == key()
    assert after.key_by_id("k1") is None
    assert known.issuer_jwks == after.issuer_jwks == jwks


def test_a_key_whose_value_changed_is_not_found_by_the_old_one() -> None:
    before = Snapshot.of(Known(version=1, keys=(key(access_key_id="AK"), key("k2"))))
    rotated = key(hash="h-new", access_key_id="AK2", generation=2)
    after = before.with_delta(Delta(version=2, keys=(rotated,)))
    assert after.key_by_hash("hash-k1") is None
    assert after.key_by_access_key_id("AK") is None
    assert after.key_by_hash("h-new") == after.key_by_access_key_id("AK2") == rotated
    assert after.key_by_hash("hash-k2") is not None


def test_devices_are_found_by_their_owner() -> None:
    owned = [Entity(uid("Device", name), {"owner": uid("User", "dana")}) for name in ("b", "a")]
    known = snapshot(*owned, Entity(uid("Device", "c")))
    assert known.devices_of(uid("User", "dana")) == (uid("Device", "a"), uid("Device", "b"))
    assert known.devices_of(uid("User", "omar")) == ()
