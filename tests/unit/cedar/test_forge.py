"""Functions are made beside deciding: nobody waits, nothing changes an answer, everything is bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from doorward.cedar import forge, generated
from doorward.cedar.engine import Engine
from doorward.cedar.forge import Forge, Functions
from doorward.core.decision import Effect
from support.policies import dataset, request, user, world

Build = Callable[..., Engine]
ALL = '@id("all") permit (principal, action, resource);\n'
RISKY = '@id("f") forbid (principal, action, resource) when { context.risk > 5 };'
SECONDS = 60.0


def rested(_seconds: float) -> None:
    """Do not rest."""


class Lane:
    def __init__(self) -> None:
        self.asked = 0
        self.fast: Any = None

    def given(self, fast: Any) -> None:
        self.fast = fast


def one(*_asked: object) -> int:
    return 1


def test_a_slice_that_cannot_be_generated_stays_on_tier_0_and_is_counted(
    engine_of: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_args: object) -> Iterator[Any]:
        raise RecursionError("too deep")
        yield

    monkeypatch.setattr(generated, "parts", failing)
    engine = engine_of(ALL + RISKY, hot=1)
    loaded = engine.load(world(user("dana"), dataset("store/a")))
    for _ in range(4):
        assert engine.evaluate(request(risk=9), loaded).determining == ("f",)
        assert engine.evaluate(request(risk=1), loaded).effect is Effect.ALLOW
        assert engine.settle()
    assert engine.tier_1 == {"failed": 1}


def test_deciding_goes_on_while_a_function_is_made(engine_of: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = generated.parts

    def slow(*args: Any) -> Iterator[Any]:
        begun.set()
        assert go_on.wait(SECONDS)
        yield from real(*args)

    monkeypatch.setattr(generated, "parts", slow)
    engine = engine_of(ALL + RISKY, hot=0)
    loaded = engine.load(world(user("dana"), dataset("store/a")))
    before = [engine.evaluate(request(risk=risk), loaded) for risk in (1, 9)]
    assert begun.wait(SECONDS)
    assert [engine.evaluate(request(risk=risk), loaded) for risk in (1, 9)] == before
    assert not engine.tier_1
    go_on.set()
    assert engine.settle(SECONDS)
    assert engine.tier_1 == {"generated": 1}
    assert [engine.evaluate(request(risk=risk), loaded) for risk in (1, 9)] == before


def test_a_full_queue_refuses_and_the_slice_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forge, "_MAX_WAITING", 1)
    go_on = threading.Event()

    def waiting() -> Iterator[Any]:
        assert go_on.wait(SECONDS)
        yield one

    made = Functions(Forge(rested))
    lanes = [Lane() for _ in range(4)]
    taken = [made.order(lane, number, waiting, size=1) for number, lane in enumerate(lanes)]
    refused = taken.count(False)
    assert refused in {2, 3}  # one is being made, one waits; the first may not have been begun yet
    assert made.counts["refused"] == refused
    go_on.set()
    assert made._forge is not None  # noqa: SLF001 -- made two lines above
    assert made._forge.settle(SECONDS)  # noqa: SLF001
    assert [lane.fast is not None for lane in lanes] == taken
    last = taken.index(False)
    assert made.order(lanes[last], last, waiting, size=1)
    assert made._forge.settle(SECONDS)  # noqa: SLF001
    assert lanes[last].fast is not None


def test_equal_orders_share_one_function() -> None:
    made = Functions(None)
    first, second = Lane(), Lane()
    for lane in (first, second):
        assert made.order(lane, "key", lambda: iter([one]), size=1)
    assert first.fast is second.fast is one
    assert made.counts == {"generated": 1}


def test_functions_are_forgotten_when_they_grow_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forge, "_MAX_WRITTEN", 10)
    made = Functions(None)
    lanes = [Lane() for _ in range(4)]
    for number, lane in enumerate(lanes):
        lane.asked = -1_000
        made.order(lane, number, lambda: iter([one]), size=3)
    assert [lane.fast is not None for lane in lanes] == [False, False, True, True]
    assert [lane.asked for lane in lanes] == [0, 0, -1_000, -1_000]
    assert made.counts["forgotten"] == 1


def test_what_is_larger_than_all_that_may_be_kept_stays_on_tier_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forge, "_MAX_WRITTEN", 10)
    made, lane = Functions(None), Lane()
    assert made.order(lane, "key", lambda: iter([one]), size=11)
    assert lane.fast is None


def test_the_thread_outlives_an_order_that_breaks() -> None:
    def broken() -> Iterator[None]:
        raise RuntimeError("broken")
        yield

    found = []

    def good() -> Iterator[None]:
        found.append(1)
        yield

    beside = Forge(rested)
    assert beside.put(broken())
    assert beside.put(good())
    assert beside.settle(SECONDS)
    assert found == [1]


def test_a_distrusted_slice_goes_back_to_tier_0_for_good(engine_of: Build) -> None:
    engine = engine_of(ALL + RISKY, hot=0, beside=False)
    loaded = engine.load(world(user("dana"), user("omar"), dataset("store/a")))
    for who in ("dana", "omar"):
        engine.evaluate(request(who), loaded)
    slice_ = engine.meet(request().principal, request().action, request().resource, loaded)[2]
    assert slice_.fast is not None
    engine.distrust(request("omar"), loaded)
    assert slice_.fast is None
    for _ in range(40):
        assert engine.evaluate(request(risk=9), loaded).determining == ("f",)
    slice_.asked = 10**6
    engine.evaluate(request(), loaded)
    assert slice_.fast is None
    assert engine.tier_1["distrusted"] == 2


def test_what_is_distrusted_while_it_is_made_is_not_used() -> None:
    made, lane = Functions(None), Lane()

    def parts() -> Iterator[Any]:
        yield one
        made.distrust("key", lane)

    assert made.order(lane, "key", parts, size=1)
    assert lane.fast is None
