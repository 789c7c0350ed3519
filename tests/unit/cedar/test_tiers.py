# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.cedar import contexts, extensions, generated, types
from doorward.cedar.circumstances import Circumstances
from doorward.cedar.data import Fault
from doorward.cedar.engine import Engine
from doorward.cedar.links import linked
from doorward.cedar.schema import Schema
from doorward.cedar.scope import Asks
from doorward.core.context import Context, DeviceContext, NetworkContext, RequestContext, SessionContext
from doorward.core.decision import AccessRequest, Effect
from doorward.core.errors import InvalidPolicyError, InvalidRequestError
from doorward.core.model import Action, Entity, EntityUid
from doorward.policies.workspace import packaged_schema
from support.differential import SCHEMA
from support.policies import NOW, dataset, request, user, world

Build = Callable[..., Engine]
ALL = '@id("all") permit (principal, action, resource);\n'


def _slice(engine: Engine) -> Any:
    (found,) = engine._slices.values()  # noqa: SLF001 -- what is kept is the point
    return found


def test_a_hot_slice_is_generated_and_says_the_same(engine_of: Build) -> None:
    engine = engine_of(
        ALL + '@id("f") forbid (principal, action, resource) when { context.risk > 5 };', hot=4
    )
    loaded = engine.load(world(user("dana"), dataset("store/a")))
    asked = [request(risk=risk) for risk in range(12)]
    first = [engine.evaluate(one, loaded) for one in asked]
    assert engine.settle()
    assert _slice(engine).fast is not None
    assert [engine.evaluate(one, loaded) for one in asked] == first
    assert [answer.effect for answer in first] == [Effect.ALLOW] * 6 + [Effect.DENY] * 6


def test_what_the_generated_function_cannot_say_tier_0_says(engine_of: Build) -> None:
    engine = engine_of(ALL, hot=0)
    loaded = engine.load(world(user("dana"), dataset("store/a")))
    expected = engine.evaluate(request(), loaded)

    def broken(*_asked: object) -> int:
        raise RuntimeError

    _slice(engine).fast = broken
    assert engine.evaluate(request(), loaded) == expected


def test_conditions_on_typed_attributes_are_generated_without_tier_0(engine_of: Build) -> None:
    text = """@id("a") permit (principal, action, resource) when {
      resource.sensitivity <= principal.clearance && context.device.proven && !context.device.managed
      && principal.purposes.contains("x") && resource.environment == Doorward::Environment::"production"
      && context has purpose && context.purpose like "f*" && context.now < datetime("2030-01-01")
      && context.network.ip.isInRange(ip("10.0.0.0/8")) && principal in Doorward::Group::"g" };"""
    engine = engine_of(text)
    asks = Asks("Doorward::User", Action.READ.uid, "Doorward::Dataset")
    wanted = engine.schema.actions[Action.READ.uid].context
    check, read = contexts.checker(wanted), contexts.reader(wanted)
    assert check is not None
    for live in (None, Circumstances(wanted, check, read)):
        writer = generated._Writer(engine.schema, asks, live)  # noqa: SLF001 -- the source itself is the point
        source = writer.source(list(engine.by_id.values()))
        assert "Env(" not in source
        assert "truth" not in source
        assert live is None or "record" not in source


def test_policy_text_never_becomes_code(engine_of: Build) -> None:
    odd = "x'] or 1/0 #"
    text = f'{ALL}@id("f") forbid (principal, action, resource) when {{ context has "{odd}" || principal.department == "{odd}" }};'
    engine = engine_of(text, hot=0)
    loaded = engine.load(world(user("dana", department=odd), dataset("store/a")))
    for _ in range(3):
        assert engine.evaluate(request(), loaded).determining == ("f",)


