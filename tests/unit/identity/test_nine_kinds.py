"""Nine kinds of credential: the good one is let in, and each of its tamperings is refused, by name.

JWT access tokens, opaque tokens, certificate-bound tokens, API keys and AWS signatures stand here. The tables of
DPoP, X.509-SVIDs, JWT-SVIDs and client assertions stand in the files of those names.
"""

# ruff: noqa: PLR0913, PLR0917, E501 -- fixtures are arguments; a table reads better in one line each
from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from doorward.core.clock import ManualClock
from doorward.core.errors import DoorwardError, InvalidRequestError, UnauthenticatedError
from doorward.core.identity import KeyRecord
from doorward.core.model import EntityUid
from doorward.core.onetime import MemoryOneTime
from doorward.core.wire import Request
from doorward.identity import api_keys
from doorward.identity.authenticate import Authenticator
from doorward.settings import IntrospectionSettings, IssuerSettings
from support.s3_requests import KEY_ID, NOW, SECRET, signed

DANA, LAPTOP = EntityUid.of("User", "dana"), EntityUid.of("Device", "laptop-7")
GATE, IDP, ASKED = "https://gate.example", "https://idp.example", "https://asked.example"
DER, OTHER_DER = b"der of the laptop", b"der of the phone"


def x5t(der: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


# 1. JWT access tokens (RFC 9068)

JWT: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "https://other.example"},
    "an audience below it that is another upstream's": {"aud": f"{GATE}/store"},
    "an audience that only begins alike": {"aud": f"{GATE}.evil.example"},
    "another issuer": {"iss": "https://other.example"},
    "an issuer with a slash more": {"iss": f"{IDP}/"},
    "expired": {"exp": 1},
    "no end": {"exp": ...},
    "not yet": {"nbf": 4_000_000_000},
    "issued later": {"iat": 4_000_000_000},
    "no subject": {"sub": ...},
    "no client": {"client_id": ...},
    "no id": {"jti": ...},
    "a subject nobody linked": {"sub": "00u2"},
    "an id token's type": {"header": {"typ": "JWT"}},
    "no algorithm": {"header": {"alg": "none"}},
    "a shared secret's algorithm": {"header": {"alg": "HS256"}},
    "another key": {"key": "ec-other", "header": {"kid": "ec"}},
    "a key of its own": {"header": {"jwk": {"kty": "oct", "k": "AAAA"}}},
    "a key elsewhere": {"header": {"jku": "https://evil.example/k"}},
    "a critical extension": {"header": {"crit": ["exp"]}},
    "bound to a key that is not shown": {"cnf": {"jkt": "x" * 43}},
    "a chain of delegation": {"act": {"sub": "x"}},
}


@pytest.mark.parametrize("name", JWT)
async def test_a_tampered_jwt_is_refused(
    gate: Authenticator, refusal: Any, bearer: Any, idp: Any, name: str
) -> None:
    assert (await gate.authenticate(bearer(idp.token()))).principal == DANA
    assert isinstance(await refusal(bearer(idp.token(**JWT[name]))), UnauthenticatedError)


# 2. Opaque tokens (RFC 7662)


class Asked:
    """An issuer that is asked about tokens; `said` is what it answers."""

    def __init__(self, clock: ManualClock) -> None:
        now = int(clock.now().timestamp())
        self.said: dict[str, Any] = {
            "active": True, "sub": "00u1", "client_id": "notebook", "aud": GATE, "iss": ASKED,
            "iat": now, "exp": now + 600, "token_type": "Bearer",
        }  # fmt: skip
        self.raw: bytes | None = None
        self.kind = "application/json"
        self.posts: list[dict[str, str]] = []

    async def fetch(self, url: str) -> bytes:
        key = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
        if url.endswith("/jwks"):
            return json.dumps({"keys": [key]}).encode()
        return json.dumps(
            {"issuer": ASKED, "jwks_uri": f"{ASKED}/jwks", "introspection_endpoint": f"{ASKED}/ask"}
        ).encode()

    async def post(self, url: str, form: Any, headers: Any) -> tuple[str, bytes]:
        assert (url, headers["Authorization"][:6]) == (f"{ASKED}/ask", "Basic ")
        self.posts.append(dict(form))
        said = {name: value for name, value in self.said.items() if value is not ...}
        return self.kind, self.raw if self.raw is not None else json.dumps(said).encode()


@pytest.fixture
def asked(clock: ManualClock) -> Asked:
    return Asked(clock)


