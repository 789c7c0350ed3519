"""Samples for the shadow check: one in so many, the first of fresh code, bounded, never in the way."""

from __future__ import annotations

from random import Random

import pytest

from doorward.cedar.admission import PolicySource, admit
from doorward.core.feed import Bundle
from doorward.core.model import Action, EntityUid
from doorward.core.shadow import Measure
from doorward.decisions import watching
from doorward.decisions.point import DecisionPoint, Standpoint
from doorward.decisions.watching import Samples
from doorward.directory.snapshot import Snapshot
from doorward.policies.workspace import packaged_schema
from support.policies import ask

READ = ask('User::"dana"', Action.READ, 'Dataset::"store/training/a.csv"')


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    text = '@id("reads") permit (principal is Doorward::User, action, resource) when { context.risk < 50 };'
    return admit([PolicySource("a.cedar", text)], packaged_schema())


def watched(bundle: Bundle, story: Snapshot, samples: Samples) -> DecisionPoint:
    point = DecisionPoint(samples)
    point.publish(bundle)
    point.advance(story)
    return point


def asked(point: DecisionPoint, times: int) -> Standpoint:
    standpoint = point.pin()
    for _ in range(times):
        standpoint.decide(READ)
    return standpoint


def test_about_one_decision_in_so_many_is_taken(bundle: Bundle, story: Snapshot) -> None:
    samples = Samples(50, capacity=10_000, chance=Random(7))  # noqa: S311 -- a test's chance
    asked(watched(bundle, story, samples), 20_000)
    assert 320 < samples.taken < 500


def test_one_in_one_is_every_decision(bundle: Bundle, story: Snapshot) -> None:
    samples = Samples(1, capacity=1000)
    asked(watched(bundle, story, samples), 200)
    assert samples.taken == 200


def test_the_first_decisions_of_generated_code_are_all_taken(bundle: Bundle, story: Snapshot) -> None:
    samples = Samples(10**9)
    point = watched(bundle, story, samples)
    asked(point, 40)
    assert point._engine.settle()  # noqa: SLF001 -- functions are made beside deciding
    asked(point, 60)
    found = samples.drain(100)
    assert len(found) == 8
    assert all(sample.generated for sample in found)


def test_what_finds_no_room_is_counted_and_never_waits(bundle: Bundle, story: Snapshot) -> None:
    samples = Samples(1, capacity=10)
    asked(watched(bundle, story, samples), 100)
    assert (samples.taken, len(samples.drain(1000))) == (10, 10)
    assert samples.dropped > 0


def test_off_takes_nothing(bundle: Bundle, story: Snapshot) -> None:
    samples = Samples(0)
    asked(watched(bundle, story, samples), 100)
    assert (samples.taken, samples.dropped) == (0, 0)


def test_a_sample_says_what_was_decided_and_on_what(bundle: Bundle, story: Snapshot) -> None:
    samples = Samples(1)
    decision = asked(watched(bundle, story, samples), 1).decide(READ)
    sample = samples.drain(1)[0]
    assert (sample.bundle, f"v{sample.entities}") == (decision.bundle, decision.entities)
    assert (sample.effect, sample.determining) == (decision.effect, tuple(sorted(decision.determining)))
    assert (sample.principal, sample.action, sample.resource) == (READ.principal, READ.action, READ.resource)
    assert len(sample.slice) == 32


def test_what_is_only_supposed_is_not_taken(bundle: Bundle, story: Snapshot) -> None:
    samples = Samples(1)
    standpoint = watched(bundle, story, samples).pin()
    standpoint.supposing(()).decide(READ)
    assert samples.taken == 0


def test_a_measure_holds_in_the_next_bundle_and_is_never_relaxed(
    bundle: Bundle, story: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_LATER", 1)
    samples = Samples(1)
    point = watched(bundle, story, samples)
    asked(point, 1)
    name = samples.drain(1)[0].slice
    generation = point.changed
    point.restrict({name: Measure.DENY})
    assert point.changed > generation  # open answers are decided again
    point.restrict({name: Measure.EXACT})
    for _ in range(2):
        decision = point.pin().decide(READ)
        assert not decision.allowed
        assert decision.errors[0].startswith("oracle: ")
        point.publish(bundle)


def test_a_measure_holds_for_lists_too(bundle: Bundle, story: Snapshot) -> None:
    samples = Samples(1)
    point = watched(bundle, story, samples)
    standpoint = asked(point, 1)
    assert list(standpoint.among(READ, [READ.resource])) == [READ.resource]
    point.restrict({samples.drain(1)[0].slice: Measure.DENY})
    assert list(point.pin().among(READ, [READ.resource])) == []


def test_places_are_decided_name_by_name_under_a_measure(bundle: Bundle, story: Snapshot) -> None:
    point = watched(bundle, story, Samples(1))

    def uid_of(name: str) -> EntityUid:
        return EntityUid.of("Dataset", name)

    assert point.pin().regions(READ, "store/training", uid_of=uid_of) is not None
    point.restrict({"some slice": Measure.EXACT})
    assert point.pin().regions(READ, "store/training", uid_of=uid_of) is None
