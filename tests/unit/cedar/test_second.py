"""A second look: measures only ever make an answer stricter, and outlive what a slice is made from."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from doorward.cedar import generated, oracle
from doorward.cedar.engine import Engine, Loaded
from doorward.cedar.oracle import NoOpinionError, Opinion
from doorward.cedar.slices import Slice
from doorward.core.decision import Effect
from doorward.core.shadow import Measure, stricter
from support.policies import dataset, request, user, world

Build = Callable[..., Engine]
TEXT = """
@id("all") permit (principal, action, resource);
@id("risky") forbid (principal, action, resource) when { context.risk > 5 };
"""
KNOWN = world(user("dana"), dataset("store/a"))


def slice_of(engine: Engine, loaded: Loaded) -> Slice:
    one = request()
    return engine.looks.named(engine.meet(one.principal, one.action, one.resource, loaded)[2])


def slice_name(engine: Engine, loaded: Loaded) -> str:
    return slice_of(engine, loaded).name


def held(engine_of: Build, measure: Measure, **options: int) -> tuple[Engine, Loaded]:
    engine = engine_of(TEXT, **options)
    loaded = engine.load(KNOWN)
    engine.restrict({slice_name(engine, loaded): measure})
    return engine, loaded


def effects(engine: Engine, loaded: Loaded) -> list[Effect]:
    return [engine.evaluate(request(risk=risk), loaded).effect for risk in (1, 9, 1, 9)]


RIGHT = [Effect.ALLOW, Effect.DENY] * 2


def test_generated_code_goes_at_once_and_is_not_made_again(engine_of: Build) -> None:
    engine = engine_of(TEXT, hot=0)
    loaded = engine.load(KNOWN)
    effects(engine, loaded)
    assert engine.settle()
    found = slice_of(engine, loaded)
    assert found.fast is not None
    found.fast = lambda *_: 1  # wrong: the forbid is never satisfied
    assert effects(engine, loaded) == [Effect.ALLOW] * 4
    engine.restrict({found.name: Measure.EXACT})
    for _ in range(20):
        assert effects(engine, loaded) == RIGHT
    assert engine.settle()
    assert found.fast is None


def test_a_function_that_is_still_being_made_comes_too_late(
    engine_of: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> Iterator[object]:
        begun.set()
        go_on.wait(60)
        yield lambda *_: 1

    monkeypatch.setattr(generated, "parts", slow)
    engine = engine_of(TEXT, hot=0)
    loaded = engine.load(KNOWN)
    effects(engine, loaded)
    assert begun.wait(60)
    engine.restrict({slice_name(engine, loaded): Measure.EXACT})
    go_on.set()
    assert engine.settle()
    assert effects(engine, loaded) == RIGHT


def test_a_measure_waits_for_a_slice_that_is_not_made_yet(engine_of: Build) -> None:
    first = engine_of(TEXT)
    name = slice_name(first, first.load(KNOWN))
    second = engine_of(TEXT, hot=0)
    second.restrict({name: Measure.DENY})
    assert effects(second, second.load(KNOWN)) == [Effect.DENY] * 4


def test_a_slice_of_other_policies_is_another_slice(engine_of: Build) -> None:
    engines = [engine_of(text) for text in (TEXT, TEXT.replace("> 5", "> 6"), TEXT + "\n// a remark")]
    names = [slice_name(engine, engine.load(KNOWN)) for engine in engines]
    assert names[0] == names[2] != names[1]


def test_under_the_oracle_both_must_allow(engine_of: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, loaded = held(engine_of, Measure.ORACLE)
    assert effects(engine, loaded) == RIGHT
    monkeypatch.setattr(oracle.Oracle, "opinion", lambda *_, **__: Opinion(Effect.DENY, ("risky",)))
    answer = engine.evaluate(request(risk=1), loaded)
    assert (answer.effect, answer.determining) == (Effect.DENY, ("risky",))
    assert answer.errors == ("oracle: Cedar denies this",)
    # A denial of ours is never turned into an allow.
    monkeypatch.setattr(oracle.Oracle, "opinion", lambda *_, **__: Opinion(Effect.ALLOW, ("all",)))
    assert effects(engine, loaded) == RIGHT


def test_an_oracle_that_cannot_be_asked_denies(engine_of: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> None:
        raise NoOpinionError("no decision")

    engine, loaded = held(engine_of, Measure.ORACLE)
    monkeypatch.setattr(oracle.Oracle, "opinion", silent)
    answer = engine.evaluate(request(risk=1), loaded)
    assert answer.effect is Effect.DENY
    assert "nothing is allowed (NoOpinionError)" in answer.errors[0]


def test_what_either_finds_satisfied_is_demanded(engine_of: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, loaded = held(engine_of, Measure.ORACLE)
    monkeypatch.setattr(oracle.Oracle, "opinion", lambda *_, **__: Opinion(Effect.ALLOW, ("other",)))
    assert engine.evaluate(request(risk=1), loaded).determining == ("all", "other")


def test_no_measure_is_relaxed(engine_of: Build) -> None:
    engine, loaded = held(engine_of, Measure.DENY)
    engine.restrict({slice_name(engine, loaded): Measure.EXACT})
    assert effects(engine, loaded) == [Effect.DENY] * 4
    order = [None, Measure.EXACT, Measure.ORACLE, Measure.DENY]
    assert all(stricter(a, b) == order[max(i, j)] for i, a in enumerate(order) for j, b in enumerate(order))


def test_a_deciding_process_does_not_load_cedar_itself() -> None:
    rooms = "doorward.decisions.point, doorward.decisions.shadow_link"
    code = f"import sys, {rooms}; print('cedarpy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "False\n"
