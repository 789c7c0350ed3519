# ruff: noqa: PLR0913, PLR0917 -- fixtures are arguments
from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from doorward.core.clock import ManualClock
from doorward.core.errors import DeniedError, InvalidRequestError, UnauthenticatedError
from doorward.core.ids import IdSource
from doorward.core.model import EntityUid
from doorward.core.wire import Request
from doorward.identity.authenticate import Authenticator
from doorward.identity.custody import Custodian
from doorward.identity.issuer import LocalIssuer

DANA = EntityUid.of("User", "dana")
LAPTOP = EntityUid.of("Device", "laptop-7")
CONTROL, GATE = "http://127.0.0.1:8641", "https://gate.example"
Ask = Callable[..., Request]
Refusal = Callable[..., Any]


@pytest.fixture
def make_issuer(tmp_path: Path, clock: ManualClock) -> Callable[..., LocalIssuer]:
    def make(**more: Any) -> LocalIssuer:
        custodian = Custodian.open("file:keys", tmp_path)
        return LocalIssuer(custodian, issuer=CONTROL, audience=GATE, clock=clock, ids=IdSource(clock), **more)

    return make


async def test_a_minted_token_says_who_what_for_and_that_it_was_minted(
    make_issuer: Callable[..., LocalIssuer],
    make_gate: Callable[..., Authenticator],
    bearer: Ask,
    clock: ManualClock,
) -> None:
    issuer = make_issuer()
    token = issuer.mint(DANA, purpose="fraud-model")
    caller = await make_gate(jwks=issuer.jwks()).authenticate(bearer(token.text.reveal()))
    assert (caller.principal, caller.bound_purpose, caller.minted) == (DANA, "fraud-model", True)
    assert (caller.mfa_at, caller.device, caller.device_proven) == (None, None, False)
    assert (caller.credential, caller.issuer) == (token.jti, CONTROL)
    assert caller.expires == token.expires == clock.now() + timedelta(seconds=900)
    assert token.text.reveal() not in repr(token)


def test_what_is_published_is_public_only(make_issuer: Callable[..., LocalIssuer]) -> None:
    document = make_issuer().jwks()
    assert document["issuer"] == CONTROL
    assert {"d", "p", "q", "k"}.isdisjoint(document["keys"][0])
    json.dumps(document)


def test_the_key_survives_a_restart(make_issuer: Callable[..., LocalIssuer]) -> None:
    assert make_issuer().jwks() == make_issuer().jwks()


@pytest.mark.parametrize("claim", [{"mfa": True}, {"device": "laptop-7"}])
def test_mfa_and_device_are_not_minted_outside_tests(
    make_issuer: Callable[..., LocalIssuer], claim: dict[str, Any]
) -> None:
    with pytest.raises(DeniedError):
        make_issuer().mint(DANA, **claim)
    assert make_issuer(test_minting=True).mint(DANA, **claim)


def test_a_device_gets_no_token(make_issuer: Callable[..., LocalIssuer]) -> None:
    with pytest.raises(InvalidRequestError):
        make_issuer().mint(LAPTOP)


async def test_minted_mfa_and_device_count_under_test_minting_and_say_so(
    make_issuer: Callable[..., LocalIssuer],
    make_gate: Callable[..., Authenticator],
    bearer: Ask,
    clock: ManualClock,
) -> None:
    issuer = make_issuer(test_minting=True)
    text = issuer.mint(DANA, mfa=True, device="laptop-7").text.reveal()
    gate = make_gate(jwks=issuer.jwks(), test_minting=True)
    caller = await gate.authenticate(bearer(text))
    assert (caller.mfa_at, caller.device, caller.device_proven) == (clock.now(), LAPTOP, True)
    assert caller.minted
    assert gate.still_valid(caller)


async def test_a_gateway_without_test_minting_ignores_what_was_minted_with_it(
    make_issuer: Callable[..., LocalIssuer], make_gate: Callable[..., Authenticator], bearer: Ask
) -> None:
    issuer = make_issuer(test_minting=True)
    text = issuer.mint(DANA, mfa=True, device="laptop-7").text.reveal()
    caller = await make_gate(jwks=issuer.jwks()).authenticate(bearer(text))
    assert (caller.mfa_at, caller.device, caller.device_proven, caller.minted) == (None, None, False, True)


async def test_a_minted_device_must_be_active(
    make_issuer: Callable[..., LocalIssuer],
    make_gate: Callable[..., Authenticator],
    bearer: Ask,
    refusal: Refusal,
) -> None:
    issuer = make_issuer(test_minting=True)
    text = issuer.mint(DANA, device="stolen").text.reveal()
    error = await refusal(bearer(text), make_gate(jwks=issuer.jwks(), test_minting=True))
    assert error.reason == "device_inactive"


async def test_our_own_tokens_end_on_the_second(
    make_issuer: Callable[..., LocalIssuer],
    make_gate: Callable[..., Authenticator],
    bearer: Ask,
    refusal: Refusal,
    clock: ManualClock,
) -> None:
    issuer = make_issuer(lifetime=10)
    gate, text = make_gate(jwks=issuer.jwks()), issuer.mint(DANA).text.reveal()
    clock.advance(9)
    caller = await gate.authenticate(bearer(text))
    clock.advance(1)
    assert not gate.still_valid(caller)
    assert (await refusal(bearer(text), gate)).reason == "token_expired"


async def test_a_token_minted_for_another_audience_is_not_for_us(
    make_issuer: Callable[..., LocalIssuer],
    make_gate: Callable[..., Authenticator],
    bearer: Ask,
    refusal: Refusal,
) -> None:
    issuer = make_issuer()
    text = issuer.mint(DANA, audience="https://other.example").text.reveal()
    assert (await refusal(bearer(text), make_gate(jwks=issuer.jwks()))).reason == "audience_wrong"


@pytest.mark.parametrize("event", ["revoked", "disabled", "key withdrawn", "feed silent"])
async def test_a_minted_token_is_held_against_what_is_known_now(
    make_issuer: Callable[..., LocalIssuer],
    make_gate: Callable[..., Authenticator],
    bearer: Ask,
    refusal: Refusal,
    registry: Any,
    event: str,
) -> None:
    issuer = make_issuer()
    jwks = issuer.jwks()
    gate, token = make_gate(jwks=jwks), issuer.mint(DANA)
    await gate.authenticate(bearer(token.text.reveal()))
    match event:
        case "revoked":
            registry.revoked.add(token.jti)
        case "disabled":
            registry.active.discard(DANA)
        case "key withdrawn":
            jwks["keys"] = [ECKey.generate_key("P-256").as_dict(private=False)]
        case "feed silent":
            jwks.clear()
    assert isinstance(await refusal(bearer(token.text.reveal()), gate), UnauthenticatedError)
