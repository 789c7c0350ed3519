"""What sources outside say: joiners, movers, leavers, ownership beside files, age."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from doorward.core.clock import ManualClock
from doorward.core.errors import ConflictError, InvalidRequestError
from doorward.core.identity import DeviceCertificate, KeyRecord
from doorward.core.ids import IdSource
from doorward.core.model import Entity, EntityUid, Value
from doorward.core.provisioning import ORG, Provisioned, Statement, Vouched
from doorward.directory.administration import Directory
from doorward.directory.draft import Draft
from doorward.directory.org import parse
from doorward.directory.rules import Rules
from doorward.store.opened import Store

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
IDP = "https://idp.example"
OKTA = Rules(
    source="scim:okta", issuer=IDP, domain="example.com",
    roles={"scientists": ("data-scientist",)}, projects={"fraud": ("fraud",)}, clearance={"cleared": 2},
)  # fmt: skip
uid = EntityUid.of
DANA = uid("User", "dana")


class World:
    def __init__(self, tmp_path: Path) -> None:
        self.clock = ManualClock(NOW)
        self.path = tmp_path
        self.open()

    def open(self) -> None:
        self.store = Store.open("sqlite:///state.db", self.path)
        self.directory = Directory(self.store, self.clock, IdSource(self.clock))

    def reopened(self) -> Directory:
        self.store.close()
        self.open()
        return self.directory

    def do(self, act: Callable[[Draft], object], rules: Rules = OKTA) -> None:
        draft = self.directory.draft(rules)
        act(draft)
        self.directory.provision(draft.plan(), operator=rules.source)

    def apply(self, text: str, *, prune: bool = False) -> None:
        self.directory.apply(parse(text, "org.yaml"), prune)

    def one(self, kind: str, identifier: str, rules: Rules = OKTA) -> Provisioned:
        return self.directory.registry.objects[(rules.source, kind, identifier)]

    def join(
        self, identifier: str, name: str, *, kind: str = "User", external: str = "", rules: Rules = OKTA,
        **attrs: Value,
    ) -> Provisioned:  # fmt: skip
        wanted = Provisioned(
            source=rules.source, kind=kind, id=identifier, uid=uid(kind, name), name=name,
            created=self.clock.now(), modified=self.clock.now(), external_id=external,
            link=rules.link_of(name=name, external_id=external) if kind == "User" else None,
        )  # fmt: skip
        self.do(lambda draft: draft.add(wanted, {"active": True, **attrs} if kind != "Group" else {}), rules)
        return self.one(kind, identifier, rules)

    def put_in(self, group: str, *names: EntityUid) -> None:
        self.do(lambda draft: draft.members(self.one("Group", group), frozenset(names)))

    def entity(self, of: EntityUid = DANA) -> Entity:
        found = self.directory.entity(of)
        assert found is not None
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class TestJoiner:
    def test_a_joiner_is_known_by_her_issuer_and_subject(self, world: World) -> None:
        world.join("1", "dana@example.com", external="00u1", department="risk")
        assert world.directory.snapshot.principal_of(IDP, "00u1") == DANA
        assert world.entity().attrs["department"] == "risk"
        assert world.directory.snapshot.is_active(DANA)

    def test_another_domain_stays_in_the_name(self, world: World) -> None:
        made = world.join("1", "dana@partner.example", external="x")
        assert made.uid == uid("User", "dana@partner.example")

    def test_a_declared_name_is_not_taken_over(self, world: World) -> None:
        world.apply("users: { dana: { roles: [admin] } }")
        with pytest.raises(ConflictError, match="may not take it over"):
            world.join("1", "dana", external="evil")
        assert world.directory.snapshot.principal_of(IDP, "evil") is None

    def test_a_declared_name_is_adopted_if_listed(self, world: World) -> None:
        world.apply("users: { dana: { roles: [analyst], clearance: 2 } }")
        world.join("1", "dana", external="00u1", rules=Rules(source="scim:okta", issuer=IDP, adopt=("da*",)))
        assert uid("Role", "analyst") in world.entity().parents
        assert world.entity().attrs["clearance"] == 2

    def test_an_identity_of_somebody_else_is_refused(self, world: World) -> None:
        world.join("1", "dana", external="00u1")
        other = Rules(source="scim:other", issuer=IDP)
        with pytest.raises(ConflictError, match="linked to somebody else"):
            world.join("9", "eve", external="00u1", rules=other)

    def test_everything_survives_a_restart(self, world: World) -> None:
        world.join("1", "dana", external="00u1")
        world.join("g", "scientists", kind="Group")
        world.put_in("g", DANA)
        before = world.directory.known()
        after = world.reopened()
        assert after.known() == before
        assert after.registry.members("scim:okta", uid("Group", "scientists")) == {DANA}
        world.put_in("g")
        assert uid("Role", "data-scientist") not in world.entity().parents


class TestMover:
    def test_a_group_is_worth_its_roles_and_loses_them_at_once(self, world: World) -> None:
        world.join("1", "dana")
        world.join("g", "scientists", kind="Group")
        world.put_in("g", DANA)
        assert uid("Role", "data-scientist") in world.entity().parents
        world.put_in("g")
        assert world.entity().parents == frozenset()

    def test_nested_groups_count_and_a_change_in_the_middle_arrives(self, world: World) -> None:
        world.join("1", "dana")
        for name in ("cleared", "middle", "inner"):
            world.join(name, name, kind="Group")
        world.put_in("inner", DANA)
        world.put_in("middle", uid("Group", "inner"))
        assert world.entity().attrs["clearance"] == 0
        world.put_in("cleared", uid("Group", "middle"))
        assert world.entity().attrs["clearance"] == 2
        world.put_in("middle")
        assert world.entity().attrs["clearance"] == 0

    def test_a_group_in_itself_is_refused(self, world: World) -> None:
        for name in ("a", "b"):
            world.join(name, name, kind="Group")
        world.put_in("a", uid("Group", "b"))
        with pytest.raises(InvalidRequestError, match="in itself"):
            world.put_in("b", uid("Group", "a"))

    def test_clearance_is_never_the_sources_own_word(self, world: World) -> None:
        world.join("1", "dana", clearance=3)
        assert world.entity().attrs["clearance"] == 0

    def test_what_files_gave_stays_when_the_source_moves_her(self, world: World) -> None:
        world.join("1", "dana", department="risk")
        world.apply("users: { dana: { roles: [analyst], projects: [fraud], clearance: 1 } }")
        world.join("g", "scientists", kind="Group")
        world.put_in("g", DANA)
        world.put_in("g")
        assert world.entity().parents == {uid("Role", "analyst"), uid("Project", "fraud")}
        assert world.entity().attrs["clearance"] == 1
        assert world.entity().attrs["department"] == "risk"


class TestBesideFiles:
    def test_a_file_that_contradicts_its_source_is_refused(self, world: World) -> None:
        world.join("1", "dana", department="risk")
        with pytest.raises(ConflictError, match=r"department.*scim:okta says 'risk'"):
            world.apply("users: { dana: { department: sales } }")

    def test_a_file_can_put_somebody_out_and_never_in(self, world: World) -> None:
        world.join("1", "dana")
        world.apply("users: { dana: { active: false } }")
        assert not world.directory.snapshot.is_active(DANA)
        world.apply("users: { dana: { active: true } }")
        assert world.directory.snapshot.is_active(DANA)
        one = world.one("User", "1")
        world.do(lambda draft: draft.change(one, {"active": False}))
        world.apply("users: { dana: { active: true, roles: [x] } }")
        assert not world.directory.snapshot.is_active(DANA)

    def test_a_file_adds_nobody_to_a_group_of_a_source(self, world: World) -> None:
        world.join("g", "scientists", kind="Group")
        with pytest.raises(ConflictError, match="for scim:okta to say"):
            world.apply("users: { eve: { groups: [scientists] } }")

    def test_pruning_spares_what_is_provisioned_and_takes_what_the_file_gave(self, world: World) -> None:
        world.join("1", "dana")
        world.apply("users: { dana: { roles: [analyst] }, eve: {} }")
        world.apply("users: {}", prune=True)
        assert world.directory.entity(uid("User", "eve")) is None
        assert world.entity().parents == frozenset()
        assert world.directory.snapshot.is_active(DANA)

    def test_applying_the_same_file_again_changes_nothing(self, world: World) -> None:
        world.join("1", "dana", department="risk")
        file = "users: { dana: { roles: [analyst], department: risk } }"
        world.apply(file)
        assert world.directory.plan(parse(file, "org.yaml")).items == ()


class TestLeaver:
    def test_a_leaver_loses_keys_identities_and_certificates(self, world: World) -> None:
        one = world.join("1", "dana", external="00u1")
        world.join("d", "laptop", kind="Device", managed=True)
        key = KeyRecord(id="k", hash="h", subject=DANA, created=NOW)
        world.directory.add_key(key)
        world.directory.bind_certificate(
            DeviceCertificate("ff", uid("Device", "laptop"), datetime.max.replace(tzinfo=UTC))
        )
        world.do(lambda draft: draft.remove(one))
        world.do(lambda draft: draft.remove(world.one("Device", "d")))
        snapshot = world.directory.snapshot
        assert not snapshot.is_active(DANA)
        assert (snapshot.keys, snapshot.identities, snapshot.certificates) == ({}, {}, {})

    def test_a_file_that_still_names_a_leaver_brings_her_not_back(self, world: World) -> None:
        one = world.join("1", "dana", external="00u1")
        file = f"users: {{ dana: {{ roles: [admin], identities: [{{ issuer: '{IDP}', subject: other }}] }} }}"
        world.apply(file)
        world.do(lambda draft: draft.remove(one))
        assert world.directory.snapshot.identities == {}
        world.apply(file)
        assert not world.directory.snapshot.is_active(DANA)
        assert not world.reopened().snapshot.is_active(DANA)

    def test_a_recycled_name_inherits_nothing(self, world: World) -> None:
        world.apply("assets: { 'Dataset::\"store/x\"': { owner: dana } }")
        one = world.join("1", "dana", external="old")
        world.do(lambda draft: draft.remove(one))
        other = world.join("2", "dana", external="new")
        assert other.uid == uid("User", "dana#2")
        assert world.directory.snapshot.principal_of(IDP, "new") == other.uid
        assert not world.directory.snapshot.is_active(DANA)

    def test_the_same_person_comes_back_as_herself(self, world: World) -> None:
        one = world.join("1", "dana", external="00u1")
        world.do(lambda draft: draft.remove(one))
        assert world.join("2", "dana", external="00u1").uid == DANA
        assert world.directory.snapshot.is_active(DANA)

    def test_an_object_of_the_same_id_comes_back_as_itself(self, world: World) -> None:
        one = world.join("1", "dana")
        world.do(lambda draft: draft.remove(one))
        assert world.join("1", "dana").uid == DANA
        assert world.reopened().snapshot.is_active(DANA)
        assert world.directory.registry.named("scim:okta", "User", "dana") is not None

    def test_a_renamed_person_keeps_her_entity_and_frees_her_name_for_another(self, world: World) -> None:
        one = world.join("1", "dana")
        world.do(
            lambda d: d.change(
                Provisioned(**{f: getattr(one, f) for f in one.__struct_fields__} | {"name": "d2"}),
                {"active": True},
            )
        )
        assert world.one("User", "1").uid == DANA
        assert world.join("2", "dana").uid == uid("User", "dana#2")

    def test_a_deleted_group_is_gone_with_what_it_was_worth(self, world: World) -> None:
        world.join("1", "dana")
        world.join("g", "scientists", kind="Group")
        world.put_in("g", DANA)
        world.do(lambda draft: draft.remove(world.one("Group", "g")))
        assert world.entity().parents == frozenset()
        assert world.directory.entity(uid("Group", "scientists")) is None


class TestAge:
    LAPTOP = uid("Device", "laptop")

    def say(self, world: World, *, compliant: bool, max_age: float | None = 60) -> None:
        said = Statement(
            uid=self.LAPTOP, source="mdm", seen=world.clock.now(), max_age=max_age,
            attrs={"managed": True, "compliant": compliant},
        )  # fmt: skip
        world.directory.state(said, operator="mdm")

    def test_posture_that_nobody_renews_is_no_longer_compliant(self, world: World) -> None:
        world.apply("devices: { laptop: { managed: true, compliant: true } }")
        self.say(world, compliant=True)
        assert world.entity(self.LAPTOP).attrs["compliant"] is True
        world.clock.advance(61)
        assert world.directory.age() == 1
        assert world.entity(self.LAPTOP).attrs["compliant"] is False
        assert world.directory.age() == 0
        self.say(world, compliant=True)
        assert world.entity(self.LAPTOP).attrs["compliant"] is True

    def test_everyone_must_say_compliant(self, world: World) -> None:
        world.apply("devices: { laptop: { managed: true, compliant: true } }")
        self.say(world, compliant=False)
        world.apply("devices: { laptop: { managed: true, compliant: true, platform: linux } }")
        assert world.entity(self.LAPTOP).attrs["compliant"] is False
        assert world.entity(self.LAPTOP).attrs["platform"] == "linux"

    def test_a_source_that_answers_no_more_takes_its_people_out_after_max_age(self, world: World) -> None:
        ldap = Rules(source="ldap:corp")
        world.join("1", "dana", rules=ldap)
        world.clock.advance(3000)
        world.directory.vouch("ldap:corp", Vouched(world.clock.now(), 3600))
        world.clock.advance(3000)
        world.directory.age()
        assert world.directory.snapshot.is_active(DANA)
        world.clock.advance(700)
        world.directory.age()
        assert not world.directory.snapshot.is_active(DANA)
        world.directory.vouch("ldap:corp", Vouched(world.clock.now(), 3600))
        assert world.directory.snapshot.is_active(DANA)

    def test_what_a_file_says_does_not_age(self, world: World) -> None:
        world.apply("devices: { laptop: { managed: true, compliant: true } }")
        self.say(world, compliant=True, max_age=None)
        world.clock.advance(10**9)
        world.directory.age()
        assert world.entity(self.LAPTOP).attrs["compliant"] is True
        assert ORG in world.directory.registry.stated(self.LAPTOP)


def test_a_plan_made_before_another_change_is_not_carried_out(world: World) -> None:
    one = world.join("1", "dana")
    draft = world.directory.draft(OKTA)
    draft.remove(one)
    late = draft.plan()
    world.apply("users: { eve: {} }")
    with pytest.raises(ConflictError, match="meanwhile"):
        world.directory.provision(late, operator="x")