@pytest.fixture
def asking(registry: Any, clock: ManualClock, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> Authenticator:
    monkeypatch.setenv("ASKED_SECRET", "s3cret")
    registry.links[ASKED, "00u1"] = DANA
    how = IntrospectionSettings(client_id="doorward", client_secret="${ASKED_SECRET}")
    setting = IssuerSettings(issuer=ASKED, audience=GATE, introspection=how)
    return Authenticator(
        registry.snapshot, [setting], dict, clock, GATE, one_time=MemoryOneTime(clock),
        fetch=asked.fetch, post=asked.post,
    )  # fmt: skip


OPAQUE: dict[str, dict[str, Any]] = {
    "not active": {"active": False},
    "active in words": {"active": "true"},
    "active as a number": {"active": 1},
    "no word on it": {"active": ...},
    "another audience": {"aud": "https://other.example"},
    "several audiences": {"aud": [GATE, "https://other.example"]},
    "no audience": {"aud": ...},
    "another issuer": {"iss": IDP},
    "expired": {"exp": 1},
    "no end": {"exp": ...},
    "an end in words": {"exp": "later"},
    "not yet": {"nbf": 4_000_000_000},
    "no subject and no client": {"sub": ..., "client_id": ...},
    "a subject of another type": {"sub": 7},
    "a subject nobody linked": {"sub": "00u2"},
    "a refresh token": {"token_type": "refresh_token"},
    "bound to a key that is not shown": {"cnf": {"jkt": "x" * 43}},
    "bound to a certificate that is not shown": {"cnf": {"x5t#S256": "x" * 43}},
    "a chain of delegation": {"act": {"sub": "x"}},
}


@pytest.mark.parametrize("name", OPAQUE)
async def test_an_opaque_token_of_which_its_issuer_says_otherwise_is_refused(
    asking: Authenticator, refusal: Any, bearer: Any, asked: Asked, name: str
) -> None:
    assert (await asking.authenticate(bearer("opaque-token-1"))).principal == DANA
    asked.said |= OPAQUE[name]
    assert isinstance(await refusal(bearer("opaque-token-2"), asking), UnauthenticatedError)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"active":true,"active":false}', b"\xff", b"null", b"true"]
)
async def test_an_answer_that_is_no_answer_is_refused(
    asking: Authenticator, refusal: Any, bearer: Any, asked: Asked, raw: bytes
) -> None:
    asked.raw = raw
    assert isinstance(await refusal(bearer("opaque-token-1"), asking), UnauthenticatedError)
    asked.raw, asked.kind = None, "text/html"
    assert isinstance(await refusal(bearer("opaque-token-2"), asking), UnauthenticatedError)


