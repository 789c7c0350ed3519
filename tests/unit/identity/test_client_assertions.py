"""private_key_jwt (RFC 7523): a good assertion once, and every tampering by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, OKPKey

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidConfigError, UnauthenticatedError, UnavailableError
from doorward.core.onetime import MemoryOneTime
from doorward.identity.client_assertions import ClientAssertions
from doorward.identity.client_authentication import ASSERTION_TYPE, SignedAssertion
from doorward.identity.key_sets import read_key_set
from support.proofs import sign

US = "https://control.example"
KEY, OTHER = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
ED = OKPKey.generate_key("Ed25519")


def pem(key: Any) -> bytes:
    return key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def verifier(clock: ManualClock) -> ClientAssertions:
    keys = {
        "etl": read_key_set({"keys": [{**KEY.as_dict(private=False), "kid": "k1"}]}),
        "two": read_key_set({"keys": [{**OTHER.as_dict(private=False), "kid": "k1"}]}),
        "ed": read_key_set({"keys": [ED.as_dict(private=False)]}),
    }
    return ClientAssertions(keys.get, issuer=lambda: US, one_time=MemoryOneTime(clock), clock=clock)


@pytest.fixture
def make(clock: ManualClock) -> Callable[..., dict[str, str]]:
    def form(
        *,
        header: dict[str, Any] | None = None,
        key: Any = KEY,
        extra: dict[str, str] | None = None,
        **changes: Any,
    ) -> dict[str, str]:
        now = int(clock.now().timestamp())
        claims = {"iss": "etl", "sub": "etl", "aud": US, "iat": now, "exp": now + 60, "jti": "j1", **changes}
        head = {"alg": "ES256", "typ": "JWT", "kid": "k1", **(header or {})}
        text = sign(
            {name: value for name, value in head.items() if value is not ...},
            {name: value for name, value in claims.items() if value is not ...},
            key,
            "ES256",
        )
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": text, **(extra or {})}

    return form


async def test_a_client_is_known_by_its_key_and_an_assertion_works_once(
    verifier: ClientAssertions, make: Callable[..., dict[str, str]]
) -> None:
    assert await verifier.verify(make()) == "etl"
    with pytest.raises(UnauthenticatedError) as caught:
        await verifier.verify(make())
    assert caught.value.reason == "assertion_replayed"
    assert await verifier.verify(make(jti="j2")) == "etl"


async def test_one_assertion_sent_fifty_times_at_once_is_accepted_once(
    verifier: ClientAssertions, make: Callable[..., dict[str, str]]
) -> None:
    form = make()
    answers = await asyncio.gather(*(verifier.verify(form) for _ in range(50)), return_exceptions=True)
    assert answers.count("etl") == 1


TAMPERINGS: dict[str, tuple[dict[str, Any], str]] = {
    "another key": ({"key": OTHER}, "assertion_signature_invalid"),
    "another client's name": ({"iss": "two", "sub": "two"}, "assertion_signature_invalid"),
    "issuer and subject differ": ({"sub": "two"}, "assertion_for_another_client"),
    "no issuer": ({"iss": ...}, "assertion_for_another_client"),
    "another client in the form": ({"extra": {"client_id": "two"}}, "assertion_for_another_client"),
    "an unknown client": ({"iss": "x", "sub": "x"}, "assertion_key_unknown"),
    "an unknown key": ({"header": {"kid": "k9"}}, "assertion_key_unknown"),
    "another server": ({"aud": "https://other.example"}, "assertion_for_another_server"),
    "several servers": ({"aud": [US, "https://other.example"]}, "assertion_for_another_server"),
    "no server": ({"aud": ...}, "assertion_for_another_server"),
    "expired": ({"exp": 1}, "assertion_expired"),
    "no end": ({"exp": ...}, "assertion_exp_invalid"),
    "an end of another type": ({"exp": "soon"}, "assertion_exp_invalid"),
    "a long life": ({"exp": 4_000_000_000}, "assertion_lives_too_long"),
    "not yet": ({"nbf": 4_000_000_000}, "assertion_not_yet_valid"),
    "issued later": ({"iat": 4_000_000_000}, "assertion_not_yet_valid"),
    "no id": ({"jti": ...}, "assertion_jti_invalid"),
    "an empty id": ({"jti": ""}, "assertion_jti_invalid"),
    "no algorithm": ({"header": {"alg": "none"}}, "assertion_algorithm_not_allowed"),
    "a shared secret's algorithm": ({"header": {"alg": "HS256"}}, "assertion_algorithm_not_allowed"),
    "another family's algorithm": ({"header": {"alg": "RS256"}}, "assertion_key_unknown"),
    "an access token's type": ({"header": {"typ": "at+jwt"}}, "assertion_header_has_more"),
    "a key of its own": ({"header": {"jwk": OTHER.as_dict(private=False)}}, "assertion_header_has_more"),
    "a critical extension": ({"header": {"crit": ["exp"]}}, "assertion_header_has_more"),
    "another type of assertion": (
        {"extra": {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"}},
        "assertion_missing",
    ),
    "a secret beside it": ({"extra": {"client_secret": "x"}}, "assertion_missing"),
    "no assertion": ({"extra": {"client_assertion": ""}}, "token_not_compact_jws"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_a_tampered_assertion_is_refused_and_all_look_alike(
    verifier: ClientAssertions, make: Callable[..., dict[str, str]], name: str
) -> None:
    changes, reason = TAMPERINGS[name]
    with pytest.raises(UnauthenticatedError) as caught:
        await verifier.verify(make(**changes))
    assert caught.value.reason == reason
    assert caught.value.message == "the client is not accepted"
    # Nothing was spent: the good one still works.
    assert await verifier.verify(make()) == "etl"


async def test_replays_cannot_be_told_means_refused_for_now(
    clock: ManualClock, make: Callable[..., dict[str, str]]
) -> None:
    keys = read_key_set({"keys": [{**KEY.as_dict(private=False), "kid": "k1"}]})
    full = MemoryOneTime(clock, capacity=0)
    verifier = ClientAssertions(lambda _: keys, issuer=lambda: US, one_time=full, clock=clock)
    with pytest.raises(UnavailableError):
        await verifier.verify(make())


@pytest.mark.parametrize(("key", "client"), [(KEY, "etl"), (ED, "ed")])
async def test_our_own_assertions_verify_by_the_same_rules(clock: ManualClock, key: Any, client: str) -> None:
    own = SignedAssertion(client, pem(key), clock=clock)
    public = read_key_set({"keys": [dict(own.public_key())]})
    verifier = ClientAssertions(
        lambda _: public, issuer=lambda: US, one_time=MemoryOneTime(clock), clock=clock
    )
    for _ in range(2):
        form, headers = own.of(US)
        assert headers == {}
        assert await verifier.verify(dict(form)) == client


@pytest.mark.parametrize("text", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_cannot_sign_is_a_configuration_error(clock: ManualClock, text: bytes) -> None:
    with pytest.raises(InvalidConfigError):
        SignedAssertion("etl", text, clock=clock)
