"""Every way in which a broken forbid fails open in Cedar denies here and is told (strict, the default)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from doorward.cedar.engine import Engine
from doorward.core.decision import Effect
from doorward.core.model import EntityUid
from support.policies import dataset, request, user, world

Build = Callable[..., Engine]
ALL = '@id("all") permit (principal, action, resource);\n'
OWNER = EntityUid.of("User", "gone")

TRAPS = {
    "missing-attribute": 'principal.department == "risk"',
    "missing-entity": "resource.owner.risk > 50",
    "in-on-text": 'context.network.zone in ["x"]',
    "overflow": "context.risk + 9223372036854775807 > 3",
    "bad-ip": 'ip(context.network.zone).isInRange(ip("10.0.0.0/8"))',
    "wrong-type": "context.risk < context.network.zone",
    "missing-tag": 'resource.getTag("secret") == "yes"',
    "not-a-boolean": "context.risk",
    "bad-decimal": 'decimal("1.23456").lessThan(decimal("2.0"))',
    "arity": 'ip("1.2.3.4").isIpv4("x")',
}


@pytest.mark.parametrize("tier", [None, 0], ids=["tier 0", "tier 1"])
@pytest.mark.parametrize("condition", TRAPS.values(), ids=TRAPS)
def test_a_broken_forbid_denies_and_is_told(engine_of: Build, condition: str, tier: int | None) -> None:
    text = f'{ALL}@id("never") forbid (principal, action, resource) when {{ {condition} }};'
    known = world(user("dana"), dataset("store/a", owner=OWNER))
    for strict, effect in ((True, Effect.DENY), (False, Effect.ALLOW)):
        engine = engine_of(text, erring_forbid_denies=strict, hot=tier)
        loaded = engine.load(known)
        for _ in range(3):
            answer = engine.evaluate(request(risk=1), loaded)
            assert answer.effect is effect
            assert [error.partition(":")[0] for error in answer.errors] == ["never"]


def test_the_answer_does_not_depend_on_the_threads_stack(engine_of: Build) -> None:
    chain = " || ".join(f"context.risk == {number}" for number in range(50))
    engine = engine_of(f'{ALL}@id("never") forbid (principal, action, resource) when {{ {chain} }};')
    loaded = engine.load(world(user("dana"), dataset("store/a")))
    answers = []
    threading.stack_size(128 * 1024)
    try:
        thread = threading.Thread(target=lambda: answers.append(engine.evaluate(request(risk=49), loaded)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(0)
    assert [(a.effect, a.determining) for a in answers] == [(Effect.DENY, ("never",))]


def test_what_is_too_deep_to_evaluate_is_refused_or_denied(engine_of: Build) -> None:
    nested = "!" * 2 + "(" * 60 + "context.risk == 0" + ")" * 60
    tree = f'{ALL}@id("never") forbid (principal, action, resource) when {{ {nested} }};'
    engine = engine_of(tree, hot=0)
    loaded = engine.load(world(user("dana"), dataset("store/a")))
    for _ in range(3):
        assert engine.evaluate(request(risk=0), loaded).effect is Effect.DENY
