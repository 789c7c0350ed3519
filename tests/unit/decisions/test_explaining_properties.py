# ruff: noqa: E501 -- policies stand on one line each, as in a table
"""What a denied caller is told, over thousands of random policy sets, people and circumstances.

1. Applying exactly what she is told, all of it and read from its words alone, turns the answer to allow.
2. Two denials that she cannot tell apart, whatever she does herself, get equal bodies.
3. Nothing she does not know stands in a body: other people, their devices, attributes, thresholds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_interface
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from doorward.cedar.admission import PolicySource, admit
from doorward.core.context import Context, DeviceContext, NetworkContext, SessionContext
from doorward.core.decision import Change, Decision
from doorward.core.feed import Bundle
from doorward.core.model import Action, EntityUid
from doorward.decisions.explaining import REQUEST_ACCESS
from doorward.decisions.point import DecisionPoint, Standpoint
from doorward.directory.org import offline_snapshot, parse
from doorward.policies.workspace import packaged_schema
from support.policies import NOW, ask

# `{...}` are the facts that nobody tells dana; the story differs in them only.
ORG = """
users:
  dana: {{ roles: [data-scientist], projects: [fraud], purposes: [fraud-model, marketing], clearance: {clearance}, risk: {risk} }}
  secretowner: {{ roles: [asset-owner], purposes: [secretpurpose] }}
devices:
  laptop-7: {{ managed: true, compliant: true, owner: dana }}
  oldphone: {{ managed: false, compliant: false, owner: dana }}
  secretlaptop: {{ managed: true, compliant: true, owner: secretowner }}
zones: {{ office: [10.0.0.0/8], lab: [192.168.7.0/24] }}
assets:
  Dataset::"store/training": {{ owner: secretowner, sensitivity: {sensitivity}, environment: production, live: {live}, purposes: [fraud-model], projects: [fraud] }}
