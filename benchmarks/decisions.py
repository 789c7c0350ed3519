# ruff: noqa: E501 -- policy texts stand on one line each
"""Decisions per policy count: our engine warm and cold, beside cedarpy.

The workload: users and services with roles, projects, clearance; models and datasets with sensitivity,
owner, project; six actions; 55 % role x project grants, 15 % user x resource, owner, department and type
grants, 12 % forbids (network range, `like`, unmanaged device, sensitive data). One call of ours is
`Standpoint.decide`: who and what is known, context checked, slice found, policies evaluated, decision
with determining policies and obligations assembled. cedarpy gets pre-parsed handles and the same request.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_interface
from pathlib import Path
from random import Random
from typing import Any

import cedarpy

from benchmarks.chart import draw
from benchmarks.report import Figure, arguments, progress, publish
from doorward.cedar.corpus import trees
from doorward.cedar.engine import Engine
from doorward.core.context import Context, DeviceContext, NetworkContext, SessionContext
from doorward.core.decision import AccessRequest
from doorward.core.feed import Bundle, Known, PolicyText
from doorward.core.model import Entity, EntityUid
from doorward.core.values import entity_to_json, to_json, uid_to_json
from doorward.decisions.point import Standpoint
from doorward.directory.snapshot import Snapshot
from doorward.policies.workspace import packaged_schema

SIZES = (10, 100, 1_000, 10_000)
ACTIONS = ("invoke", "view", "modify", "train", "deploy", "export")
CHART = Path(__file__).parents[1] / "docs" / "assets" / "decisions.svg"
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def uid(kind: str, name: object) -> EntityUid:
    """Return the name of one entity."""
    return EntityUid.of(kind, str(name))


def policies(count: int, chance: Random) -> list[PolicyText]:
    """Return policies of the workload's mixture."""
    texts = "\n".join(policy(chance) for _ in range(count))
    return [PolicyText(id=f"p{number}", text="", effect=tree["effect"], tree=tree)
            for number, tree in enumerate(trees(texts).values())]  # fmt: skip


def policy(chance: Random) -> str:
    """Return the text of one policy."""
    role, project, action = chance.randrange(60), chance.randrange(200), chance.choice(ACTIONS)
    kind = "Model" if action in {"invoke", "deploy"} else chance.choice(["Model", "Dataset"])
    does = f'action == Doorward::Action::"{action}"'
    draw_ = chance.random()
    if draw_ < 0.55:
        mfa = chance.choice(["", "&& context.session.mfa", "&& context.device.managed"])
        return (
            f'permit (principal in Doorward::Role::"r{role}", {does}, resource in Doorward::Project::"p{project}")'
            f" when {{ resource.sensitivity <= principal.clearance {mfa} }};"
        )
    if draw_ < 0.70:
        who, what = chance.randrange(2_000), chance.randrange(2_000)
        return (
            f'permit (principal == Doorward::User::"u{who}", {does}, resource == Doorward::{kind}::"m/{what}")'
            f" when {{ context.risk < {chance.randrange(20, 90)} }};"
        )
    if draw_ < 0.88:
        test = chance.choice([
            "resource has owner && resource.owner == principal",
            f'principal has department && principal.department == "d{chance.randrange(30)}" && resource.sensitivity == 0',
        ])  # fmt: skip
        return (
            f'permit (principal is Doorward::User in Doorward::Role::"r{role}", {does}, resource is Doorward::{kind})'
            f" when {{ {test} }};"
        )
    test = chance.choice([
        'context.network has ip && !context.network.ip.isInRange(ip("10.0.0.0/8"))',
        'principal has email && principal.email like "*@contractor.example"',
        "!context.device.managed && resource.sensitivity >= 3",
        "context.risk > 80",
    ])  # fmt: skip
    return (
        f'forbid (principal in Doorward::Role::"r{role}", {does}, resource in Doorward::Project::"p{project}")'
        f" when {{ {test} }};"
    )


def entities(count: int, chance: Random) -> list[Entity]:
    """Return people and assets: a fifth users, the rest models and datasets."""
    people = count // 5
    found = [user(number, chance) for number in range(people)]
    for number in range(count - people):
        kind = "Model" if number % 2 else "Dataset"
        attrs: dict[str, Any] = {
            "sensitivity": chance.randrange(4),
            "environment": uid("Environment", chance.choice(["production", "training", "testing"])),
            "owner": uid("User", f"u{chance.randrange(people)}"),
        }
        if kind == "Dataset":
            attrs |= {"purposes": frozenset(), "live": True}
        parents = frozenset({uid("Project", f"p{chance.randrange(200)}")})
        found.append(Entity(uid(kind, f"m/{number}"), attrs, parents, {"tier": "gold"}))
    return found


