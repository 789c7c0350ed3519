"""Attacks 13-15, 17 of the catalogue, and what a key, a certificate and both together prove."""

# ruff: noqa: PLR0913, PLR0917 -- fixtures are arguments
from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidRequestError, UnauthenticatedError
from doorward.core.identity import Caller, KeyRecord, Method
from doorward.core.model import EntityUid
from doorward.core.wire import Request
from doorward.identity import api_keys, sigv4
from doorward.identity.authenticate import Authenticator

DANA = EntityUid.of("User", "dana")
LAPTOP = EntityUid.of("Device", "laptop-7")
PHONE = EntityUid.of("Device", "phone-1")
CERTIFICATE, OTHER_CERTIFICATE = b"der of the laptop", b"der of the phone"
FINGERPRINT = hashlib.sha256(CERTIFICATE).hexdigest()
OTHER_FINGERPRINT = hashlib.sha256(OTHER_CERTIFICATE).hexdigest()
Ask = Callable[..., Request]
Refusal = Callable[..., Any]


@pytest.fixture
def add_key(registry: Any, clock: ManualClock) -> Callable[..., str]:
    def add(**more: Any) -> str:
        record, text = api_keys.create(
            key_id=f"K{len(registry.keys)}", subject=more.pop("subject", DANA), now=clock.now(), **more
        )
        registry.keys.append(record)
        return text.reveal()

    return add


@pytest.fixture
def enrolled(registry: Any) -> None:
    registry.certificates.update({FINGERPRINT: LAPTOP, OTHER_FINGERPRINT: PHONE})


async def test_a_key_names_its_subject_bound_purpose_and_end(
    gate: Authenticator, bearer: Ask, add_key: Callable[..., str], clock: ManualClock
) -> None:
    text = add_key(purpose="fraud-model", lifetime=timedelta(days=1))
    caller = await gate.authenticate(bearer(text))
    assert (caller.principal, caller.credential, caller.method) == (DANA, "K0", Method.API_KEY)
    assert caller.bound_purpose == "fraud-model"
    assert caller.expires == clock.now() + timedelta(days=1)
    assert (caller.device, caller.device_proven, caller.minted, caller.mfa_at) == (None, False, False, None)
    assert text not in repr(caller)


async def test_the_key_works_in_x_api_key_and_in_both_places_at_once(
    gate: Authenticator, ask: Ask, add_key: Callable[..., str]
) -> None:
    text = add_key()
    for headers in (
        (("x-api-key", text),),
        (("authorization", f"bearer {text}"),),
        (("authorization", f"Bearer {text}"), ("x-api-key", text)),
    ):
        assert (await gate.authenticate(ask(*headers))).principal == DANA


async def test_two_credentials_are_never_ranked(
    ask: Ask, add_key: Callable[..., str], refusal: Refusal, idp: Any
) -> None:
    key, other, token = add_key(), add_key(), idp.token()
    for headers in (
        (("authorization", f"Bearer {key}"), ("authorization", f"Bearer {other}")),
        (("authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}")),
        (("authorization", "Basic ZDpk"), ("authorization", f"Bearer {key}")),
        (("authorization", f"Bearer {key}, Bearer {other}"),),
        (("authorization", f"Bearer {key},{other}"),),
        (("authorization", f"Basic ZDpk, Bearer {key}"),),
        (("authorization", f"Bearer {key}"), ("x-api-key", other)),
        (("authorization", f"Bearer {token}"), ("x-api-key", key)),
        (("x-api-key", key), ("x-api-key", other)),
        (("x-api-key", f"{key},{other}"),),
        (("authorization", "AWS4-HMAC-SHA256 Credential=x"), ("x-api-key", key)),
    ):
        error = await refusal(ask(*headers))
        assert isinstance(error, InvalidRequestError), headers


async def test_a_signed_url_beside_a_header_is_two_credentials(
    ask: Ask, add_key: Callable[..., str], refusal: Refusal
) -> None:
    for name in ("X-Amz-Algorithm", "X-Amz-Signature", "x-amz-credential"):
        for header in ("authorization", "x-api-key"):
            error = await refusal(ask((header, f"Bearer {add_key()}"), query=((name, "x"),)))
            assert isinstance(error, InvalidRequestError)