"""
TRAINING, DANA = 'Dataset::"store/training"', EntityUid.of("User", "dana")
SECRETS = re.compile(r"secret|sensitiv|clearance|risk|\d{2,}|signal|guardrail|asset-owner")
# What a policy may ask: of her own circumstances, and of what she does not know.
OWN = (
    "context.device.proven", "context.device.managed", "context.device.known && context.device.compliant",
    "context.session.mfa", "context.session has mfa_age && context.session.mfa_age <= 900",
    "context.session has mfa_age && context.session.mfa_age < 60", "context.session.age <= 3600",
    'context has purpose && context.purpose == "fraud-model"', "context has purpose && resource.purposes.contains(context.purpose)",
    'context has purpose && context.purpose == "secretpurpose"', "!(context has purpose)",
    'context.network.zone == "lab"', 'context.network.zone != "internet"',
    'context.network has ip && context.network.ip.isInRange(ip("10.0.0.0/8"))',
)  # fmt: skip
HIDDEN = (
    "resource.sensitivity < 3", "principal.clearance >= 2", "principal.risk < 50", "context.risk < 50", "!resource.live",
    'principal in Doorward::Role::"asset-owner"', 'principal in Doorward::Project::"fraud"', 'context.signals.contains("secretsignal")',
    "resource has owner && resource.owner == principal", "context.request.bytes < 4096",
    'context.device has id && context.device.id == Doorward::Device::"secretlaptop"',
)  # fmt: skip
CONDITION = st.sampled_from([*OWN, *OWN, *HIDDEN])
CLAUSE = st.one_of(CONDITION, CONDITION, st.tuples(CONDITION, CONDITION))
BODY = st.lists(CLAUSE, min_size=1, max_size=4)
FACTS = st.fixed_dictionaries(
    {
        "clearance": st.sampled_from([0, 3]),
        "risk": st.sampled_from([0, 90]),
        "sensitivity": st.sampled_from([1, 3]),
        "live": st.sampled_from(["true", "false"]),
    }
)
DEVICES = {
    name: DeviceContext(
        known=True, proven=True, managed=good, compliant=good, id=EntityUid.of("Device", name)
    )
    for name, good in (("laptop-7", True), ("oldphone", False))
}
SESSIONS = (
    SessionContext(),
    *(SessionContext("oidc", "", mfa=True, age=age, mfa_age=age) for age in (0, 30, 600, 900, 7200, 90_000)),
    SessionContext("oidc", age=0),
    SessionContext("oidc", age=9000),
)
HER_OWN = st.builds(
    lambda device, session, purpose, zone: {
        "device": device,
        "session": session,
        "purpose": purpose,
        "network": zone,
    },
    st.sampled_from([DeviceContext(), *DEVICES.values()]),
    st.sampled_from(SESSIONS),
    st.sampled_from([None, "fraud-model", "marketing"]),
    st.sampled_from([NetworkContext(), NetworkContext("office")]),
)
EXAMPLES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@cache
def admitted() -> tuple[Bundle, dict[str, Any]]:
    """Admit every condition once; return the bundle and the tree of each condition."""
    scope = 'principal is Doorward::User, action == Doorward::Action::"read", resource is Doorward::Dataset'
    conditions = [*OWN, *HIDDEN]
    text = "\n".join(f'@id("c{n}") permit ({scope}) when {{ {one} }};' for n, one in enumerate(conditions))
    bundle = admit([PolicySource("a.cedar", text)], packaged_schema())
    trees = {policy.id: policy.tree["conditions"][0]["body"] for policy in bundle.policies}
    return bundle, {one: trees[f"c{n}"] for n, one in enumerate(conditions)}


Body = list[str | tuple[str, str]]
Rules = tuple[tuple[str, str, Body], ...]  # effect, annotation, conditions


@st.composite
def policies(draw: st.DrawFn) -> Rules:
    """Draw one to four permits and none to two forbids; some permits oblige."""
    extra = st.sampled_from(["", "stepup", "mask"])
    permits = [("permit", draw(extra), draw(BODY)) for _ in range(draw(st.integers(1, 4)))]
    return (*permits, *(("forbid", "", draw(BODY)) for _ in range(draw(st.integers(0, 2)))))


def stand(rules: Rules, facts: dict[str, Any]) -> Standpoint:
    bundle, trees = admitted()
    pattern = bundle.policies[0]
    values = {"stepup": "acr=aal2,max_age=900", "mask": "email"}
    texts = []
    for number, (effect, extra, body) in enumerate(rules):
        whole = [
            trees[part]
            if isinstance(part, str)
            else {"||": {"left": trees[part[0]], "right": trees[part[1]]}}
            for part in body
        ]
        tree = {
            **pattern.tree,
            "effect": effect,
            "conditions": [{"kind": "when", "body": one} for one in whole],
        }
        said = {extra: values[extra]} if extra else {}
        texts.append(
            msgspec.structs.replace(pattern, id=f"r{number}", effect=effect, tree=tree, annotations=said)
        )
    point = DecisionPoint()
    point.publish(msgspec.structs.replace(bundle, policies=tuple(texts)))
    point.advance(offline_snapshot(parse(ORG.format(**facts), "org.yaml")))
    return point.pin()


def circumstances(own: dict[str, Any], risk: int) -> Context:
    return Context(now=NOW, risk=risk, **own)


def told(standpoint: Standpoint, context: Context) -> Decision:
    asked = ask(str(DANA), Action.READ, TRAINING, context=context)
    return standpoint.explain(asked, standpoint.decide(asked), None)


def followed(context: Context, changes: tuple[Change, ...]) -> Context:
    """Do what the changes say, read from their text alone: the slowest sign-in, the named device."""
    for change in changes:
        session = context.session
        match re.split(r" (==|<=) ", change.change):
            case ["context.device.proven"]:
                (name,) = re.findall(r'your device "([^"]+)"', change.say)
                context = msgspec.structs.replace(context, device=DEVICES[name])
            case ["context.purpose", "==", purpose]:
                assert purpose in change.say
                context = msgspec.structs.replace(context, purpose=purpose.strip('"'))
            case ["context.network.zone", "==", zone]:
                address = {"office": "10.0.0.0/32", "lab": "192.168.7.0/32"}[zone.strip('"')]
                ip = ip_interface(address)
                context = msgspec.structs.replace(context, network=NetworkContext(zone.strip('"'), ip))
            case ["context.session.mfa_age", "<=", age]:
                session = msgspec.structs.replace(
                    session, mfa=True, mfa_age=int(age), age=min(int(age), session.age)
                )
                context = msgspec.structs.replace(context, session=session)
            case ["context.session.mfa"]:
                session = msgspec.structs.replace(
                    session, mfa=True, mfa_age=86_400, age=min(86_400, session.age)
                )
                context = msgspec.structs.replace(context, session=session)
            case ["context.session.age", "<=", "0"]:
                context = msgspec.structs.replace(context, session=msgspec.structs.replace(session, age=0))
            case _:
                raise AssertionError(change)
    return context


def reachable(own: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield everything dana could bring about: devices of hers, sign-ins, purposes of hers, zones."""
    zones = [
        own["network"],
        NetworkContext("office", ip_interface("10.0.0.0/32")),
        NetworkContext("lab", ip_interface("192.168.7.0/32")),
    ]
    ages = (None, 0, 60, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400)
    session: SessionContext = own["session"]
    sessions = [session, msgspec.structs.replace(session, age=0)]
    sessions += [
        msgspec.structs.replace(session, mfa=True, mfa_age=a, age=min(a, session.age))
        for a in ages
        if a is not None
    ]
    for device, one, purpose, zone in product(
        [own["device"], *DEVICES.values()], sessions, [own["purpose"], "fraud-model", "marketing"], zones
    ):
        yield {"device": device, "session": one, "purpose": purpose, "network": zone}