def user(number: int, chance: Random) -> Entity:
    """Return one person."""
    attrs: dict[str, Any] = {
        "active": True, "employment": "employee", "clearance": chance.randrange(4), "purposes": frozenset({"x"}),
        "risk": 0, "department": f"d{chance.randrange(30)}",
        "email": f"u{number}@{chance.choice(['example.com', 'contractor.example'])}",
    }  # fmt: skip
    roles = {uid("Role", f"r{chance.randrange(60)}") for _ in range(3)}
    return Entity(
        uid("User", f"u{number}"), attrs, frozenset({*roles, uid("Project", f"p{chance.randrange(200)}")})
    )


def requests(count: int, people: Sequence[Entity], chance: Random) -> list[AccessRequest]:
    """Return questions of known people about known assets."""
    users = [e.uid for e in people if e.uid.kind == "User"]
    assets = [e.uid for e in people if e.uid.kind != "User"]
    return [question(chance.choice(users), chance.choice(assets), chance) for _ in range(count)]


def question(who: EntityUid, what: EntityUid, chance: Random) -> AccessRequest:
    """Return one question the schema knows."""
    allowed = ACTIONS if what.kind == "Model" else tuple(a for a in ACTIONS if a != "invoke")
    context = Context(
        now=_NOW,
        device=DeviceContext(known=True, proven=chance.random() < 0.7, managed=chance.random() < 0.7),
        network=NetworkContext(zone="office", ip=ip_interface(f"10.0.0.{chance.randrange(255)}")),
        session=SessionContext(method="oidc", mfa=chance.random() < 0.6, age=60),
        risk=chance.randrange(100),
    )
    return AccessRequest(who, uid("Action", chance.choice(allowed)), what, context)


def bundle(found: Sequence[PolicyText]) -> Bundle:
    """Return an admitted set."""
    return Bundle("sha256:bench", packaged_schema(), tuple(found))


def timed(call: Callable[[Any], object], items: Sequence[Any]) -> list[float]:
    """Return microseconds a call, one for each item."""
    took = []
    clock = time.perf_counter_ns
    for item in items:
        before = clock()
        call(item)
        took.append((clock() - before) / 1000)
    return took


def p50(took: list[float]) -> float:
    """Return the median."""
    return statistics.median(took)


def p99(took: list[float]) -> float:
    """Return the 99th percentile."""
    return sorted(took)[int(len(took) * 0.99)]


class Cedarpy:
    """cedarpy as it is best used: everything parsed before."""

    def __init__(self, found: Sequence[PolicyText], known: Sequence[Entity], schema: str) -> None:
        """Parse policies and entities once."""
        document = {"templates": {}, "templateLinks": [], "staticPolicies": {p.id: p.tree for p in found}}
        self._policies = cedarpy.PolicySet.from_json_str(json.dumps(document))
        self._entities = cedarpy.Entities.from_json_str(
            json.dumps([entity_to_json(e) for e in known]), schema
        )

    def decide(self, asked: dict[str, Any]) -> cedarpy.AuthzResult:
        """Return its answer with diagnostics."""
        return cedarpy.is_authorized(asked, self._policies, self._entities)


def as_cedar(request: AccessRequest) -> dict[str, Any]:
    """Return a request as cedarpy takes it fastest."""
    asked: dict[str, Any] = {
        name: uid_to_json(getattr(request, name)) for name in ("principal", "action", "resource")
    }
    return {**asked, "context": to_json(request.context.to_record())}


def effective(snapshot: Snapshot, known: Sequence[Entity]) -> list[Entity]:
    """Return the entities as decisions see them, with all they name."""
    return list(snapshot.closure([e.uid for e in known]).values())


