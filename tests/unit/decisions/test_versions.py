"""What a version shares with the one before never shows: it answers like one made from nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from doorward.cedar.engine import Engine
from doorward.cedar.schema import Schema
from doorward.cedar.world import Kept
from doorward.core.context import Context
from doorward.core.decision import AccessRequest
from doorward.core.errors import DoorwardError
from doorward.core.feed import Bundle, Delta, Known
from doorward.core.model import Action, Entity, EntityUid
from doorward.core.values import entity_to_json, uid_to_json
from doorward.decisions.point import DecisionPoint, Standpoint
from doorward.directory.effects import Effects
from doorward.directory.snapshot import Snapshot
from support.policies import NOW

Stand = Callable[..., Standpoint]
SCOPE = 'principal is Doorward::User, action == Doorward::Action::"view", resource'
POLICIES = f"""
@id("lab") permit ({SCOPE}) when
 {{ principal in Doorward::Group::"lab" && resource.sensitivity <= principal.clearance }};
@id("project") permit ({SCOPE} in Doorward::Project::"p") when {{ principal.purposes.contains("x") }};
@id("own") permit ({SCOPE}) when {{ resource has owner && resource.owner in Doorward::Group::"house" }};
@id("pii") forbid ({SCOPE} is Doorward::Dataset in Doorward::Environment::"production") when
 {{ resource.hasTag("pii") }};
