"""private_key_jwt (RFC 7523): a good assertion once, and every tampering by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, OKPKey

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.core.identity import KeyRecord
from doorward.core.model import EntityUid
from doorward.core.onetime import MemoryOneTime
from doorward.identity.assertions import AssertionVerifier
from doorward.identity.client_authentication import SignedAssertion
from doorward.identity.strict_jose import TokenFaultError
from support.proofs import sign

US = "https://control.example"
KEY, OTHER = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
ED = OKPKey.generate_key("Ed25519")


def pem(key: Any) -> bytes:
    return key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Clients:
    """The registered keys of each client, and what verifies by them."""

    def __init__(self, clock: ManualClock, *, capacity: int = 1000, **keys: Any) -> None:
        one_time = MemoryOneTime(clock, capacity=capacity)
        self._verifier = AssertionVerifier(audiences=(US,), one_time=one_time, clock=clock)
        self._records = {
            name: KeyRecord(
                id=f"K-{name}", hash=name, subject=EntityUid.of("Service", name), created=clock.now(),
                public_key=key,
            )
            for name, key in keys.items()
        }  # fmt: skip

    def _registered(self, client: str, kid: str | None) -> list[KeyRecord]:
        known = client in self._records and kid in {None, "k1", self._records[client].public_key.get("kid")}
        return [self._records[client]] if known else []

    async def verify(self, text: str) -> str:
        client, record = await self._verifier.verify(text, self._registered)
        assert record.subject.id == client
        return client


@pytest.fixture
def verifier(clock: ManualClock) -> Clients:
    keys = {"etl": KEY, "two": OTHER, "ed": ED}
    return Clients(clock, **{name: key.as_dict(private=False) for name, key in keys.items()})


@pytest.fixture
def make(clock: ManualClock) -> Callable[..., str]:
    def assertion(*, header: dict[str, Any] | None = None, key: Any = KEY, **changes: Any) -> str:
        now = int(clock.now().timestamp())
        claims = {"iss": "etl", "sub": "etl", "aud": US, "iat": now, "exp": now + 60, "jti": "j1", **changes}
        head = {"alg": "ES256", "typ": "JWT", "kid": "k1", **(header or {})}
        return sign(
            {name: value for name, value in head.items() if value is not ...},
            {name: value for name, value in claims.items() if value is not ...},
            key,
            "ES256",
        )

    return assertion


async def test_a_client_is_known_by_its_key_and_an_assertion_works_once(
    verifier: Clients, make: Callable[..., str]
) -> None:
    assert await verifier.verify(make()) == "etl"
    with pytest.raises(TokenFaultError, match="assertion_replayed"):
        await verifier.verify(make())
    assert await verifier.verify(make(jti="j2")) == "etl"


async def test_one_assertion_sent_fifty_times_at_once_is_accepted_once(
    verifier: Clients, make: Callable[..., str]
) -> None:
    text = make()
    answers = await asyncio.gather(*(verifier.verify(text) for _ in range(50)), return_exceptions=True)
    assert answers.count("etl") == 1


TAMPERINGS: dict[str, tuple[dict[str, Any], str]] = {
    "another key": ({"key": OTHER}, "assertion_signature_invalid"),
    "another client's name": ({"iss": "two", "sub": "two"}, "assertion_signature_invalid"),
    "issuer and subject differ": ({"sub": "two"}, "assertion_not_by_the_client"),
    "no issuer": ({"iss": ...}, "assertion_not_by_the_client"),
    "an unknown client": ({"iss": "x", "sub": "x"}, "assertion_signature_invalid"),
    "an unknown key": ({"header": {"kid": "k9"}}, "assertion_signature_invalid"),
    "another server": ({"aud": "https://other.example"}, "assertion_for_another"),
    "several servers": ({"aud": [US, "https://other.example"]}, "assertion_for_another"),
    "no server": ({"aud": ...}, "assertion_for_another"),
    "expired": ({"exp": 1}, "assertion_expired"),
    "no end": ({"exp": ...}, "assertion_exp_invalid"),
    "an end of another type": ({"exp": "soon"}, "assertion_exp_invalid"),
    "a long life": ({"exp": 4_000_000_000}, "assertion_lives_too_long"),
    "not yet": ({"nbf": 4_000_000_000}, "assertion_from_the_future"),
    "issued later": ({"iat": 4_000_000_000}, "assertion_from_the_future"),
    "no id": ({"jti": ...}, "assertion_jti_invalid"),
    "an empty id": ({"jti": ""}, "assertion_jti_invalid"),
    "no algorithm": ({"header": {"alg": "none"}}, "assertion_algorithm_not_allowed"),
    "a shared secret's algorithm": ({"header": {"alg": "HS256"}}, "assertion_algorithm_not_allowed"),
    "another family's algorithm": ({"header": {"alg": "RS256"}}, "assertion_signature_invalid"),
    "an access token's type": ({"header": {"typ": "at+jwt"}}, "assertion_header_has_more"),
    "a key of its own": ({"header": {"jwk": OTHER.as_dict(private=False)}}, "assertion_header_has_more"),
    "a critical extension": ({"header": {"crit": ["exp"]}}, "assertion_header_has_more"),
    "an id of another type": ({"jti": 7}, "assertion_jti_invalid"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_a_tampered_assertion_is_refused_for_its_reason_and_spends_nothing(
    verifier: Clients, make: Callable[..., str], name: str
) -> None:
    changes, reason = TAMPERINGS[name]
    with pytest.raises(TokenFaultError) as caught:
        await verifier.verify(make(**changes))
    assert str(caught.value) == reason
    # Nothing was spent: the good one still works.
    assert await verifier.verify(make()) == "etl"


async def test_no_assertion_is_refused(verifier: Clients) -> None:
    with pytest.raises(TokenFaultError, match="token_not_compact_jws"):
        await verifier.verify("")


async def test_replays_cannot_be_told_means_refused_for_now(
    clock: ManualClock, make: Callable[..., str]
) -> None:
    with pytest.raises(UnavailableError):
        await Clients(clock, capacity=0, etl=KEY.as_dict(private=False)).verify(make())


@pytest.mark.parametrize(("key", "client"), [(KEY, "etl"), (ED, "ed")])
async def test_our_own_assertions_verify_by_the_same_rules(clock: ManualClock, key: Any, client: str) -> None:
    own = SignedAssertion(client, pem(key), clock=clock)
    clients = Clients(clock, **{client: dict(own.public_key())})
    for _ in range(2):
        form, headers = own.of(US)
        assert headers == {}
        assert await clients.verify(dict(form)["client_assertion"]) == client


@pytest.mark.parametrize("text", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_cannot_sign_is_a_configuration_error(clock: ManualClock, text: bytes) -> None:
    with pytest.raises(InvalidConfigError):
        SignedAssertion("etl", text, clock=clock)
