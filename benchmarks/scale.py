"""What grows with the organisation: lists, changes of the directory, memory.

A list is "which of these resources may this person act on", asked through `Standpoint.among`, every
resource in hand. A change is what a gateway does with it: the next version, the decision point moved to
it; for the group all its members are then read with everything that lies above them, as their next
requests would. Times are CPU time of the one thread that does it. Memory is counted by `tracemalloc`, all
in: what is stated, what holds of it, and what the engine keeps ready; for policies with the generated
functions of a few thousand questions.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Sequence
from random import Random

from benchmarks.report import Figure, arguments, progress, publish
from benchmarks.workload import entities, policies, requests, rules, uid
from doorward.cedar.engine import Engine
from doorward.cedar.sharing import shared
from doorward.core.feed import Bundle, Delta, Known
from doorward.core.model import Entity, EntityUid
from doorward.core.values import entity_to_json
from doorward.decisions.point import DecisionPoint, Standpoint
from doorward.directory.snapshot import Snapshot
from doorward.policies.workspace import packaged_schema

RESOURCES = 100_000
MEMBERS = 10_000
_UPDATES = 200
_QUESTIONS = 9


def measure() -> list[Figure]:
    """Run everything and return the figures."""
    people = entities(RESOURCES * 5 // 4, Random(7))  # noqa: S311 -- the same workload every time
    group = uid("Group", "large")
    people = [Entity(group), *_joined(people, group)]
    progress(f"{len(people)} entities")
    snapshot = _snapshot(people)
    figures = []
    for count in (1_000, 10_000):
        progress(f"lists of {RESOURCES} resources, {count} policies")
        first, again, after = _lists(count, people, snapshot)
        figures.append(
            Figure(f"list of 100,000 resources, {count} policies", "s", again, {}, "<= 0.2 s", again <= 0.2)
        )
        figures.append(
            Figure(
                f"the same, one person changed before, {count} policies",
                "s",
                after,
                {},
                "<= 0.2 s",
                after <= 0.2,
            )
        )
        figures.append(Figure(f"the same, the first after the start, {count} policies", "s", first))
    progress("10,000 policies loaded")
    loaded = _loaded(10_000)
    progress("changes")
    one, all_members = _changes(people, snapshot, group)
    progress("memory")
    entity, policy = _per_entity(), _per_policy()
    return [
        *figures,
        Figure("10,000 policies taken from a bundle to rule", "s", loaded, {}, "<= 5 s", loaded <= 5),
        Figure("one entity of 125,000 changed", "ms", one, {}, "< 1 ms", one < 1),
        Figure("a group of 10,000 put under another", "ms", all_members, {}, "<= 100 ms", all_members <= 100),
        Figure("memory per policy, all in", "kB", policy / 1000, {}, "<= 12 kB", policy <= 12_000),
        Figure("memory per entity, all in", "kB", entity / 1000, {}, "<= 1.5 kB", entity <= 1_500),
    ]


def _joined(people: Sequence[Entity], group: EntityUid) -> list[Entity]:
    """Put the first users into a group."""
    members = [e.uid for e in people if e.uid.kind == "User"][:MEMBERS]
    inside = frozenset(members)
    return [Entity(e.uid, e.attrs, e.parents | {group}, e.tags) if e.uid in inside else e for e in people]


def _snapshot(people: Sequence[Entity]) -> Snapshot:
    return Snapshot.of(Known(version=1, entities=tuple(entity_to_json(e) for e in people)))


def _bundle(count: int) -> Bundle:
    written = rules(count, Random(count))  # noqa: S311 -- the same workload every time
    return Bundle("sha256:bench", packaged_schema(), tuple(policies(written)))


def _lists(count: int, people: Sequence[Entity], snapshot: Snapshot) -> tuple[float, float, float]:
    """Return seconds of the first list, the median of later ones, and that with a change before each."""
    point = DecisionPoint()
    point.publish(_bundle(count))
    point.advance(snapshot)
    named = [e.uid for e in people if e.uid.kind in {"Model", "Dataset"}]
    written = rules(count, Random(count))  # noqa: S311 -- the same workload every time
    asked = requests(2 * _QUESTIONS + 1, people, written, Random(3))  # noqa: S311 -- as above
    took = []
    for number, request in enumerate(asked):
        if number > _QUESTIONS:
            somebody = next(e for e in people if e.uid == asked[0].principal)
            snapshot = snapshot.with_delta(_delta(snapshot, somebody, risk=number))
            point.advance(snapshot)
        before = time.thread_time()
        for _ in point.pin().among(request, named):
            pass
        took.append(time.thread_time() - before)
    later, changed = took[1 : _QUESTIONS + 1], took[_QUESTIONS + 1 :]
    return took[0], sorted(later)[_QUESTIONS // 2], sorted(changed)[_QUESTIONS // 2]


def _delta(snapshot: Snapshot, entity: Entity, **attrs: int) -> Delta:
    changed = Entity(entity.uid, {**entity.attrs, **attrs}, entity.parents)
    return Delta(version=snapshot.version + 1, entities=(entity_to_json(changed),))


def _loaded(count: int) -> float:
    bundle = _bundle(count)
    before = time.thread_time()
    DecisionPoint().publish(bundle)
    return time.thread_time() - before


def _changes(people: Sequence[Entity], snapshot: Snapshot, group: EntityUid) -> tuple[float, float]:
    """Return milliseconds of the change of one person, and of a group with all its members read again."""
    bundle = _bundle(1_000)
    point = DecisionPoint()
    point.publish(bundle)
    point.advance(snapshot)
    members = [e for e in people if group in e.parents]
    world = point.pin().world()
    for member in members:
        world.node(member.uid)
    gc.collect()
    took = []
    for member in members[:_UPDATES]:
        delta = _delta(snapshot, member, risk=1)
        before = time.thread_time()
        snapshot = snapshot.with_delta(delta)
        point.advance(snapshot)
        point.pin().world().node(member.uid)
        took.append(time.thread_time() - before)
    under = Entity(group, parents=frozenset({uid("Group", "another")}))
    delta = Delta(version=snapshot.version + 1, entities=(entity_to_json(under),))
    before = time.thread_time()
    point.advance(snapshot.with_delta(delta))
    world = point.pin().world()
    for member in members:
        world.node(member.uid)
    return sorted(took)[_UPDATES // 2] * 1e3, (time.thread_time() - before) * 1e3


def _per_entity(count: int = 20_000) -> float:
    """Return the bytes that one entity takes in a process that decides."""
    people = entities(count, Random(7))  # noqa: S311 -- the same workload every time
    documents = tuple(entity_to_json(e) for e in people)
    names = [e.uid for e in people]
    bundle = _bundle(1_000)
    engine = Engine.of(bundle)
    del people
    gc.collect()
    tracemalloc.start()
    snapshot = Snapshot.of(Known(version=1, entities=documents))
    standpoint = Standpoint(engine, bundle, snapshot)
    for name in names:
        standpoint.world().node(name)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held / count


def _per_policy(count: int = 1_000) -> float:
    """Return the bytes that one policy takes, loaded and with its part of the functions that were hot."""
    people = entities(10_000, Random(7))  # noqa: S311 -- the same workload every time
    snapshot = _snapshot(people)
    written = rules(count, Random(count))  # noqa: S311 -- as above
    asked = requests(2_000, people, written, Random(3))  # noqa: S311 -- as above
    for one in asked:
        snapshot.closure((one.principal, one.resource))
    gc.collect()
    tracemalloc.start()
    engine = Engine.of(shared(_bundle(count)))
    gc.collect()
    loaded = tracemalloc.get_traced_memory()[0]
    world = engine.world(snapshot.lookup, len(people) * 2)
    for one in asked:
        world.node(one.principal)
        world.node(one.resource)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(40):
        for one in asked:
            engine.evaluate(one, world)
    engine.settle()
    gc.collect()
    hot = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return (loaded + hot) / count


if __name__ == "__main__":
    options = arguments(__doc__.splitlines()[0])
    publish(measure(), as_json=options.json)