@seed(3)
@EXAMPLES
@given(policies(), FACTS, HER_OWN)
def test_doing_exactly_what_is_told_turns_the_answer_to_allow(
    rules: Rules, facts: dict[str, Any], own: dict[str, Any]
) -> None:
    standpoint, context = stand(rules, facts), circumstances(own, facts["risk"])
    decision = told(standpoint, context)
    if decision.would_allow:
        assert not decision.allowed
        after = followed(context, decision.would_allow)
        assert standpoint.decide(ask(str(DANA), Action.READ, TRAINING, context=after)).allowed, (
            decision.would_allow
        )
    else:
        assert decision.allowed or REQUEST_ACCESS in decision.advice


@seed(4)
@settings(EXAMPLES, max_examples=60)
@given(policies(), FACTS, HER_OWN)
def test_nothing_is_asked_of_her_in_vain(rules: Rules, facts: dict[str, Any], own: dict[str, Any]) -> None:
    """No single change that is told can be left out, and one change is told where one is enough."""
    standpoint, context = stand(rules, facts), circumstances(own, facts["risk"])
    changes = told(standpoint, context).would_allow
    for left_out in range(len(changes)):
        fewer = followed(context, (*changes[:left_out], *changes[left_out + 1 :]))
        assert not standpoint.decide(ask(str(DANA), Action.READ, TRAINING, context=fewer)).allowed


@seed(5)
@settings(EXAMPLES, max_examples=40)
@given(policies(), FACTS, FACTS, HER_OWN)
def test_denials_she_cannot_tell_apart_get_equal_bodies(
    rules: Rules, one: dict[str, Any], other: dict[str, Any], own: dict[str, Any]
) -> None:
    bodies, answers = [], []
    for facts in (one, other):
        standpoint = stand(rules, facts)
        decision = told(standpoint, circumstances(own, facts["risk"]))
        answers.append(
            [
                standpoint.decide(
                    ask(str(DANA), Action.READ, TRAINING, context=circumstances(brought, facts["risk"]))
                ).allowed
                for brought in reachable(own)
            ]
        )
        bodies.append((decision.allowed, decision.would_allow, decision.advice))
    if answers[0] == answers[1]:
        assert bodies[0] == bodies[1]


@seed(6)
@EXAMPLES
@given(policies(), FACTS, HER_OWN)
def test_nothing_she_does_not_know_is_told(rules: Rules, facts: dict[str, Any], own: dict[str, Any]) -> None:
    decision = told(stand(rules, facts), circumstances(own, facts["risk"]))
    if not decision.allowed:
        said = " ".join([*decision.advice, *(change.say for change in decision.would_allow)])
        assert not SECRETS.search(said), said


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("context.device.proven", 'present the certificate of your device "laptop-7"'),
        ('context has purpose && context.purpose == "fraud-model"', 'state your purpose "fraud-model"'),
        ('context.network.zone == "lab"', 'connect from the zone "lab"'),
        ("context.session has mfa_age && context.session.mfa_age <= 900", "sign in again with MFA"),
        ("principal.clearance >= 2", REQUEST_ACCESS),
    ],
)
def test_each_kind_of_change_is_reached_by_the_properties(condition: str, said: str) -> None:
    facts = {"clearance": 0, "risk": 0, "sensitivity": 1, "live": "true"}
    decision = told(stand((("permit", "stepup", [condition]),), facts), Context(now=NOW))
    assert said in [*decision.advice, *(change.say for change in decision.would_allow)]
