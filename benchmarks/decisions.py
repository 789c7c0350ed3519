"""Decisions per policy count: our engine warm and cold, beside cedarpy and engines of other languages.

One call of ours is `Standpoint.decide`: who and what is known, context checked, slice found, policies
evaluated, decision with determining policies and obligations assembled. cedarpy gets pre-parsed handles and
the same request; vakt, pycasbin, regorus and Cerbos get the same rules in their own language and every
attribute in hand, without our entities to look up, without determining policies to report. Every answer of
every engine is compared with ours.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import cedarpy

from benchmarks import scale
from benchmarks.chart import draw
from benchmarks.peers import run as peers
from benchmarks.report import Figure, arguments, progress, publish
from benchmarks.workload import entities, plain, policies, requests, rules
from doorward.cedar.engine import Engine
from doorward.core.decision import AccessRequest
from doorward.core.feed import Bundle, Known, PolicyText
from doorward.core.model import Entity
from doorward.core.values import entity_to_json, to_json, uid_to_json
from doorward.decisions.point import Standpoint
from doorward.directory.snapshot import Snapshot
from doorward.policies.workspace import packaged_schema

SIZES = (10, 100, 1_000, 10_000)
CHART = Path(__file__).parents[1] / "docs" / "assets" / "decisions.svg"


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


def one_size(count: int, snapshot: Snapshot, people: Sequence[Entity], known: list[Entity], *, quick: bool,
             ) -> dict[str, float]:  # fmt: skip
    """Measure one number of policies."""
    progress(f"{count} policies")
    written = rules(count, Random(count))  # noqa: S311 -- the same workload every time
    found = policies(written)
    asked = requests(4_000, people, written, Random(count))  # noqa: S311 -- the same workload every time
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
    engine.settle()
    gc.collect()
    warm = [took for _ in range(5 if quick else 20) for took in timed(point.decide, hot)]
    peer = Cedarpy(found, known, packaged_schema())
    sample = asked[: max(20, min(300, 200_000 // count))]
    theirs = timed(peer.decide, [as_cedar(request) for request in sample])
    for request in sample:
        ours, answer = point.decide(request), peer.decide(as_cedar(request))
        assert ours.allowed is answer.allowed, request
        assert sorted(ours.determining) == sorted(answer.diagnostics.reasons), request
    took = {"warm": warm, "cold": cold, "cedarpy": theirs}
    by_uid = {entity.uid: entity for entity in known}
    flat = [{**plain(request, by_uid), "allow": point.decide(request).allowed} for request in asked]
    for name in peers.available():
        if count <= peers.MOST[name]:
            progress(f"{count} policies, {name}")
            took[name] = peers.run(name, written, flat, seconds=1 if quick else 5)
    return {
        **{f"{name} p50": p50(each) for name, each in took.items()},
        **{f"{name} p99": p99(each) for name, each in took.items()},
        "compile": compiled,
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
    peers.install()
    chance = Random(7)  # noqa: S311 -- the same workload every time
    people = entities(10_000 if quick else 100_000, chance)
    snapshot = Snapshot.of(Known(version=1, entities=tuple(entity_to_json(e) for e in people)))
    progress("entities for cedarpy")
    known = effective(snapshot, people)
    results = {n: one_size(n, snapshot, people, known, quick=quick) for n in SIZES}
    names = {"warm": "Doorward, warm", "cold": "Doorward, cold", "cedarpy": "cedarpy"}
    names |= {name: name for name in peers.available()}
    draw(
        CHART,
        {
            label: {n: r[f"{name} p50"] for n, r in results.items() if f"{name} p50" in r}
            for name, label in names.items()
        },
    )
    written = rules(1_000, Random(1))  # noqa: S311 -- the same workload every time
    per_policy = memory(lambda: Engine.of(bundle(policies(written)))) / len(written)
    few = people[:2_000]
    engine = Engine.of(bundle([]))
    world = {e.uid: e for e in effective(snapshot, few)}
    per_entity = memory(lambda: engine.load(world)) / len(world)
    return [*figures(results, per_policy, per_entity), *scale.measure()]


_FASTER = {10: 60, 100: 60, 1_000: 300, 10_000: 3_000}


def figures(results: dict[int, dict[str, float]], per_policy: float, per_entity: float) -> list[Figure]:
    """Compare with what was promised."""
    rows = []
    for count, r in results.items():
        faster = r["cedarpy p50"] / r["warm p50"]
        others = {name: r[f"{name} p50"] for name in ("cedarpy", *peers.available()) if f"{name} p50" in r}
        worst = {name: r[f"{name} p99"] for name in others}
        target = f">= {_FASTER[count]}x cedarpy" + (", <= 5 us" if count == 10_000 else "")
        met = faster >= _FASTER[count] and (count < 10_000 or r["warm p50"] <= 5)
        rows.append(Figure(f"{count} policies, warm p50", "us", r["warm p50"], others, target, met))
        rows.append(Figure(f"{count} policies, warm p99", "us", r["warm p99"], worst))
        rows.append(
            Figure(
                f"{count} policies, cold p50", "us", r["cold p50"], others, "<= 100 us", r["cold p50"] <= 100
            )
        )
        rows.append(Figure(f"{count} policies, cold p99", "us", r["cold p99"]))
    last, first = results[SIZES[-1]], results[SIZES[0]]
    growth = last["warm p50"] / first["warm p50"]
    return [
        *rows,
        Figure("warm p50, 10,000 policies over 10", "x", growth, {}, "<= 4x", growth <= 4),
        Figure("10,000 policies compiled", "s", last["compile"], {}, "<= 5 s", last["compile"] <= 5),
        Figure("memory per policy, loaded", "kB", per_policy / 1000, {}, "<= 12 kB", per_policy <= 12_000),
        Figure(
            "memory per entity in the engine", "kB", per_entity / 1000, {}, "<= 1.5 kB", per_entity <= 1_500
        ),
        Figure("hash of a decision's inputs, first", "us", last["first inputs"]),
        Figure("hash of a decision's inputs, again", "us", last["inputs"]),
    ]


if __name__ == "__main__":
    options = arguments(__doc__.splitlines()[0])
    publish(measure(quick=options.quick), as_json=options.json)