async def test_a_credential_in_the_url_is_refused_even_if_it_would_verify(
    ask: Ask, add_key: Callable[..., str], refusal: Refusal
) -> None:
    key = add_key()
    for name, value in (
        ("access_token", "x"),
        ("ACCESS_TOKEN", "x"),
        ("api_key", "x"),
        ("key", key),
        ("q", key),
    ):
        error = await refusal(ask(("authorization", f"Bearer {key}"), query=((name, value),)))
        assert isinstance(error, InvalidRequestError)
        assert key not in str(error)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer  x",
        "Basic ZGFuYTpkdw==",
        "Negotiate x",
        "Bearer\tx",
        " Bearer x",
        "Bearer ' OR 1=1 --",
        "Bearer %s%s%n",
        "Bearer x; DROP TABLE keys",
        "dw_naked",
        "Token x",
        "AWS x:y",
    ],
)
async def test_what_is_no_credential_is_a_401_with_a_challenge(
    ask: Ask, refusal: Refusal, value: str
) -> None:
    error = await refusal(ask(("authorization", value)))
    assert isinstance(error, UnauthenticatedError)
    assert error.challenge.startswith('Bearer realm="doorward"')
    assert error.reason


async def test_nothing_at_all_is_a_401_with_a_challenge(ask: Ask, refusal: Refusal) -> None:
    error = await refusal(ask())
    assert isinstance(error, UnauthenticatedError)
    assert error.reason == "no_credential"
    assert error.challenge.startswith('Bearer realm="doorward", DPoP realm="doorward", algs="ES256 ')


async def test_every_refused_key_looks_the_same_and_is_recorded_apart(
    bearer: Ask,
    add_key: Callable[..., str],
    refusal: Refusal,
    registry: Any,
    clock: ManualClock,
) -> None:
    expired = add_key(lifetime=timedelta(seconds=10))
    elsewhere = add_key(networks=("10.0.0.0/8",))
    inactive = add_key(subject=EntityUid.of("User", "gone"))
    lost = add_key(device=EntityUid.of("Device", "lost"))
    revoked = add_key()
    registry.keys = [key for key in registry.keys if key.id != "K4"]
    clock.advance(10)
    texts = {
        "key_malformed": "dw_" + "a" * 49,
        "key_unknown": revoked,
        "key_expired": expired,
        "key_used_from_elsewhere": elsewhere,
        "subject_inactive": inactive,
        "device_inactive": lost,
    }
    errors = {reason: await refusal(bearer(text)) for reason, text in texts.items()}
    assert {reason: error.reason for reason, error in errors.items()} == {reason: reason for reason in texts}
    told = {(error.message, error.hint, error.challenge, error.code) for error in errors.values()}
    assert len(told) == 1


async def test_a_key_works_until_the_moment_it_ends(
    gate: Authenticator, bearer: Ask, add_key: Callable[..., str], refusal: Refusal, clock: ManualClock
) -> None:
    text = add_key(lifetime=timedelta(seconds=10))
    clock.advance(9)
    caller = await gate.authenticate(bearer(text))
    assert gate.still_valid(caller)
    clock.advance(1)
    assert not gate.still_valid(caller)
    assert (await refusal(bearer(text))).reason == "key_expired"


@pytest.mark.parametrize(
    ("ip", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("::1", False),
        ("", False),
        ("x", False),
    ],
)
async def test_a_key_bound_to_a_network_is_used_from_there_only(
    gate: Authenticator, bearer: Ask, add_key: Callable[..., str], refusal: Refusal, ip: str, *, allowed: bool
) -> None:
    asked = bearer(add_key(networks=("10.0.0.0/8",)), ip=ip)
    if allowed:
        assert (await gate.authenticate(asked)).principal == DANA
    else:
        assert (await refusal(asked)).reason == "key_used_from_elsewhere"


async def test_a_key_bound_to_a_device_names_it_and_proves_nothing(
    gate: Authenticator, bearer: Ask, add_key: Callable[..., str]
) -> None:
    caller = await gate.authenticate(bearer(add_key(device=LAPTOP)))
    assert (caller.device, caller.device_proven) == (LAPTOP, False)