def one_size(count: int, snapshot: Snapshot, asked: Sequence[AccessRequest], known: list[Entity], *, quick: bool,
             ) -> dict[str, float]:  # fmt: skip
    """Measure one number of policies."""
    progress(f"{count} policies")
    found = policies(count, Random(count))  # noqa: S311 -- the same workload every time
    before = time.perf_counter()
    engine = Engine.of(bundle(found))
    compiled = time.perf_counter() - before
    cold_point = Standpoint(engine, bundle(found), snapshot)
    cold = timed(cold_point.decide, asked[:2000])
    point = Standpoint(engine, bundle(found), snapshot)
    hot = asked[:500]
    for _ in range(40):
        for request in hot:
            point.decide(request)
    gc.collect()
    warm = [took for _ in range(5 if quick else 20) for took in timed(point.decide, hot)]
    peer = Cedarpy(found, known, packaged_schema())
    sample = asked[: max(20, min(300, 200_000 // count))]
    theirs = timed(peer.decide, [as_cedar(request) for request in sample])
    for request in sample:
        ours, answer = point.decide(request), peer.decide(as_cedar(request))
        assert ours.allowed is answer.allowed, request
        assert sorted(ours.determining) == sorted(answer.diagnostics.reasons), request
    return {
        "warm p50": p50(warm), "warm p99": p99(warm), "cold p50": p50(cold), "cold p99": p99(cold),
        "cedarpy p50": p50(theirs), "cedarpy p99": p99(theirs), "compile": compiled,
        "first inputs": p50(timed(point.inputs, hot[:200])), "inputs": p50(timed(point.inputs, hot[:200])),
    }  # fmt: skip


def memory(make: Callable[[], object]) -> float:
    """Return the bytes that what is made holds."""
    gc.collect()
    tracemalloc.start()
    made = make()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del made
    return float(held)


def measure(*, quick: bool) -> list[Figure]:
    """Run all sizes and return the figures."""
    chance = Random(7)  # noqa: S311 -- the same workload every time
    people = entities(10_000 if quick else 100_000, chance)
    snapshot = Snapshot.of(Known(version=1, entities=tuple(entity_to_json(e) for e in people)))
    asked = requests(4_000, people, chance)
    progress("entities for cedarpy")
    known = effective(snapshot, people)
    results = {n: one_size(n, snapshot, asked, known, quick=quick) for n in SIZES}
    draw(
        CHART,
        {
            "Doorward, warm": {n: r["warm p50"] for n, r in results.items()},
            "Doorward, cold": {n: r["cold p50"] for n, r in results.items()},
            "cedarpy": {n: r["cedarpy p50"] for n, r in results.items()},
        },
    )
    found = policies(1_000, Random(1))  # noqa: S311 -- the same workload every time
    per_policy = memory(lambda: Engine.of(bundle(policies(1_000, Random(1))))) / len(found)  # noqa: S311
    few = people[:2_000]
    engine = Engine.of(bundle([]))
    world = {e.uid: e for e in effective(snapshot, few)}
    per_entity = memory(lambda: engine.load(world)) / len(world)
    return figures(results, per_policy, per_entity)


_FASTER = {10: 60, 100: 60, 1_000: 300, 10_000: 3_000}


def figures(results: dict[int, dict[str, float]], per_policy: float, per_entity: float) -> list[Figure]:
    """Compare with what was promised."""
    rows = []
    for count, r in results.items():
        faster = r["cedarpy p50"] / r["warm p50"]
        peers = {"cedarpy": r["cedarpy p50"]}
        target = f">= {_FASTER[count]}x cedarpy" + (", <= 5 us" if count == 10_000 else "")
        met = faster >= _FASTER[count] and (count < 10_000 or r["warm p50"] <= 5)
        rows.append(Figure(f"{count} policies, warm p50", "us", r["warm p50"], peers, target, met))
        rows.append(Figure(f"{count} policies, warm p99", "us", r["warm p99"], {"cedarpy": r["cedarpy p99"]}))
        rows.append(
            Figure(
                f"{count} policies, cold p50", "us", r["cold p50"], peers, "<= 100 us", r["cold p50"] <= 100
            )
        )
        rows.append(Figure(f"{count} policies, cold p99", "us", r["cold p99"]))
    last, first = results[SIZES[-1]], results[SIZES[0]]
    growth = last["warm p50"] / first["warm p50"]
    return [
        *rows,
        Figure("warm p50, 10,000 policies over 10", "x", growth, {}, "<= 4x", growth <= 4),
        Figure("10,000 policies compiled", "s", last["compile"], {}, "<= 5 s", last["compile"] <= 5),
        Figure("memory per policy", "kB", per_policy / 1000, {}, "<= 12 kB", per_policy <= 12_000),
        Figure(
            "memory per entity in the engine", "kB", per_entity / 1000, {}, "<= 1.5 kB", per_entity <= 1_500
        ),
        Figure("hash of a decision's inputs, first", "us", last["first inputs"]),
        Figure("hash of a decision's inputs, again", "us", last["inputs"]),
    ]


if __name__ == "__main__":
    options = arguments(__doc__.splitlines()[0])
    publish(measure(quick=options.quick), as_json=options.json)
