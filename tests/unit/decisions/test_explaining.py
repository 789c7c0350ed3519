# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from doorward.core.context import DeviceContext, SessionContext
from doorward.core.decision import Change, Decision
from doorward.core.identity import Caller
from doorward.core.model import Action, EntityUid
from doorward.decisions.explaining import REQUEST_ACCESS
from doorward.decisions.point import Standpoint
from support.policies import NOW, ask

Stand = Callable[..., Standpoint]
TRAINING = 'Dataset::"store/training"'
LAPTOP = DeviceContext(
    known=True, proven=True, managed=True, compliant=True, id=EntityUid.of("Device", "laptop-7")
)


def told(
    standpoint: Standpoint,
    who: str = "dana",
    action: Action = Action.READ,
    resource: str = TRAINING,
    *,
    caller: Caller | None = None,
    **context: Any,
) -> Decision:
    asked = ask(f'User::"{who}"' if "::" not in who else who, action, resource, **context)
    return standpoint.explain(asked, standpoint.decide(asked), caller)


def says(decision: Decision) -> list[str]:
    return [change.say for change in decision.would_allow]


def test_without_the_certificate_she_is_told_to_present_it(standpoint: Standpoint) -> None:
    decision = told(standpoint, purpose="fraud-model")
    assert decision.would_allow == (
        Change("context.device.proven", 'present the certificate of your device "laptop-7"'),
    )
    assert REQUEST_ACCESS not in decision.advice


def test_a_purpose_the_data_may_not_serve_is_named_with_hers(standpoint: Standpoint) -> None:
    decision = told(standpoint, device=LAPTOP, purpose="marketing")
    assert decision.would_allow == (
        Change('context.purpose == "fraud-model"', 'state your purpose "fraud-model", not "marketing"'),
    )
    assert "fraud-model" in decision.advice[0]


def test_a_bound_key_means_another_credential(standpoint: Standpoint) -> None:
    caller = Caller(EntityUid.of("User", "dana"), "k1", "key", bound_purpose="marketing")
    decision = told(standpoint, device=LAPTOP, purpose="marketing", caller=caller)
    assert says(decision) == ['use a credential for your purpose "fraud-model", not "marketing"']


def test_changes_are_the_fewest_that_together_help(standpoint: Standpoint) -> None:
    decision = told(standpoint)
    assert says(decision) == [
        'present the certificate of your device "laptop-7"',
        'state your purpose "fraud-model"',
    ]


def test_three_changes_are_found(standpoint_of: Stand) -> None:
    text = """@id("p") permit (principal, action, resource) when {
      context.device.proven && context.purpose == "marketing" && context.network.zone == "lab"
    };""".replace("context.purpose ==", "context has purpose && context.purpose ==")
    assert says(told(standpoint_of(text))) == [
        'present the certificate of your device "laptop-7"',
        'state your purpose "marketing"',
        'connect from the zone "lab"',
    ]


def test_fresh_mfa_is_told_with_the_age_that_is_enough(standpoint_of: Stand) -> None:
    text = '@id("p") permit (principal, action, resource) when { context.session has mfa_age && context.session.mfa_age <= 900 };'
    stale = SessionContext(method="oidc", mfa=True, mfa_age=4000, age=4000)
    for session in (SessionContext(), stale):
        decision = told(standpoint_of(text), session=session)
        assert decision.would_allow == (Change("context.session.mfa_age <= 900", "sign in again with MFA"),)


def test_an_old_sign_in_is_told(standpoint_of: Stand) -> None:
    text = '@id("p") permit (principal, action, resource) when { context.session.age < 60 && !context.session.mfa };'
    assert says(told(standpoint_of(text), session=SessionContext(age=999))) == ["sign in again"]


def test_a_zone_is_told_by_name_and_by_address(standpoint_of: Stand) -> None:
    text = '@id("p") permit (principal, action, resource) when { context.network has ip && context.network.ip.isInRange(ip("192.168.7.0/24")) };'
    assert says(told(standpoint_of(text))) == ['connect from the zone "lab"']