@pytest.mark.usefixtures("enrolled")
async def test_the_certificate_on_this_request_proves_the_device(
    gate: Authenticator, bearer: Ask, add_key: Callable[..., str]
) -> None:
    for text in (add_key(device=LAPTOP), add_key()):
        caller = await gate.authenticate(bearer(text, certificate=CERTIFICATE))
        assert (caller.principal, caller.device, caller.device_proven) == (DANA, LAPTOP, True)
        again = await gate.authenticate(bearer(text))
        assert not again.device_proven


@pytest.mark.usefixtures("enrolled")
async def test_a_key_with_another_devices_certificate_is_refused(
    bearer: Ask, add_key: Callable[..., str], refusal: Refusal
) -> None:
    error = await refusal(bearer(add_key(device=LAPTOP), certificate=OTHER_CERTIFICATE))
    assert isinstance(error, InvalidRequestError)


@pytest.mark.usefixtures("enrolled")
async def test_a_certificate_alone_makes_the_device_the_principal(gate: Authenticator, ask: Ask) -> None:
    caller = await gate.authenticate(ask(certificate=CERTIFICATE))
    assert (caller.principal, caller.device, caller.device_proven) == (LAPTOP, LAPTOP, True)
    assert (caller.method, caller.credential) == (Method.CERTIFICATE, FINGERPRINT)
    assert gate.still_valid(caller)


async def test_a_certificate_tls_accepted_but_nobody_is_bound_to_is_refused(
    ask: Ask, bearer: Ask, add_key: Callable[..., str], refusal: Refusal
) -> None:
    for asked in (ask(certificate=CERTIFICATE), bearer(add_key(), certificate=CERTIFICATE)):
        error = await refusal(asked)
        assert isinstance(error, UnauthenticatedError)
        assert error.reason == "certificate_unknown_or_revoked"


@pytest.mark.usefixtures("enrolled")
async def test_a_bad_key_is_not_saved_by_a_good_certificate(
    bearer: Ask, add_key: Callable[..., str], refusal: Refusal, registry: Any
) -> None:
    text = add_key()
    registry.keys.clear()
    assert (await refusal(bearer(text, certificate=CERTIFICATE))).reason == "key_unknown"


@pytest.mark.usefixtures("enrolled")
async def test_a_certificate_of_a_disabled_device_is_refused(
    ask: Ask, bearer: Ask, add_key: Callable[..., str], refusal: Refusal, registry: Any
) -> None:
    registry.active.discard(LAPTOP)
    for asked in (ask(certificate=CERTIFICATE), bearer(add_key(), certificate=CERTIFICATE)):
        error = await refusal(asked)
        assert isinstance(error, UnauthenticatedError)
        assert error.reason == "certificate_unknown_or_revoked"