def test_slices_of_equal_policies_share_one_function_and_are_bounded(
    engine_of: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward.cedar.engine._MAX_SLICES", 4)
    named = "".join(
        f'permit (principal == Doorward::User::"u{n}", action, resource) when {{ context.risk > 3 }};'
        for n in range(20)
    )
    engine = engine_of(ALL + named, hot=0)
    loaded = engine.load(world(*(user(f"u{n}") for n in range(20)), dataset("store/a")))
    for n in range(20):
        for _ in range(3):
            assert engine.evaluate(request(f"u{n}"), loaded).effect is Effect.ALLOW
    assert len(engine._slices) <= 4  # noqa: SLF001 -- the bounds are inside
    assert engine.settle()
    # Each of these users has a policy of its own, and so a slice of its own.
    assert 0 < engine.tier_1["generated"] <= 20


def test_many_policies_in_one_slice_are_generated_in_several_functions(engine_of: Build) -> None:
    text = "".join(
        f"permit (principal, action, resource) when {{ context.risk == {n} }};" for n in range(200)
    )
    engine = engine_of(text, hot=0)
    loaded = engine.load(world(user("dana"), dataset("store/a")))
    for risk in (0, 31, 32, 77, 199):
        assert engine.evaluate(request(risk=risk), loaded).determining == (f"policy{risk}",)
        assert engine.settle()
        assert _slice(engine).fast is not None
    assert engine.evaluate(request(risk=200), loaded).determining == ()


# Contexts: the generated reader reads what the slow road reads, and refuses what it refuses

_CONTEXTS = st.builds(
    Context,
    now=st.sampled_from([NOW, NOW.replace(tzinfo=None), "now"]),
    device=st.builds(
        DeviceContext,
        known=st.sampled_from([True, False, 1]),
        id=st.sampled_from(
            [None, EntityUid.of("Device", "l"), EntityUid.of("Device", "é"), EntityUid.of("User", "l")]
        ),
    ),
    network=st.builds(NetworkContext, zone=st.sampled_from(["office", "é", "\ud800", 3]), country=st.none()),
    session=st.builds(SessionContext, mfa_age=st.sampled_from([None, 3, 2**63, True])),
    request=st.builds(
        RequestContext, tools=st.sampled_from([frozenset(), frozenset({"a"}), frozenset({1}), "a"])
    ),
    risk=st.sampled_from([0, 2**63 - 1, 2**63, True, 1.5]),
    purpose=st.sampled_from([None, "x", 3]),
    environment=st.sampled_from(
        [None, EntityUid.of("Environment", "testing"), EntityUid.of("Environment", "moon")]
    ),
    signals=st.sampled_from([frozenset(), frozenset({"leak"}), frozenset({"leak", 3})]),
)


def _read(reader: Any, context: Context) -> Any:
    try:
        return reader(context)
    except InvalidRequestError:
        return "refused"


@settings(max_examples=200, deadline=None)
@given(_CONTEXTS)
def test_the_generated_reader_reads_like_the_slow_road(context: Context) -> None:
    wanted = Schema.of(packaged_schema()).actions[Action.READ.uid].context
    slow = lambda c: types.taken(c.to_record(), wanted, "context")  # noqa: E731 -- one expression
    expected = _read(slow, context)
    assert _read(contexts.reader(wanted), context) == expected
    for reads in (
        frozenset[str](),
        frozenset({"risk", "network"}),
        frozenset({"device", "purpose", "signals"}),
    ):
        got = _read(contexts.reader(wanted, reads), context)
        if expected == "refused":
            assert got == "refused"
        else:
            assert {name: got.get(name) for name in reads} == {name: expected.get(name) for name in reads}


def test_a_context_the_schema_asks_more_of_is_refused() -> None:
    wanted = Schema.of(
        "entity U; action a appliesTo { principal: [U], resource: [U], context: { extra: Long } };"
    )
    reader = contexts.reader(wanted.actions[EntityUid("Action", "a")].context)
    assert _read(reader, Context(now=NOW)) == "refused"


# Extension values, beside Cedar


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["ip", "decimal", "datetime", "duration"]),
    st.text(alphabet="0123456789.:/-+TZdhms\u0661 ", max_size=30),
)
def test_extension_texts_are_read_as_cedar_reads_them(function: str, text: str) -> None:
    try:
        extensions.call(function, [text])
        ours = True
    except Fault:
        ours = False
    condition = f"{function}({json.dumps(text, ensure_ascii=False)}) == {function}({json.dumps(text, ensure_ascii=False)})"
    asked = {"principal": 'A::"a"', "action": 'Action::"a"', "resource": 'A::"a"', "context": {}}
    result = cedarpy.is_authorized(asked, f"permit (principal, action, resource) when {{ {condition} }};", [])
    assert ours is result.allowed


# Hierarchies and templates


def test_hierarchies_of_any_depth_are_climbed(engine_of: Build) -> None:
    groups = [EntityUid.of("Group", str(n)) for n in range(5_000)]
    chain = [Entity(a, parents=frozenset({b})) for a, b in pairwise(groups)]
    engine = engine_of('@id("top") permit (principal in Doorward::Group::"4999", action, resource);')
    known = world(user("dana", parents=(groups[0],)), Entity(groups[-1]), dataset("store/a"))
    lookup = {**known, **{entity.uid: entity for entity in chain}}
    loaded = engine.world(lookup.get, 100)
    assert engine.evaluate(request(), loaded).effect is Effect.ALLOW


def test_a_linked_template_decides_like_cedars() -> None:
    text = "permit (principal in ?principal, action, resource is Doc in ?resource) when { context.mfa };"
    template = json.loads(cedarpy.policies_to_json_str(text))["templates"]["policy0"]
    slots = {"?principal": EntityUid("Group", "g"), "?resource": EntityUid("Folder", "f")}
    tree = linked(template, slots)
    written = 'permit (principal in Group::"g", action, resource is Doc in Folder::"f") when { context.mfa };'
    assert tree == json.loads(cedarpy.policies_to_json_str(written))["staticPolicies"]["policy0"]
    with pytest.raises(InvalidPolicyError, match="resource"):
        linked(template, {"?principal": slots["?principal"]})
    with pytest.raises(InvalidPolicyError):
        linked(template, {**slots, "?other": slots["?principal"]})


@pytest.mark.parametrize(
    "broken",
    [
        "entity A in [B];",
        "type T = { a: T };",
        "entity A { a: Missing };",
        "entity A",
        "nonsense;",
        'action a in ["b"];',
    ],
)
def test_a_broken_schema_is_refused(broken: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- the sentence is for people
        Schema.of(broken)


def test_a_request_named_by_a_literal_in_a_policy_counts_as_read(engine_of: Build) -> None:
    engine = engine_of(
        'permit (principal, action, resource) when { Doorward::User::"omar".risk > 3 && principal == Doorward::User::"ada" };'
    )
    assert engine.literals == {EntityUid.of("User", "omar")}


def test_an_unknown_entity_of_the_schema_of_the_differential_is_a_stranger() -> None:
    engine = Engine([], SCHEMA)
    loaded = engine.world(lambda _uid: None, 10)
    asked = AccessRequest(
        EntityUid("User", "x"), EntityUid("Action", "drop"), EntityUid("Doc", "y"), Context(now=NOW)
    )
    assert engine.evaluate(asked, loaded).effect is Effect.DENY