def test_services_are_not_told_to_sign_in(standpoint_of: Stand) -> None:
    text = '@id("p") permit (principal, action, resource) when { context.session.mfa };'
    decision = told(standpoint_of(text), 'Service::"etl"')
    assert (decision.would_allow, decision.advice) == ((), (REQUEST_ACCESS,))


def test_what_she_cannot_change_is_never_told(standpoint_of: Stand) -> None:
    for condition in (
        'principal in Doorward::Role::"admin"',
        "principal.clearance > 2",
        "resource is Doorward::Dataset && resource.sensitivity < 1",
        "context.risk > 80",
        'context has purpose && context.purpose == "secret-project"',
        'context.signals.contains("x")',
        "context.request.bytes > 10",
    ):
        text = f'@id("p") permit (principal, action, resource) when {{ {condition} }};'
        decision = told(standpoint_of(text))
        assert (decision.would_allow, decision.advice) == ((), (REQUEST_ACCESS,)), condition


def test_a_device_of_somebody_else_is_never_told(standpoint: Standpoint, standpoint_of: Stand) -> None:
    text = '@id("p") permit (principal, action, resource) when { context.device.proven };'
    assert says(told(standpoint_of(text), "bea")) == ['present the certificate of your device "desk-1"']
    assert told(standpoint_of(text), "omar").would_allow == ()
    assert "desk-1" not in str(told(standpoint))


def test_the_advice_of_a_deciding_forbid_is_told_and_nothing_else_of_it(standpoint: Standpoint) -> None:
    decision = told(standpoint, 'Service::"etl-test"')
    assert decision.determining == ("testing-never-touches-live-data",)
    assert decision.advice == (
        "A workload in testing may not use live production data: use a copy made for tests.",
    )
    assert decision.would_allow == ()


def test_a_forbid_without_advice_looks_like_the_lack_of_a_permit(standpoint_of: Stand) -> None:
    permit = '@id("p") permit (principal, action, resource) when { principal.clearance > 2 };'
    forbid = '@id("f") forbid (principal, action, resource) when { principal.clearance < 9 };'
    assert (
        told(standpoint_of(permit + forbid)).advice == told(standpoint_of(permit)).advice == (REQUEST_ACCESS,)
    )


def test_the_advice_of_a_permit_for_others_is_not_told(standpoint: Standpoint) -> None:
    assert told(standpoint, "bea").advice == (REQUEST_ACCESS,)


def test_advice_of_a_permit_that_could_never_hold_for_her_is_not_told(standpoint_of: Stand) -> None:
    text = '@id("p") @advice("Only for level 3.") permit (principal, action, resource) when { principal.clearance > 2 && context.device.proven };'
    assert told(standpoint_of(text)).advice == (REQUEST_ACCESS,)


def test_whatever_is_told_really_helps(standpoint: Standpoint) -> None:
    context = ask('User::"dana"', Action.READ, TRAINING).context
    for given in ({}, {"purpose": "marketing"}, {"device": LAPTOP}):
        decision = told(standpoint, **given)
        changed = msgspec.structs.replace(context, device=LAPTOP, purpose="fraud-model", now=NOW)
        assert decision.would_allow
        assert standpoint.decide(ask('User::"dana"', Action.READ, TRAINING, context=changed)).allowed


def test_an_allow_and_an_unknown_name_are_not_explained(standpoint: Standpoint) -> None:
    assert told(standpoint, "omar").would_allow == ()
    unknown = told(standpoint, resource='Dataset::"nowhere"')
    assert (unknown.would_allow, unknown.advice) == ((), ())


def test_the_search_for_changes_ends(standpoint_of: Stand) -> None:
    text = (
        '@id("p") permit (principal, action, resource) when { context.device.proven && context.risk > 99 };'
    )
    standpoint = standpoint_of(text)
    tries = 0

    def counted(asked: Any) -> Decision:
        nonlocal tries
        tries += 1
        return Standpoint.decide(standpoint, asked)

    asked = ask('User::"dana"', Action.READ, TRAINING)
    denied = standpoint.decide(asked)
    standpoint.decide = counted  # type: ignore[method-assign]  # counts the tries
    assert standpoint.explain(asked, denied, None).would_allow == ()
    assert 0 < tries <= 256