async def test_a_registry_that_answers_another_hash_is_not_believed(
    bearer: Ask, add_key: Callable[..., str], refusal: Refusal, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = add_key()
    wrong = KeyRecord(id="K9", hash="0" * 64, subject=DANA, created=registry.keys[0].created)
    monkeypatch.setattr(type(registry), "key_by_hash", lambda _self, _digest: wrong)
    assert (await refusal(bearer(text))).reason == "key_unknown"


@pytest.mark.usefixtures("enrolled")
@pytest.mark.parametrize("event", ["key revoked", "user disabled", "device disabled", "certificate revoked"])
async def test_an_open_stream_ends_when_what_let_it_in_is_gone(
    gate: Authenticator, bearer: Ask, add_key: Callable[..., str], registry: Any, event: str
) -> None:
    caller = await gate.authenticate(bearer(add_key(), certificate=CERTIFICATE))
    assert gate.still_valid(caller)
    match event:
        case "key revoked":
            registry.keys.clear()
        case "user disabled":
            registry.active.discard(DANA)
        case "device disabled":
            registry.active.discard(LAPTOP)
        case "certificate revoked":
            registry.certificates.clear()
    assert not gate.still_valid(caller)


async def test_an_access_key_that_was_given_to_another_subject_ends_the_stream(
    gate: Authenticator, bearer: Ask, add_key: Callable[..., str], registry: Any, clock: ManualClock
) -> None:
    caller = await gate.authenticate(bearer(add_key()))
    registry.keys = [api_keys.create(key_id="K0", subject=EntityUid.of("User", "omar"), now=clock.now())[0]]
    assert not gate.still_valid(caller)


# A signature: part of the request, verified elsewhere, judged by the same rules


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def says(**fields: Any) -> None:
        told = {"principal": DANA, "credential": "K0", "method": "sigv4", **fields}

        async def verified(*_: Any, **__: Any) -> Caller:
            return Caller(**told)

        monkeypatch.setattr(sigv4, "verify", verified)

    return says


AWS = ("authorization", "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=0")


async def test_a_signed_request_is_its_keys(
    gate: Authenticator, ask: Ask, add_key: Callable[..., str], signed: Callable[..., None]
) -> None:
    add_key(device=LAPTOP, purpose="fraud-model")
    signed()
    for asked in (ask(AWS), ask(query=(("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),))):
        caller = await gate.authenticate(asked)
        assert (caller.principal, caller.method, caller.credential) == (DANA, Method.SIGNATURE, "K0")
        assert (caller.device, caller.device_proven, caller.bound_purpose) == (LAPTOP, False, "fraud-model")
        assert gate.still_valid(caller)


async def test_the_lower_case_scheme_is_no_way_around_the_signature(ask: Ask, refusal: Refusal) -> None:
    error = await refusal(ask((AWS[0], AWS[1].lower())))
    assert isinstance(error, UnauthenticatedError)


async def test_an_old_signature_is_told_which_one_to_make(ask: Ask, refusal: Refusal) -> None:
    url = ask(query=(("AWSAccessKeyId", "DW1"), ("Signature", "c2ln"), ("Expires", "1795443422")))
    for asked in (url, ask(("authorization", "AWS DW1:c2ln"))):
        error = await refusal(asked)
        assert isinstance(error, UnauthenticatedError)
        assert "s3v4" in error.hint


@pytest.mark.usefixtures("enrolled")
async def test_a_signed_request_with_the_devices_certificate_proves_it(
    gate: Authenticator, ask: Ask, add_key: Callable[..., str], signed: Callable[..., None], refusal: Refusal
) -> None:
    add_key(device=LAPTOP)
    signed()
    assert (await gate.authenticate(ask(AWS, certificate=CERTIFICATE))).device_proven
    assert isinstance(await refusal(ask(AWS, certificate=OTHER_CERTIFICATE)), InvalidRequestError)


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"networks": ("10.0.0.0/8",)}, "key_used_from_elsewhere"),
        ({"lifetime": timedelta(seconds=5)}, "key_expired"),
        ({"subject": EntityUid.of("User", "omar")}, "key_unknown"),
        ({"device": EntityUid.of("Device", "lost")}, "device_inactive"),
    ],
)
async def test_a_signature_that_verifies_does_not_lift_its_keys_bounds(
    ask: Ask,
    add_key: Callable[..., str],
    signed: Callable[..., None],
    refusal: Refusal,
    clock: ManualClock,
    bounds: dict[str, Any],
    reason: str,
) -> None:
    add_key(**bounds)
    signed()
    clock.advance(5)
    assert (await refusal(ask(AWS))).reason == reason


async def test_a_presigned_request_ends_with_its_url_or_its_key_whichever_is_first(
    gate: Authenticator,
    ask: Ask,
    add_key: Callable[..., str],
    signed: Callable[..., None],
    clock: ManualClock,
) -> None:
    add_key(lifetime=timedelta(seconds=100))
    for seconds, first in ((50, 50), (200, 100)):
        signed(expires=clock.now() + timedelta(seconds=seconds))
        caller = await gate.authenticate(ask(AWS))
        assert caller.expires == clock.now() + timedelta(seconds=first)


async def test_a_keys_session_is_as_old_as_the_key(
    gate: Authenticator, bearer: Ask, add_key: Callable[..., str], clock: ManualClock
) -> None:
    text, made = add_key(), clock.now()
    clock.advance(1000)
    assert (await gate.authenticate(bearer(text))).signed_in_at == made