"""
GROUPS = [EntityUid.of("Group", name) for name in ("lab", "house", "a", "b")]
PROJECTS = [EntityUid.of("Project", name) for name in ("p", "q")]
USERS = [EntityUid.of("User", f"u{n}") for n in range(5)]
NAMES = ["store", "store/a", "store/a/b", "store/a/b/c", "store/d", "other/x", "other/x/y"]
ASSETS = [EntityUid.of(kind, name) for kind in ("Dataset", "Model", "Tool") for name in NAMES]
UPSTREAMS = [EntityUid.of("Upstream", name) for name in ("store", "other")]
PLACES = [EntityUid.of("Environment", name) for name in ("production", "testing")]


def changed(chance: Random) -> Entity:
    """Return some entity as it is newly stated; now and then one that breaks the schema."""
    uid = chance.choice([*GROUPS, *PROJECTS, *USERS, *USERS, *ASSETS, *UPSTREAMS])
    attrs: dict[str, Any] = {}
    parents: set[EntityUid] = set()
    tags: dict[str, str] = {}
    match uid.kind:
        case "Group":
            parents = {chance.choice(GROUPS)} - {uid} if chance.random() < 0.7 else set()
        case "Project":
            attrs = {"purposes": frozenset(chance.sample(["x", "y"], chance.randint(0, 2)))}
        case "Upstream":
            parents = {chance.choice(PLACES)}
        case "User":
            parents = {chance.choice(GROUPS), chance.choice(PROJECTS)}
            attrs = {"clearance": chance.randint(0, 3), "active": chance.random() < 0.9}
            if chance.random() < 0.05:
                attrs["risk"] = "high"
        case _:
            if chance.random() < 0.5:
                attrs["sensitivity"] = chance.randint(0, 3)
            if chance.random() < 0.5:
                attrs["owner"] = chance.choice(USERS)
            if chance.random() < 0.3:
                attrs["environment"] = chance.choice(PLACES)
            parents = {chance.choice(PROJECTS)} if chance.random() < 0.5 else set()
            tags = {"pii": "full"} if chance.random() < 0.3 else {}
    return Entity(uid, attrs, frozenset(parents), tags)


def step(snapshot: Snapshot, chance: Random) -> Snapshot:
    """Return the next version: a few changes, removals, lowerings."""
    stated = tuple(changed(chance) for _ in range(chance.randint(1, 3)))
    named = {entity.uid for entity in stated}
    gone = [uid for uid in snapshot.stated if chance.random() < 0.03 and uid not in named]
    lowered = (
        tuple(sorted(str(uid) for uid in ASSETS if chance.random() < 0.1)) if chance.random() < 0.2 else None
    )
    return snapshot.with_delta(
        Delta(
            version=snapshot.version + 1,
            entities=tuple(entity_to_json(entity) for entity in stated),
            entities_removed=tuple(uid_to_json(uid) for uid in gone),
            lowered=lowered if chance.random() < 0.2 else None,
        )
    )


def requests() -> list[AccessRequest]:
    context = Context(now=NOW)
    named = [*ASSETS, EntityUid.of("Dataset", "store/a/b/file"), EntityUid.of("Model", "other/x/"), USERS[0]]
    named += [EntityUid.of("Tool", "store/a/b/run"), EntityUid.of("Role", "r"), GROUPS[0]]
    return [
        AccessRequest(who, Action.VIEW.uid, what, context)
        for who in (*USERS, EntityUid.of("User", "nobody"))
        for what in named
    ]


@pytest.mark.parametrize("seed", range(12))
def test_every_version_answers_like_one_made_from_nothing(seed: int, standpoint_of: Stand) -> None:
    chance = Random(seed)  # noqa: S311 -- cases that can be made again
    bundle = standpoint_of(POLICIES).bundle
    point, snapshot = DecisionPoint(), Snapshot.of(Known(version=0))
    point.publish(bundle)
    versions = []
    for number in range(25):
        snapshot = step(snapshot, chance)
        point.advance(snapshot)
        if chance.random() < 0.8:
            compare(point.pin(), bundle)
        if number % 8 == 0:
            versions.append(point.pin())
    # Versions that were left behind still answer as they did.
    for old in versions:
        compare(old, bundle)


def compare(standpoint: Standpoint, bundle: Bundle) -> None:
    fresh = DecisionPoint()
    fresh.publish(bundle)
    fresh.advance(Snapshot.of(standpoint.snapshot.known))
    anew = fresh.pin()
    for asked in requests():
        assert standpoint.snapshot.resolve(asked.resource) == anew.snapshot.resolve(asked.resource)
        assert standpoint.decide(asked) == anew.decide(asked)
        assert standpoint.visible(asked.principal, asked.resource) is anew.visible(
            asked.principal, asked.resource
        )
        assert standpoint.inputs(asked) == anew.inputs(asked)


def test_readers_never_wait_and_never_see_half_of_a_change(standpoint_of: Stand) -> None:
    """A group of 1,000 gets and loses a parent while a reader decides: every answer is one of a version."""
    members = [EntityUid.of("User", f"m{n}") for n in range(1_000)]
    group, asset = EntityUid.of("Group", "a"), EntityUid.of("Dataset", "store/x")
    stated = [Entity(uid, {"active": True, "clearance": 3}, frozenset({group})) for uid in members]
    known = tuple(
        entity_to_json(entity) for entity in (*stated, Entity(group), Entity(asset, {"sensitivity": 0}))
    )
    point = DecisionPoint()
    point.publish(standpoint_of(POLICIES).bundle)
    snapshot = Snapshot.of(Known(version=0, entities=known))
    point.advance(snapshot)
    asked = [AccessRequest(uid, Action.VIEW.uid, asset, Context(now=NOW)) for uid in members]
    wrong: list[str] = []
    rounds = 0
    done = threading.Event()

    def read() -> None:
        nonlocal rounds
        try:
            while not done.is_set() or rounds < 2:
                standpoint = point.pin()
                inside = bool(standpoint.snapshot.stated[group].parents)
                allowed = {standpoint.decide(one).allowed for one in asked[rounds % 10 :: 10]}
                if allowed != {inside}:
                    wrong.append(f"{standpoint.entities_version}: {allowed}")
                rounds += 1
        except DoorwardError as reason:
            wrong.append(str(reason))

    reader = threading.Thread(target=read)
    reader.start()
    lab = frozenset({EntityUid.of("Group", "lab")})
    for version in range(1, 61):
        parents: frozenset[EntityUid] = lab if version % 2 else frozenset()
        delta = Delta(version=version, entities=(entity_to_json(Entity(group, parents=parents)),))
        snapshot = snapshot.with_delta(delta)
        point.advance(snapshot)
    done.set()
    reader.join(60)
    assert not reader.is_alive()
    assert rounds >= 2
    assert not wrong


def test_a_version_is_made_without_reading_what_did_not_change(
    standpoint_of: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [
        Entity(EntityUid.of("User", f"m{n}"), {"active": True}, frozenset({GROUPS[2]})) for n in range(50)
    ]
    asset = Entity(EntityUid.of("Dataset", "store/x"), {"sensitivity": 0})
    snapshot = Snapshot.of(
        Known(version=0, entities=tuple(entity_to_json(e) for e in (*members, Entity(GROUPS[2]), asset)))
    )
    point = DecisionPoint()
    point.publish(standpoint_of(POLICIES).bundle)
    point.advance(snapshot)
    asked = [AccessRequest(e.uid, Action.VIEW.uid, asset.uid, Context(now=NOW)) for e in members]
    before = [point.pin().decide(one) for one in asked]
    worked_out = []
    real = Effects._make

    def counting(self: Effects, raw: Entity) -> Entity:
        worked_out.append(raw.uid)
        return real(self, raw)

    monkeypatch.setattr(Effects, "_make", counting)
    changed_one = Entity(members[0].uid, {"active": True, "clearance": 3}, frozenset({GROUPS[2]}))
    point.advance(snapshot.with_delta(Delta(version=1, entities=(entity_to_json(changed_one),))))
    after = [point.pin().decide(one) for one in asked]
    assert worked_out == [members[0].uid]
    assert [one.effect for one in after] == [one.effect for one in before]


def test_a_list_after_each_change_is_that_of_a_version_made_from_nothing(standpoint_of: Stand) -> None:
    chance = Random(99)  # noqa: S311 -- cases that can be made again
    bundle = standpoint_of(POLICIES).bundle
    point, snapshot = DecisionPoint(), Snapshot.of(Known(version=0))
    point.publish(bundle)
    named = [asked.resource for asked in requests()[: len(requests()) // 6]]
    for _ in range(40):
        snapshot = step(snapshot, chance)
        point.advance(snapshot)
        fresh = Standpoint(Engine.of(bundle), bundle, Snapshot.of(snapshot.known))
        for who in USERS:
            asked = AccessRequest(who, Action.VIEW.uid, named[0], Context(now=NOW))
            assert [*point.pin().among(asked, named)] == [*fresh.among(asked, named)]


def test_what_others_may_lie_in_by_the_schema_is_never_a_change_of_itself_alone() -> None:
    """In this schema teams lie in users: a user that moves takes her teams along."""
    schema = Schema.of("entity Org; entity User in [Org]; entity Team in [User]; entity Door;")
    kept = Kept()
    kept.nodes[EntityUid("Team", "t")] = None
    assert kept.after(frozenset({EntityUid("Door", "d")}), schema).nodes is kept.nodes
    assert not kept.after(frozenset({EntityUid("User", "u")}), schema).nodes
    assert not kept.after(None, schema).nodes


def test_changes_kept_apart_are_bounded() -> None:
    schema = Schema.of("entity Door;")
    kept = Kept()
    kept.nodes[EntityUid("Door", "x")] = None
    for number in range(513):
        kept = kept.after(frozenset({EntityUid("Door", str(number))}), schema)
        assert len(kept.changed) <= 512
    assert not kept.nodes


def test_lowering_alone_is_noticed() -> None:
    above, below = EntityUid.of("Dataset", "store"), EntityUid.of("Dataset", "store/open")
    known = (Entity(above, {"sensitivity": 3}), Entity(below, {"sensitivity": 0}))
    first = Snapshot.of(Known(version=0, entities=tuple(map(entity_to_json, known))))
    found = [first.entity(below)]
    for version, lowered in ((1, (str(below),)), (2, ()), (3, None)):
        first = first.with_delta(Delta(version=version, lowered=lowered))
        found.append(first.entity(below))
    assert [entity and entity.attrs["sensitivity"] for entity in found] == [3, 0, 3, 3]
