from __future__ import annotations

import json

import pytest

from doorward.core.decision import Change, Decision, Effect
from doorward.core.errors import (
    InvalidRequestError,
    PayloadTooLargeError,
    UnauthenticatedError,
    UnavailableError,
)
from doorward.core.model import EntityUid
from doorward.gateway.refusal import of_decision, of_error, problem, refusal, sentence

DANA, MODEL = EntityUid.of("User", "dana"), EntityUid.of("Model", "llm/x")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequestError("x"), 400),
        (PayloadTooLargeError("x"), 413),
        (UnavailableError("x"), 503),
        (UnavailableError("x", code="upstream_unavailable"), 502),
        (UnavailableError("x", code="upstream_timeout"), 504),
        (UnauthenticatedError("x"), 401),
        (KeyError("secret"), 500),
    ],
)
def test_each_error_has_its_status(error, status):
    refused = of_error(error, "r1")
    assert refused.status == status
    assert "secret" not in refused.detail


def test_a_401_always_challenges():
    assert of_error(UnauthenticatedError("x"), "r1").challenge


def test_a_denial_without_advice_still_says_what_was_denied():
    refused = of_decision(
        Decision(Effect.DENY), principal=DANA, action="read", resource=MODEL, request_id="r1"
    )
    assert refused.detail == 'You may not read Model::"llm/x".'


def test_the_problem_names_no_attribute_only_the_way_in():
    decision = Decision(
        Effect.DENY,
        determining=("p1",),
        advice=("exports need MFA",),
        would_allow=(Change("context.session.mfa", "use MFA"),),
    )
    refused = of_decision(decision, principal=DANA, action="export", resource=MODEL, request_id="r1")
    answer = problem(refused)
    assert json.loads(answer.body) == {
        "type": "urn:doorward:denied",
        "title": "Denied",
        "status": 403,
        "code": "denied",
        "detail": "Exports need MFA.",
        "request_id": "r1",
        "principal": 'User::"dana"',
        "action": "export",
        "resource": 'Model::"llm/x"',
        "would_allow": [{"say": "use MFA"}],
    }
    assert dict(answer.headers)["Content-Type"] == "application/problem+json"


def test_a_limit_says_when_to_come_back():
    answer = problem(refusal("limit_exceeded", "x", "r1", retry_after=9))
    assert dict(answer.headers)["Retry-After"] == "9"


def test_an_unknown_code_is_an_internal_error():
    assert refusal("made_up", "secret words", "r1").status == 500
    assert "secret words" not in refusal("made_up", "secret words", "r1").detail


def test_what_is_needed_together_is_said_together() -> None:
    refused = refusal(
        "denied",
        "Training data needs a device",
        "R1",
        would_allow=(
            Change("context.device.proven", "show the certificate of your device."),
            Change("context.session.mfa", "sign in again with MFA"),
        ),
    )
    said = sentence(refused)
    assert said.endswith("To be let in: show the certificate of your device, and sign in again with MFA.")
