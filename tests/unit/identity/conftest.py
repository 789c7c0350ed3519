"""A registry, an identity provider and a request, all in memory."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from doorward.core.clock import ManualClock
from doorward.core.errors import DoorwardError, UnavailableError
from doorward.core.identity import KeyRecord, SignOut
from doorward.core.model import EntityUid
from doorward.core.onetime import MemoryOneTime
from doorward.core.wire import NoBody, Peer, Request
from doorward.identity.authenticate import Authenticator
from doorward.identity.nonces import Nonces
from doorward.settings import IssuerSettings

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
IDP = "https://idp.example"
GATE = "https://gate.example"
DANA = EntityUid.of("User", "dana")
OMAR = EntityUid.of("User", "omar")
LAPTOP = EntityUid.of("Device", "laptop-7")
PHONE = EntityUid.of("Device", "phone-1")
KEYS = {
    "rsa": RSAKey.generate_key(2048),
    "rsa-other": RSAKey.generate_key(2048),
    "rsa-1024": RSAKey.import_key(
        rsa.generate_private_key(65537, 1024).private_bytes(  # noqa: S505 -- weak on purpose
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    ),
    "ec": ECKey.generate_key("P-256"),
    "ec-other": ECKey.generate_key("P-256"),
    "ec-384": ECKey.generate_key("P-384"),
    "ed": OKPKey.generate_key("Ed25519"),
}


@dataclass
class Registry:
    """The port CredentialRegistry, changed by tests as an administrator would."""

    active: set[EntityUid] = field(default_factory=lambda: {DANA, OMAR, LAPTOP, PHONE})
    keys: list[KeyRecord] = field(default_factory=list)
    links: dict[tuple[str, str], EntityUid] = field(default_factory=lambda: {(IDP, "00u1"): DANA})
    certificates: dict[str, EntityUid] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    sign_outs: dict[EntityUid, SignOut] = field(default_factory=dict)
    last: Registry | None = field(default=None, compare=False, repr=False)

    def snapshot(self) -> Registry:
        """Return what is known now: like a real one it never changes, a change is another one."""
        if self.last is not None and self.last == self:
            return self.last
        self.last = replace(
            self,
            last=None,
            active=set(self.active),
            keys=list(self.keys),
            links=dict(self.links),
            certificates=dict(self.certificates),
            revoked=set(self.revoked),
            sign_outs=dict(self.sign_outs),
        )
        return self.last

    def _key(self, name: str, value: str) -> KeyRecord | None:
        return next((key for key in self.keys if getattr(key, name) == value), None)

    def key_by_hash(self, digest: str) -> KeyRecord | None:
        return self._key("hash", digest)

    def key_by_access_key_id(self, access_key_id: str) -> KeyRecord | None:
        return self._key("access_key_id", access_key_id)

    def key_by_id(self, key_id: str) -> KeyRecord | None:
        return self._key("id", key_id)

    def principal_of(self, issuer: str, subject: str) -> EntityUid | None:
        return self.links.get((issuer, subject))

    def device_of_certificate(self, fingerprint: str, now: datetime) -> EntityUid | None:
        del now
        return self.certificates.get(fingerprint)

    def token_revoked(self, jti: str) -> bool:
        return jti in self.revoked

    def sign_out_of(self, principal: EntityUid) -> SignOut | None:
        return self.sign_outs.get(principal)

    def is_active(self, principal: EntityUid) -> bool:
        return principal in self.active


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Idp:
    """An identity provider: what it publishes, what it signs, how often it was asked."""

    def __init__(self, issuer: str, clock: ManualClock) -> None:
        self.issuer, self.clock = issuer, clock
        self.published: list[dict[str, Any]] = [self.public("rsa"), self.public("ec"), self.public("ed")]
        self.down = False
        self.hold: asyncio.Event | None = None
        self.asked: list[str] = []
        self.documents: dict[str, bytes] = {}
        self._next = 0

    def public(self, name: str, **members: Any) -> dict[str, Any]:
        return {**KEYS[name].as_dict(private=False), "kid": name, "use": "sig", **members}

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if self.hold is not None:
            await self.hold.wait()
        if self.down:
            raise UnavailableError("down")
        if url in self.documents:
            return self.documents[url]
        if url == f"{self.issuer}/.well-known/openid-configuration":
            return json.dumps({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"}).encode()
        if url == f"{self.issuer}/jwks":
            return json.dumps({"keys": self.published}).encode()
        raise UnavailableError(f"{url} answered 404")

    def claims(self, **changes: Any) -> dict[str, Any]:
        self._next += 1
        now = int(self.clock.now().timestamp())
        claims = {
            "iss": self.issuer, "sub": "00u1", "aud": GATE, "client_id": "notebook",
            "iat": now, "exp": now + 600, "jti": f"token-{self._next}",
        }  # fmt: skip
        claims.update(changes)
        return {name: value for name, value in claims.items() if value is not ...}

    def token(
        self,
        *,
        key: str = "ec",
        alg: str = "ES256",
        header: dict[str, Any] | None = None,
        raw_header: bytes | None = None,
        raw_payload: bytes | None = None,
        **changes: Any,
    ) -> str:
        """Sign a token; `...` as a value leaves a member out."""
        members = {"alg": alg, "typ": "at+jwt", "kid": key, **(header or {})}
        members = {name: value for name, value in members.items() if value is not ...}
        head = raw_header if raw_header is not None else json.dumps(members).encode()
        body = raw_payload if raw_payload is not None else json.dumps(self.claims(**changes)).encode()
        signed = f"{b64(head)}.{b64(body)}"
        return f"{signed}.{b64(JWSRegistry.algorithms[alg].sign(signed.encode(), KEYS[key]))}"


def request(
    *headers: tuple[str, str],
    query: tuple[tuple[str, str], ...] = (),
    certificate: bytes | None = None,
    ip: str = "127.0.0.1",
) -> Request:
    return Request(
        id="r1",
        method="GET",
        path="/llm/v1/models",
        raw_path="/llm/v1/models",
        query=query,
        raw_query="&".join(f"{name}={value}" for name, value in query),
        headers=headers,
        peer=Peer(ip=ip, tls=certificate is not None, certificate=certificate),
        body=NoBody(),
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def idp(clock: ManualClock) -> Idp:
    return Idp(IDP, clock)


@pytest.fixture
def make_gate(clock: ManualClock, registry: Registry, idp: Idp) -> Callable[..., Authenticator]:
    def make(  # noqa: PLR0913 -- what a test may bend
        *,
        trust: tuple[str, ...] = (),
        jwks: dict[str, Any] | None = None,
        test_minting: bool = False,
        one_time: MemoryOneTime | None = None,
        nonces: Nonces | None = None,
        arrivals: Any = None,
        **more: Any,
    ) -> Authenticator:
        setting = IssuerSettings(issuer=IDP, audience=GATE, trust=trust, **more)
        return Authenticator(
            registry.snapshot,
            [setting],
            lambda: jwks or {},
            clock,
            GATE,
            test_minting=test_minting,
            fetch=idp.fetch,
            one_time=MemoryOneTime(clock) if one_time is None else one_time,
            nonces=nonces,
            arrivals=arrivals,
        )

    return make


@pytest.fixture
def gate(make_gate: Callable[..., Authenticator]) -> Authenticator:
    return make_gate()


@pytest.fixture
def ask() -> Callable[..., Request]:
    return request


@pytest.fixture
def bearer() -> Callable[..., Request]:
    def make(text: str, **more: Any) -> Request:
        return request(("authorization", f"Bearer {text}"), **more)

    return make


@pytest.fixture
def refusal(gate: Authenticator) -> Callable[..., Any]:
    """Return the error a request is refused with; a request that is let in fails the test."""

    async def refused(asked: Request, by: Authenticator | None = None) -> DoorwardError:
        try:
            caller = await (by or gate).authenticate(asked)
        except DoorwardError as error:
            return error
        pytest.fail(f"let in as {caller}")

    return refused
