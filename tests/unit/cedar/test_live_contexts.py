"""Tier 1 reads contexts as they come: it says what tier 0 says of the record, errors and odd values too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_interface
from random import Random
from typing import Any

import pytest

from doorward.cedar import contexts
from doorward.cedar.engine import Engine
from doorward.cedar.schema import Schema
from doorward.core.context import Context, DeviceContext, NetworkContext, RequestContext, SessionContext
from doorward.core.decision import AccessRequest
from doorward.core.model import Action, EntityUid
from doorward.policies.workspace import packaged_schema
from support.policies import NOW, dataset, request, user, world

ATOMS = (
    "context.device.managed",
    "context.device has id",
    'context.device.id == Doorward::Device::"l"',
    "context.device.id in resource",
    'context has device && context.device.id has "platform"',
    "context.network has ip",
    'context.network.ip.isInRange(ip("10.0.0.0/8"))',
    "context.network.ip.isIpv4()",
    'context.network has country && context.network.country like "d*"',
    'context.network.zone == "office"',
    'context.network.country == "de"',
    "context.session.mfa && context.session.mfa_age < 900",
    "context.session has mfa_age && context.session.mfa_age + 1 < 900",
    "context.session.age < context.session.mfa_age",
    'context.session == {method: "oidc", acr: "", mfa: true, age: 60, minted: false}',
    "context has session.mfa_age",
    "context.risk < 50",
    "context.risk + 9223372036854775807 > 0",
    'context.now < datetime("2026-06-01T12:00:01Z")',
    'context.now.offset(duration("1h")) > datetime("2026-06-01T12:30:00Z")',
    "context has purpose",
    'context.purpose == "x"',
    "context.purpose == principal.department",
    "principal.purposes.contains(context.purpose)",
    "context has environment && context.environment == resource.environment",
    "context.environment in resource",
    "context has actor",
    'context.actor == Doorward::Agent::"a"',
    "context.actor.risk < 3",
    "context.depth > 0",
    'context.signals.contains("leak")',
    "context.signals.isEmpty()",
    'context.signals.containsAny(["leak", "other"])',
    'context.request.tools.contains("search")',
    "context.request has max_tokens && context.request.max_tokens <= 512",
    "context.request.bytes > 10",
    "context.request == context.request",
    "[context.risk, context.depth].contains(0)",
    "{risk: context.risk} == {risk: 0}",
    "if context.device.known then context.risk == 0 else context.depth == 0",
    'action == Doorward::Action::"read"',
    'action in Doorward::Action::"use"',
    "principal is Doorward::User",
    "resource is Doorward::Model",
    'principal is Doorward::User in Doorward::Role::"r"',
    "resource.owner == principal",
    "resource has owner && resource.owner.risk < 3",
)  # fmt: skip
GOOD: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("risk", (0, 49, 50, 2**31, 2**63 - 1)),
    ("depth", (0, 1)),
    ("purpose", (None, "x", "é")),
    ("environment", (None, EntityUid.of("Environment", "production"))),
    ("actor", (None, EntityUid.of("Agent", "a"))),
    ("signals", (frozenset(), frozenset({"leak"}), frozenset({"leak", "é"}))),
)
ODD: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("risk", (True, "1", 2**63, None)),
    ("depth", (1.0, -(2**63) - 1)),
    ("purpose", (3, "\ud800")),
    ("environment", ("production", EntityUid.of("User", "x"), EntityUid.of("Environment", "moon"))),
    ("signals", (None, frozenset({3}), ("leak",))),
    ("device", (None, SessionContext(), DeviceContext(known=1, id=EntityUid.of("User", "u")))),  # type: ignore[arg-type] -- wrong on purpose
    ("network", (NetworkContext(ip="10.0.0.1"), NetworkContext(zone=None))),  # type: ignore[arg-type] -- as above
    ("request", (RequestContext(bytes=True), RequestContext(tools=frozenset({b"x"})))),  # type: ignore[arg-type] -- as above
    ("now", ("now", None)),
)


PARTS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("now", (NOW, NOW - timedelta(hours=1), NOW.replace(tzinfo=None))),
    ("device", (DeviceContext(), DeviceContext(known=True, managed=True, id=EntityUid.of("Device", "l")))),
    (
        "network",
        (
            NetworkContext(),
            NetworkContext(zone="office", ip=ip_interface("10.1.2.3")),
            NetworkContext(ip=ip_interface("::1/64"), country="de"),
        ),
    ),
    (
        "session",
        (
            SessionContext(),
            SessionContext(method="oidc", mfa=True, age=60),
            SessionContext(mfa=True, mfa_age=3),
        ),
    ),
    ("request", (RequestContext(), RequestContext(bytes=99, tools=frozenset({"search"}), max_tokens=512))),
)


def context(chance: Random, *, odd: bool) -> Context:
    fields: dict[str, Any] = {name: chance.choice(values) for name, values in GOOD}
    fields |= {name: chance.choice(values) for name, values in PARTS}
    if odd:
        name, values = chance.choice(ODD)
        fields[name] = chance.choice(values)
    return Context(**fields)


def policies(chance: Random) -> str:
    texts = []
    for number in range(chance.randint(1, 6)):
        picked = [
            f"({chance.choice(('', '!'))}({atom}))" for atom in chance.sample(ATOMS, chance.randint(1, 4))
        ]
        body = chance.choice((" && ", " || ")).join(picked)
        effect, kind = chance.choice(("permit", "permit", "forbid")), chance.choice(("when", "unless"))
        texts.append(f'@id("p{number}") {effect} (principal, action, resource) {kind} {{ {body} }};')
    return "\n".join(texts)


def known() -> dict[EntityUid, Any]:
    role = EntityUid.of("Role", "r")
    return world(
        user("dana", parents=(role,), department="x", purposes=frozenset({"x"})),
        user("omar"),
        dataset("store/a", owner=EntityUid.of("User", "dana")),
        dataset("store/b", owner=EntityUid.of("User", "nobody")),
        dataset("store/c"),
    )


@pytest.mark.parametrize("seed", range(60))
def test_tier_1_says_of_a_context_what_tier_0_says_of_its_record(
    seed: int, engine_of: Callable[..., Engine]
) -> None:
    chance = Random(seed)  # noqa: S311 -- cases that can be made again
    text = policies(chance)
    slow, fast = engine_of(text, hot=None), engine_of(text, hot=0, beside=False)
    loaded = [engine.load(known()) for engine in (slow, fast)]
    for number in range(80):
        circumstances = context(chance, odd=number % 4 == 3)
        asked = AccessRequest(
            EntityUid.of("User", chance.choice(("dana", "omar", "stranger"))),
            chance.choice((Action.READ, Action.VIEW)).uid,
            EntityUid.of("Dataset", chance.choice(("store/a", "store/b", "store/c", "store/none"))),
            circumstances,
        )
        expected = slow.evaluate(asked, loaded[0])
        assert fast.evaluate(asked, loaded[1]) == expected, (text, asked)
        slice_ = fast.meet(asked.principal, asked.action, asked.resource, loaded[1])[2]
        assert slice_.fast is not None
    assert fast.tier_1.keys() == {"generated"}


def test_what_is_usual_needs_no_tier_0(engine_of: Callable[..., Engine]) -> None:
    text = '@id("a") permit (principal, action, resource) when { context.session.mfa && context.risk < 9 };'
    engine = engine_of(text, hot=0, beside=False)
    loaded = engine.load(world(user("dana"), dataset("store/a")))
    asked = request(session=SessionContext(mfa=True))
    engine.evaluate(asked, loaded)
    actor, target, slice_ = engine.meet(asked.principal, asked.action, asked.resource, loaded)
    assert slice_.fast is not None
    assert slice_.fast(actor, target, asked.context, loaded) == 1


def test_a_schema_that_asks_more_of_contexts_has_no_checker() -> None:
    declared = "entity U; action a appliesTo { principal: [U], resource: [U], context: %s };"
    packaged = Schema.of(packaged_schema()).actions[Action.READ.uid].context
    assert contexts.checker(packaged) is not None
    for wanted in ("{ extra: Long }", "{ device: Long }"):
        rule = Schema.of(declared % wanted).actions[EntityUid("Action", "a")]
        assert contexts.checker(rule.context) is None
