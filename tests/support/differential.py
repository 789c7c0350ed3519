"""Random policies, entities and requests: both tiers of the engine, in both modes, against Cedar itself.

Run for long with `make soak`, or `PYTHONPATH=src:tests python -m support.differential --count 1000000`.
Every batch is made from (seed, its number) alone: a run goes on where its state file says it stopped,
and a difference is made again with `--seed S --start N --count 40`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import cedarpy

from doorward.cedar import corpus, oracle
from doorward.cedar.engine import Answer, Engine
from doorward.cedar.links import linked
from doorward.cedar.oracle import Opinion
from doorward.core.feed import PolicyText
from doorward.core.model import EntityUid
from support.cedar_cases import BATCH, SCHEMA, Batch, Maker

_ERRING = re.compile(r"^error while evaluating policy `([^`]+)`")
_SAVED_EVERY = 25  # batches
STRICT, PLAIN = "strict", "cedar"


def told(answer: Answer) -> Opinion:
    """Return our answer in the form in which answers are compared."""
    erring = (error.partition(":")[0] for error in answer.errors)
    return Opinion(answer.effect, tuple(sorted(answer.determining)), tuple(sorted(erring)))


class Judges:
    """Cedar and our two tiers on one batch, each as Cedar (erring forbids skipped) and strict."""

    def __init__(self, batch: Batch) -> None:
        document = json.loads(cedarpy.policies_to_json_str(batch.policies))
        trees = dict(document["staticPolicies"])
        for link in batch.links:
            values = {slot: EntityUid(**uid) for slot, uid in link["values"].items()}
            trees[link["new_id"]] = linked(document["templates"][link["template_id"]], values)
        policies = [PolicyText(id=name, text="", tree=tree) for name, tree in trees.items()]
        self._ids = {name: name for name in trees}
        self._forbids = {name for name, tree in trees.items() if tree["effect"] == "forbid"}
        self._engines = {
            (tier, mode): Engine(policies, SCHEMA, erring_forbid_denies=mode == STRICT, hot=hot, beside=False)
            for tier, hot in corpus.TIERS.items()
            for mode in (PLAIN, STRICT)
        }
        self.generated = {key for key in self._engines if corpus.TIERS[key[0]] is not None}
        self._worlds = {key: corpus.world(engine, batch.entities) for key, engine in self._engines.items()}
        self._schema = cedarpy.Schema.from_str(SCHEMA)
        self._policies = cedarpy.PolicySet.from_str(batch.policies).with_linked_batch(batch.links)
        self._entities = cedarpy.Entities.from_json_str(json.dumps(batch.entities), self._schema)

    def cedar(self, request: dict[str, Any]) -> dict[str, Opinion]:
        """Return what Cedar says, and what strict mode must make of it."""
        result = cedarpy.is_authorized(request, self._policies, self._entities, self._schema)
        found = [_ERRING.match(error) for error in result.diagnostics.errors]
        assert result.decision is not cedarpy.Decision.NoDecision, result.diagnostics.errors
        assert None not in found, result.diagnostics.errors
        plain = Opinion(
            oracle.Effect(result.decision.value.lower()),
            tuple(sorted(result.diagnostics.reasons)),
            tuple(sorted(match[1] for match in found if match is not None)),
        )
        return {PLAIN: plain, STRICT: oracle.strictly(plain, self._forbids)}

    @property
    def functions(self) -> int:
        """Return how many functions the tiers that generate have made."""
        return sum(self._engines[key].tier_1.get("generated", 0) for key in self.generated)

    def ours(self, request: dict[str, Any]) -> Iterator[tuple[tuple[str, str], Opinion]]:
        """Yield what each tier says in each mode; a tier that generates is asked twice."""
        uids = [EntityUid(**request[name]) for name in ("principal", "action", "resource")]
        for key, engine in self._engines.items():
            for _ in range(2 if key in self.generated else 1):
                answer = engine.evaluate_record(*uids, request["context"], loaded=self._worlds[key])
            yield key, told(answer)


def made(seed: int, number: int) -> Batch:
    """Return one batch; the same seed and number give the same batch for ever."""
    return Maker(Random(f"{seed}:{number}")).batch()  # noqa: S311 -- cases that can be made again, not secrets


def differences(count: int, seed: int, seen: Counter[str] | None = None, *, start: int = 0) -> Iterator[str]:
    """Yield every difference in about `count` requests; `seen` counts how Cedar's answers spread."""
    for number in range(start, start + count // BATCH):
        yield from differences_in(number, seed, Counter() if seen is None else seen)


def differences_in(number: int, seed: int, seen: Counter[str]) -> Iterator[str]:
    """Yield the differences of one batch."""
    batch = made(seed, number)
    judges = Judges(batch)
    seen["policies"] += batch.policies.count(";\n") + 1
    seen["links"] += len(batch.links)
    for request in batch.requests:
        expected = judges.cedar(request)
        plain = expected[PLAIN]
        seen[plain.effect.value] += 1
        seen["reasons"] += bool(plain.determining)
        seen["errors"] += bool(plain.erring)
        seen["strict differs"] += expected[STRICT] != plain
        for (tier, mode), got in judges.ours(request):
            if got != expected[mode]:
                yield (
                    f"seed {seed}, batch {number}: {tier}, {mode} mode: {got}, Cedar: {expected[mode]}\n"
                    f"{batch.policies}\n{json.dumps(request)}"
                )
    seen["functions"] += judges.functions


def main() -> None:
    """Compare for as long as asked and exit 1 at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="the first batch")
    parser.add_argument("--state", type=Path, help="go on from what this file says; it is written on the way")
    options = parser.parse_args()
    sys.stdout.write(run(options.count, options.seed, options.start, options.state) + "\n")


def run(count: int, seed: int, start: int, state: Path | None) -> str:
    """Compare `count` requests, telling the progress; raise SystemExit at the first difference."""
    seen, done = _restored(state, seed, start)
    batches, began = count // BATCH, time.monotonic()
    first = done
    while done < batches:
        for difference in differences_in(start + done, seed, seen):
            sys.exit(difference)
        done += 1
        if done % _SAVED_EVERY == 0 or done == batches:
            _save(state, seed, start, seen, done)
            rate = (done - first) * BATCH / max(time.monotonic() - began, 0.001)
            sys.stderr.write(f"{done * BATCH:,} of {count:,} requests, {rate:,.0f} a second\n")
            sys.stderr.flush()
    return f"{done * BATCH:,} requests, no difference: {dict(seen)}"


def _restored(state: Path | None, seed: int, start: int) -> tuple[Counter[str], int]:
    if state is None or not state.exists():
        return Counter(), 0
    kept = json.loads(state.read_text())
    if (kept["seed"], kept["start"]) != (seed, start):
        sys.exit(f"{state} belongs to seed {kept['seed']} from batch {kept['start']}; name another file")
    return Counter(kept["seen"]), int(kept["batches"])


def _save(state: Path | None, seed: int, start: int, seen: Counter[str], done: int) -> None:
    if state is not None:
        fresh = state.with_suffix(".new")
        fresh.write_text(json.dumps({"seed": seed, "start": start, "batches": done, "seen": seen}))
        fresh.replace(state)


if __name__ == "__main__":
    main()
