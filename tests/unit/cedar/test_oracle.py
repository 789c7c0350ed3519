"""Cedar as our judge: strict mode is reconciled exactly, and what it cannot judge it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from doorward.cedar.engine import Engine
from doorward.cedar.oracle import NoOpinionError, Opinion, Oracle, strictly
from doorward.core.decision import AccessRequest, Effect
from doorward.core.feed import PolicyText
from doorward.core.model import Entity, EntityUid
from doorward.core.values import to_json
from support.policies import dataset, request, user, world

Build = Callable[..., Engine]
ALL = '@id("all") permit (principal, action, resource);\n'
CONDITIONS = {
    "satisfied": "true",
    "not satisfied": "false",
    "missing attribute": 'principal.department == "risk"',
    "missing entity": "resource.owner.risk > 50",
    "overflow": "context.risk + 9223372036854775807 > 3",
    "bad ip": 'ip(context.network.zone).isInRange(ip("10.0.0.0/8"))',
    "not a boolean": "context.risk",
}


def oracle_of(engine: Engine, schema: str) -> Oracle:
    texts = [PolicyText(id=rule.id, text="", tree=dict(rule.tree)) for rule in engine.by_id.values()]
    return Oracle(texts, schema)


def asked(oracle: Oracle, one: AccessRequest, entities: dict) -> Opinion:
    context = to_json(one.context.to_record())
    return oracle.opinion(one.principal, one.action, one.resource, context, lookup=entities.get)


@pytest.mark.parametrize("effect", ["permit", "forbid"])
@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_it_says_what_the_strict_engine_says(
    engine_of: Build, schema: str, condition: str, effect: str
) -> None:
    engine = engine_of(
        f'{ALL}@id("x") {effect} (principal, action, resource) when {{ {condition} }};', hot=None
    )
    known = world(user("dana"), dataset("store/a", owner=EntityUid.of("User", "gone")))
    answer = engine.evaluate(request(risk=1), engine.load(known))
    erring = tuple(sorted(error.partition(":")[0] for error in answer.errors))
    found = asked(oracle_of(engine, schema), request(risk=1), known)
    assert found == Opinion(answer.effect, tuple(sorted(answer.determining)), erring)


def test_only_an_erring_forbid_turns_an_allow_around() -> None:
    allowed = Opinion(Effect.ALLOW, ("all",), ("x",))
    assert strictly(allowed, {"x"}) == Opinion(Effect.DENY, (), ("x",))
    assert strictly(allowed, {"y"}) == allowed
    denied = Opinion(Effect.DENY, ("no",), ("x",))
    assert strictly(denied, {"x", "no"}) == denied


def test_a_request_outside_the_schema_has_no_opinion(engine_of: Build, schema: str) -> None:
    oracle = oracle_of(engine_of(ALL), schema)
    one = request()
    with pytest.raises(NoOpinionError):
        oracle.opinion(one.principal, one.action, one.resource, {"risk": "much"}, lookup=lambda _: None)


def test_it_reads_what_lies_above_and_behind_a_name(engine_of: Build, schema: str) -> None:
    team, house = EntityUid.of("Group", "team"), EntityUid.of("Group", "house")
    owner = user("omar", risk=90)
    groups = [Entity(team, parents=frozenset({house})), Entity(house)]
    known = world(user("dana", parents=(team,)), owner, dataset("store/a", owner=owner.uid), *groups)
    for condition in (
        "resource.owner.risk > 50",
        'principal in Doorward::Group::"house"',
        'Doorward::User::"omar".risk > 50',
    ):
        engine = engine_of(f'{ALL}@id("x") forbid (principal, action, resource) when {{ {condition} }};')
        assert asked(oracle_of(engine, schema), request(), known) == Opinion(Effect.DENY, ("x",))