async def test_a_token_is_shown_to_the_issuer_it_can_be_of_and_to_nobody_else(
    registry: Any,
    clock: ManualClock,
    refusal: Any,
    bearer: Any,
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASKED_SECRET", "s3cret")
    how = IntrospectionSettings(client_id="doorward", client_secret="${ASKED_SECRET}", prefix="asked_")
    gate = Authenticator(
        registry.snapshot, [IssuerSettings(issuer=ASKED, audience=GATE, introspection=how)], dict, clock, GATE,
        one_time=MemoryOneTime(clock), fetch=asked.fetch, post=asked.post,
    )  # fmt: skip
    assert (await refusal(bearer("other_token_of_somebody"), gate)).reason == "token_not_compact_jws"
    assert asked.posts == []
    await refusal(bearer("asked_token_of_somebody"), gate)
    assert asked.posts[0]["token"] == "asked_token_of_somebody"
    # A JWT is verified here: its issuer need not be asked, and nobody else may see it.
    await refusal(bearer("e30.e30.AAAA"), gate)
    assert len(asked.posts) == 1


# 3. Certificate-bound tokens and client certificates (RFC 8705)

BOUND: dict[str, tuple[dict[str, Any], bytes | None]] = {
    "no certificate": ({"x5t#S256": x5t(DER)}, None),
    "another device's certificate": ({"x5t#S256": x5t(DER)}, OTHER_DER),
    "an unknown certificate": ({"x5t#S256": x5t(b"unknown")}, b"unknown"),
    "a thumbprint in hex": ({"x5t#S256": hashlib.sha256(DER).hexdigest()}, DER),
    "a padded thumbprint": ({"x5t#S256": x5t(DER) + "="}, DER),
    "a short thumbprint": ({"x5t#S256": x5t(DER)[:-1]}, DER),
    "a thumbprint of another type": ({"x5t#S256": 7}, DER),
    "an empty thumbprint": ({"x5t#S256": ""}, DER),
    "an old hash": ({"x5t": x5t(DER)}, DER),
    "another confirmation beside it": ({"x5t#S256": x5t(DER), "kid": "1"}, DER),
    "no confirmation in it": ({}, DER),
    "a proof key that is not shown, too": ({"x5t#S256": x5t(DER), "jkt": "x" * 43}, DER),
}


@pytest.mark.parametrize("name", BOUND)
async def test_a_bound_token_without_its_certificate_is_refused(
    gate: Authenticator, refusal: Any, bearer: Any, idp: Any, registry: Any, name: str
) -> None:
    registry.certificates |= {
        hashlib.sha256(DER).hexdigest(): LAPTOP,
        hashlib.sha256(OTHER_DER).hexdigest(): EntityUid.of("Device", "phone-1"),
    }
    good = idp.token(cnf={"x5t#S256": x5t(DER)})
    caller = await gate.authenticate(bearer(good, certificate=DER))
    assert (caller.principal, caller.device, caller.device_proven) == (DANA, LAPTOP, True)
    confirmation, certificate = BOUND[name]
    asked = bearer(idp.token(cnf=confirmation), certificate=certificate)
    assert isinstance(await refusal(asked), UnauthenticatedError)


# 4. API keys


@pytest.fixture
def key(registry: Any, clock: ManualClock) -> Callable[..., str]:
    def make(**more: Any) -> str:
        number = len(registry.keys)
        subject = more.pop("subject", DANA)
        record, text = api_keys.create(key_id=f"K{number}", subject=subject, now=clock.now(), **more)
        registry.keys.append(record)
        return text.reveal()

    return make


KEYS: dict[str, Callable[[Callable[..., str], Any], tuple[tuple[str, str], ...]]] = {
    "a letter changed": lambda key, _: _bearer(_swap(key())),
    "cut": lambda key, _: _bearer(key()[:-1]),
    "longer": lambda key, _: _bearer(key() + "A"),
    "its hash": lambda key, _: _bearer("dw_" + hashlib.sha256(key().encode()).hexdigest()[:49]),
    "its id": lambda key, _: _bearer(f"dw_{'K0' + key()[5:]}"),
    "revoked": lambda key, registry: _bearer(_revoked(key(), registry)),
    "expired": lambda key, _: _bearer(key(lifetime=timedelta(0))),
    "from another network": lambda key, _: _bearer(key(networks=("10.0.0.0/8",))),
    "of somebody inactive": lambda key, _: _bearer(key(subject=EntityUid.of("User", "gone"))),
    "of a lost device": lambda key, _: _bearer(key(device=EntityUid.of("Device", "lost"))),
    "another key beside it": lambda key, _: (*_bearer(key()), ("x-api-key", key())),
    "twice in a list": lambda key, _: _bearer(f"{key()}, {key()}"),
    "as a password": lambda key, _: (("authorization", f"Basic {key()}"),),
    "as a proof of possession": lambda key, _: (("authorization", f"DPoP {key()}"), ("dpop", "x")),
    "with a loose proof": lambda key, _: (*_bearer(key()), ("dpop", "x")),
}


def _bearer(text: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {text}"),)


def _swap(text: str) -> str:
    return text[:10] + ("A" if text[10] != "A" else "B") + text[11:]


def _revoked(text: str, registry: Any) -> str:
    registry.keys.pop()
    return text


@pytest.mark.parametrize("name", KEYS)
async def test_a_tampered_key_is_refused(
    gate: Authenticator, refusal: Any, ask: Any, key: Callable[..., str], registry: Any, name: str
) -> None:
    assert (await gate.authenticate(ask(*_bearer(key())))).principal == DANA
    error = await refusal(ask(*KEYS[name](key, registry)))
    assert isinstance(error, UnauthenticatedError | InvalidRequestError)


# 5. AWS signatures with a Doorward key


def changed(request: Request, **parts: Any) -> Request:
    return msgspec.structs.replace(request, **parts)


def with_header(request: Request, name: str, value: str) -> Request:
    kept = tuple((key, text) for key, text in request.headers if key != name)
    return changed(request, headers=(*kept, (name, value)))


def get() -> Request:
    return signed("GET", "/store/training/a.csv")


SIGNED: dict[str, Callable[[], Request]] = {
    "another method": lambda: changed(get(), method="HEAD"),
    "another path": lambda: changed(get(), raw_path="/store/training/b.csv"),
    "another query": lambda: changed(get(), raw_query="versionId=1"),
    "another host": lambda: with_header(get(), "host", "evil.example"),
    "another date": lambda: with_header(get(), "x-amz-date", "20261123T115900Z"),
    "another payload": lambda: with_header(get(), "x-amz-content-sha256", "0" * 64),
    "no payload hash": lambda: changed(
        get(), headers=tuple(h for h in get().headers if h[0] != "x-amz-content-sha256")
    ),
    "an unknown payload": lambda: with_header(get(), "x-amz-content-sha256", "WHATEVER"),
    "a header that is not signed": lambda: with_header(get(), "x-amz-meta-a", "b"),
    "a session token": lambda: with_header(get(), "x-amz-security-token", "x"),
    "another secret": lambda: signed("GET", "/store/a", secret="wrong" + SECRET),
    "an unknown key": lambda: signed("GET", "/store/a", key_id="DWunknown"),
    "a broken signature": lambda: with_header(
        get(), "authorization", (get().header("authorization") or "")[:-1] + "x"
    ),
    "no signature": lambda: with_header(get(), "authorization", "AWS4-HMAC-SHA256 Credential=x"),
    "a second credential": lambda: with_header(get(), "x-api-key", "dw_x"),
    "signed long ago": lambda: signed("GET", "/store/a", at=NOW - timedelta(seconds=301)),
    "signed ahead": lambda: signed("GET", "/store/a", at=NOW + timedelta(seconds=301)),
}


@pytest.fixture
def store_gate(registry: Any) -> Authenticator:
    registry.keys.append(
        KeyRecord(id="k1", hash="h", subject=DANA, created=NOW, access_key_id=KEY_ID, s3_secret=SECRET)
    )
    clock = ManualClock(NOW)
    return Authenticator(registry.snapshot, [], dict, clock, GATE, one_time=MemoryOneTime(clock))


@pytest.mark.parametrize("name", SIGNED)
async def test_a_tampered_signature_is_refused(store_gate: Authenticator, refusal: Any, name: str) -> None:
    assert (await store_gate.authenticate(get())).principal == DANA
    error = await refusal(SIGNED[name](), store_gate)
    assert isinstance(error, UnauthenticatedError | InvalidRequestError)
    if isinstance(error, UnauthenticatedError):
        assert error.reason
        assert error.challenge.startswith("Bearer ")


async def test_a_signed_write_works_once_and_a_presigned_one_never(
    store_gate: Authenticator, refusal: Any
) -> None:
    write = signed("PUT", "/store/training/a.csv", body=b"x")
    assert await store_gate.authenticate(write)
    store_gate._clock.advance(3)  # type: ignore[attr-defined]  # noqa: SLF001 -- past what an SDK sends twice
    assert (await refusal(write, store_gate)).reason == "signature_replayed"
    presigned = signed("PUT", "/store/training/a.csv", presign=60)
    assert isinstance(await refusal(presigned, store_gate), DoorwardError)


# Whatever the kind


async def test_no_refusal_says_what_was_shown(
    gate: Authenticator, refusal: Any, ask: Any, key: Callable[..., str], idp: Any
) -> None:
    secrets = [key()[:-1], idp.token(exp=1), "opaque-secret-token"]
    for secret in secrets:
        error = await refusal(ask(*_bearer(secret)))
        shown = f"{error!r} {error} {error.challenge} {error.reason} {error.hint}"
        assert secret not in shown
        assert secret[5:20] not in shown
    assert gate is not None


async def test_identity_is_issuer_and_subject_and_nothing_that_looks_like_a_person(
    registry: Any, clock: ManualClock, refusal: Any, bearer: Any, idp: Any
) -> None:
    other = type(idp)("https://other.example", clock)

    async def fetch(url: str) -> bytes:
        return await (other if url.startswith(other.issuer) else idp).fetch(url)

    settings = [IssuerSettings(issuer=one.issuer, audience=GATE) for one in (idp, other)]
    gate = Authenticator(
        registry.snapshot, settings, dict, clock, GATE, one_time=MemoryOneTime(clock), fetch=fetch
    )
    # The same subject of another issuer is somebody else, whatever mail or name it carries.
    words = {
        "email": "dana@example.com",
        "email_verified": True,
        "preferred_username": "dana",
        "name": "dana",
    }
    assert (await gate.authenticate(bearer(idp.token()))).principal == DANA
    assert (await refusal(bearer(other.token(**words)), gate)).reason == "identity_not_linked"
    registry.links["https://other.example", "00u1"] = EntityUid.of("User", "omar")
    assert (await gate.authenticate(bearer(other.token(**words)))).principal == EntityUid.of("User", "omar")
    # A subject that is used again after its holder was removed is nobody until it is linked again.
    del registry.links[IDP, "00u1"]
    assert (await refusal(bearer(idp.token(**words)), gate)).reason == "identity_not_linked"
