# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doorward.cedar.engine import Engine, Loaded
from doorward.cedar.possible import Outcome, certain
from doorward.core.context import Context, DeviceContext, NetworkContext, SessionContext
from doorward.core.decision import AccessRequest, Effect
from doorward.core.model import Action, EntityUid
from support.policies import NOW, dataset, request, user, world

Build = Callable[..., Engine]
OWNER = EntityUid.of("User", "omar")
KNOWN = world(
    user("dana", purposes=frozenset({"fraud-model"}), clearance=2, department="risk"),
    user("omar"),
    dataset("store/a", purposes=frozenset({"fraud-model"}), owner=OWNER, sensitivity=2),
)

_ATOMS = [
    "context.device.proven", "context.device.managed", 'context.network.zone == "office"', "context.risk > 50",
    "context.risk + 9223372036854775800 > 0", 'context.purpose == "fraud-model"', "context has purpose",
    "resource.purposes.contains(context.purpose)", "context.session.mfa", "context.session.mfa_age < 900",
    'principal.purposes.contains("fraud-model")', "principal.clearance >= resource.sensitivity",
    "resource.owner == principal", "resource.owner.risk == 0", 'principal.department == "risk"',
    'principal.email like "*@example.com"', "resource.live", "true", "false",
    'context.network.ip.isInRange(ip("10.0.0.0/8"))', "context.device.id.managed", 'principal in Doorward::Group::"lab"',
    "[].contains(context.purpose)", 'context.signals.containsAny(["leak"])', 'context.now < datetime("2027-01-01")',
    "context.device.id == context.device.id", "resource is Doorward::Dataset", "context.network has ip",
]  # fmt: skip


def _joined(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(children, children)
    return st.one_of(
        pair.map(lambda p: f"({p[0]} && {p[1]})"),
        pair.map(lambda p: f"({p[0]} || {p[1]})"),
        children.map(lambda c: f"!({c})"),
        st.tuples(children, children, children).map(lambda t: f"(if {t[0]} then {t[1]} else {t[2]})"),
        pair.map(lambda p: f"({p[0]}) == ({p[1]})"),
    )


_CONDITION = st.recursive(st.sampled_from(_ATOMS), _joined, max_leaves=6)
_POLICIES = st.lists(st.tuples(st.sampled_from(["permit", "forbid"]), _CONDITION), min_size=1, max_size=4)
_CONTEXT = st.builds(
    Context,
    now=st.just(NOW),
    device=st.builds(DeviceContext, proven=st.booleans(), managed=st.booleans()),
    network=st.builds(NetworkContext, zone=st.sampled_from(["unknown", "office"])),
    session=st.builds(SessionContext, mfa=st.booleans(), mfa_age=st.sampled_from([None, 0, 1000])),
    risk=st.sampled_from([0, 60, 100]),
    purpose=st.sampled_from([None, "fraud-model", "marketing"]),
    signals=st.sampled_from([frozenset(), frozenset({"leak"})]),
)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_POLICIES, _CONTEXT)
def test_what_some_context_shows_is_never_called_hidden(
    engine_of: Build, policies: list[tuple[str, str]], context: Context
) -> None:
    engine = engine_of("\n".join(f"{e} (principal, action, resource) when {{ {c} }};" for e, c in policies))
    loaded = engine.load(KNOWN)
    asked = AccessRequest(
        EntityUid.of("User", "dana"), Action.VIEW.uid, EntityUid.of("Dataset", "store/a"), context
    )
    if engine.evaluate(asked, loaded).effect is Effect.ALLOW:
        assert engine.could_allow(asked, loaded)


@settings(max_examples=600, deadline=None)
@given(_CONDITION, _CONTEXT)
def test_with_everything_known_the_outcome_is_cedars(
    engine_of: Build, condition: str, context: Context
) -> None:
    engine = engine_of(f"permit (principal, action, resource) when {{ {condition} }};")
    loaded = engine.load(KNOWN)
    asked = AccessRequest(
        EntityUid.of("User", "dana"), Action.VIEW.uid, EntityUid.of("Dataset", "store/a"), context
    )
    answer = engine.evaluate(asked, loaded)
    (rule,) = engine.applicable(asked.principal, asked.action, asked.resource, loaded)
    variables = {
        "principal": asked.principal,
        "action": asked.action,
        "resource": asked.resource,
        "context": context.to_record(),
    }
    outcome = certain(rule.tree, variables, loaded)
    happened = Outcome(
        true=answer.effect is Effect.ALLOW,
        false=answer.effect is Effect.DENY and not answer.errors,
        error=bool(answer.errors),
    )
    if "ip(" in condition or "datetime(" in condition:
        assert outcome.true or not happened.true
        assert outcome.false or not happened.false
        assert outcome.error or not happened.error
    else:
        assert outcome == happened


def could(engine_of: Build, text: str, *, known: object = KNOWN) -> bool:
    engine = engine_of(text)
    loaded: Loaded = engine.load(known)  # type: ignore[arg-type]  # a mapping of entities
    return engine.could_allow(request(action=Action.VIEW), loaded)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", False),
        ("permit (principal, action, resource);", True),
        ("permit (principal, action, resource) when { context.device.proven };", True),
        ("permit (principal, action, resource) when { principal.clearance > 2 && context.device.proven };", False),
        ('permit (principal, action == Doorward::Action::"read", resource);', False),
        ('permit (principal, action in Doorward::Action::"use", resource);', True),
        ('permit (principal, action, resource) when { resource.digest == "x" };', False),
        ("permit (principal, action, resource) when { [].contains(context.purpose) };", False),
        ("permit (principal, action, resource); forbid (principal, action, resource);", False),
        ("permit (principal, action, resource); forbid (principal, action, resource) when { context.risk > 5 };", True),
        ("permit (principal, action, resource); forbid (principal, action, resource) when { resource.sensitivity == 2 };", False),
        ('permit (principal, action, resource); forbid (principal, action, resource) when { resource.digest == "x" };', False),
        ("permit (principal, action, resource); forbid (principal, action, resource) unless { context.session.mfa };", True),
    ],
)  # fmt: skip
def test_what_exists_for_whom(engine_of: Build, text: str, *, shown: bool) -> None:
    assert could(engine_of, text) is shown
