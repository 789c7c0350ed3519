"""Discovery, rotation and outage against real HTTP: a small provider of ours, and one we did not write."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey
from oidc_provider_mock import run_server_in_thread

from doorward.core.clock import ManualClock
from doorward.core.errors import UnauthenticatedError, UnavailableError
from doorward.core.feed import Known
from doorward.core.identity import Caller, IdentityLink
from doorward.core.model import EntityUid
from doorward.core.onetime import MemoryOneTime
from doorward.core.values import uid_to_json
from doorward.core.wire import Peer, Request
from doorward.directory.snapshot import Snapshot
from doorward.identity import fetching
from doorward.identity.authenticate import Authenticator
from doorward.identity.fetching import HttpFetcher
from doorward.identity.issuer_keys import RETRY_INTERVAL, UNKNOWN_KEY_INTERVAL, FetchedKeys
from doorward.identity.key_sets import signature_holds
from doorward.identity.strict_jose import take_apart
from doorward.settings import IssuerSettings

GATE = "https://gate.example"
DANA = EntityUid.of("User", "dana")


@dataclass
class Provider:
    """An identity provider on loopback whose answers a test can bend."""

    port: int = 0
    keys: dict[str, ECKey] = field(default_factory=lambda: {"k1": ECKey.generate_key("P-256")})
    asked: list[str] = field(default_factory=list)
    bend: Any = None
    runner: web.AppRunner | None = None

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.bend is not None and (bent := await self.bend(request)) is not None:
            return bent
        match request.path:
            case "/.well-known/openid-configuration":
                return web.json_response({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"})
            case "/jwks":
                published = [{**key.as_dict(private=False), "kid": kid} for kid, key in self.keys.items()]
                return web.json_response({"keys": published})
        return web.Response(status=404)

    def token(self, clock: ManualClock, *, kid: str = "k1", key: ECKey | None = None, **header: Any) -> str:
        now = int(clock.now().timestamp())
        claims = {
            "iss": self.issuer, "sub": "00u1", "aud": GATE, "client_id": "notebook", "jti": "j1",
            "iat": now, "exp": now + 3600,
        }  # fmt: skip
        head = {"alg": "ES256", "typ": "at+jwt", "kid": kid, **header}
        return jwt.encode(head, claims, key or self.keys[kid], algorithms=["ES256"])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    one = Provider()
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def gate(provider: Provider, clock: ManualClock) -> AsyncIterator[Authenticator]:
    dana = {"uid": uid_to_json(DANA), "attrs": {"active": True}, "parents": []}
    known = Known(version=1, entities=(dana,), identities=(IdentityLink(provider.issuer, "00u1", DANA),))
    snapshot = Snapshot.of(known)
    setting = IssuerSettings(issuer=provider.issuer, audience=GATE)
    one = Authenticator(lambda: snapshot, [setting], dict, clock, GATE, one_time=MemoryOneTime(clock))
    yield one
    await one.close()


async def enter(gate: Authenticator, token: str) -> Caller:
    return await gate.authenticate(
        Request(
            id="r", method="GET", path="/", raw_path="/", query=(), raw_query="",
            headers=(("authorization", f"Bearer {token}"),), peer=Peer("127.0.0.1"),
            body=None,  # type: ignore[arg-type]  # nobody reads it
        )
    )  # fmt: skip


async def reason(gate: Authenticator, token: str) -> str:
    with pytest.raises(UnauthenticatedError) as caught:
        await enter(gate, token)
    return caught.value.reason


async def test_a_token_of_a_discovered_issuer_is_accepted(
    gate: Authenticator, provider: Provider, clock: ManualClock
) -> None:
    assert (await enter(gate, provider.token(clock))).principal == DANA
    assert provider.asked == ["/.well-known/openid-configuration", "/jwks"]


async def test_rotation_brings_the_new_key_in_and_takes_the_old_one_out(
    gate: Authenticator, provider: Provider, clock: ManualClock
) -> None:
    old = provider.token(clock)
    await enter(gate, old)
    provider.keys["k2"] = ECKey.generate_key("P-256")
    clock.advance(UNKNOWN_KEY_INTERVAL)
    await enter(gate, provider.token(clock, kid="k2"))
    await enter(gate, old)
    del provider.keys["k1"]
    clock.advance(300)
    assert await reason(gate, old) == "signing_key_unknown"
    await enter(gate, provider.token(clock, kid="k2"))


async def test_an_outage_is_survived_until_the_keys_are_too_old_and_heals_without_a_restart(
    gate: Authenticator, provider: Provider, clock: ManualClock
) -> None:
    await enter(gate, provider.token(clock))
    await provider.stop()
    clock.advance(100)
    await enter(gate, provider.token(clock))
    clock.advance(200)
    assert await reason(gate, provider.token(clock)) == "issuer_unreachable"
    await provider.start()
    clock.advance(RETRY_INTERVAL)
    await enter(gate, provider.token(clock))


async def test_an_issuer_down_when_the_gateway_starts_is_found_later(
    gate: Authenticator, provider: Provider, clock: ManualClock
) -> None:
    await provider.stop()
    assert await reason(gate, provider.token(clock)) == "issuer_unreachable"
    await provider.start()
    clock.advance(RETRY_INTERVAL)
    await enter(gate, provider.token(clock))


async def test_a_listener_named_in_a_token_is_never_called(
    gate: Authenticator, provider: Provider, clock: ManualClock
) -> None:
    evil = Provider()
    await evil.start()
    try:
        for header in ({"jku": f"{evil.issuer}/jwks"}, {"x5u": f"{evil.issuer}/cert"}):
            assert (await reason(gate, provider.token(clock, **header))).startswith("header_has_")
        assert (evil.asked, provider.asked) == ([], [])
    finally:
        await evil.stop()


def _bent(kind: str, elsewhere: str) -> Any:
    async def bend(request: web.Request) -> web.StreamResponse | None:  # noqa: PLR0911 -- one per misdeed
        if request.path != "/jwks":
            return None
        match kind:
            case "redirect":
                raise web.HTTPFound(f"{elsewhere}/jwks")
            case "500":
                return web.Response(status=500)
            case "garbage":
                return web.Response(body=b"\x00\xff<html>")
            case "huge":
                return web.Response(body=b'{"keys":[' + b" " * 20_000_000 + b"]}")
            case "compressed":
                return web.Response(
                    body=gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}
                )
            case "hanging":
                await asyncio.sleep(30)
            case "cut":
                answer = web.StreamResponse(headers={"Content-Length": "1000"})
                await answer.prepare(request)
                await answer.write(b'{"keys":')
                assert request.transport is not None
                request.transport.close()
                return answer
        return None

    return bend


@pytest.mark.parametrize("kind", ["redirect", "500", "garbage", "huge", "compressed", "hanging", "cut"])
async def test_a_misbehaving_issuer_is_a_401_within_seconds_and_nothing_is_followed(
    gate: Authenticator, provider: Provider, clock: ManualClock, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_SECONDS", 0.5)
    elsewhere = Provider(keys=provider.keys)
    await elsewhere.start()
    try:
        provider.bend = _bent(kind, elsewhere.issuer)
        async with asyncio.timeout(5):
            assert await reason(gate, provider.token(clock)) == "issuer_unreachable"
        assert elsewhere.asked == []
        provider.bend = None
        clock.advance(RETRY_INTERVAL)
        await enter(gate, provider.token(clock))
    finally:
        await elsewhere.stop()


async def test_the_fetcher_sends_no_cookies_and_no_credentials(provider: Provider) -> None:
    seen: list[dict[str, str]] = []

    async def bend(request: web.Request) -> web.StreamResponse:
        seen.append(dict(request.headers))
        answer = web.json_response({})
        answer.set_cookie("session", "x")
        return answer

    provider.bend = bend
    fetch = HttpFetcher()
    try:
        for _ in range(2):
            await fetch(f"{provider.issuer}/x")
    finally:
        await fetch.close()
    assert all("Cookie" not in headers and "Authorization" not in headers for headers in seen)
    with pytest.raises(UnavailableError):
        await HttpFetcher()("http://127.0.0.1:1/nothing-listens")


# A provider we did not write


@pytest.fixture
def foreign() -> Iterator[str]:
    with run_server_in_thread() as server:
        yield f"http://localhost:{server.server_port}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def sign_in(issuer: str) -> dict[str, Any]:
    """Walk the authorization code flow and return the token response."""
    query = urllib.parse.urlencode({
        "client_id": "c", "redirect_uri": "http://localhost/cb", "response_type": "code", "scope": "openid",
    })  # fmt: skip
    opener = urllib.request.build_opener(_NoRedirect)
    form = urllib.parse.urlencode({"sub": "00u1"}).encode()
    location = ""
    try:
        opener.open(f"{issuer}/oauth2/authorize?{query}", form)
    except urllib.error.HTTPError as answer:
        location = answer.headers["Location"]
    code = re.search(r"[?&]code=([^&]+)", location)
    assert code is not None, location
    form = urllib.parse.urlencode({
        "grant_type": "authorization_code", "code": code[1], "client_id": "c", "client_secret": "s",
        "redirect_uri": "http://localhost/cb",
    }).encode()  # fmt: skip
    with contextlib.closing(urllib.request.urlopen(f"{issuer}/oauth2/token", form)) as answer:  # noqa: S310 -- loopback
        return dict(json.load(answer))


async def test_a_foreign_providers_keys_are_found_and_its_id_token_is_not_an_access_token(
    foreign: str, clock: ManualClock
) -> None:
    tokens = await asyncio.to_thread(sign_in, foreign)
    configuration = f"{foreign}/.well-known/openid-configuration"
    answer = await asyncio.to_thread(urllib.request.urlopen, configuration)
    issuer = json.load(answer)["issuer"]
    fetch = HttpFetcher()
    snapshot = Snapshot.of(Known(version=1, identities=(IdentityLink(issuer, "00u1", DANA),)))
    settings = [IssuerSettings(issuer=issuer, audience="c")]
    gate = Authenticator(lambda: snapshot, settings, dict, clock, GATE, one_time=MemoryOneTime(clock))
    try:
        # Its signature verifies with the keys we discovered ...
        parts = take_apart(tokens["id_token"])
        keys = FetchedKeys(issuer, fetch=fetch, clock=clock, ttl=300)
        key = await keys.find(parts.header.get("kid"), parts.header["alg"])
        assert signature_holds(parts, key, parts.header["alg"])
        # ... and still it is for the client that signed in, not for us; the access token is opaque.
        assert await reason(gate, tokens["id_token"]) == "not_an_access_token"
        assert await reason(gate, tokens["access_token"]) == "token_not_compact_jws"
    finally:
        await gate.close()
        await fetch.close()
