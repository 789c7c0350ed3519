"""The local issuer on real sockets, and a client of it that can be told to send anything."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import quote_plus, urlencode

from joserfc import jwt
from joserfc.jwk import ECKey

from doorward.core.identity import Caller, KeyRecord
from doorward.core.model import EntityUid
from doorward.core.onetime import MemoryOneTime
from doorward.core.wire import NoBody, Peer, Request
from doorward.directory.org import parse
from doorward.identity import api_keys
from doorward.identity.authenticate import Authenticator
from support.browser_client import _THREADS
from support.console_plane import POLICIES, Plane, running

GATE = "http://127.0.0.1:8640"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
ORG = """
users:
  dana: { roles: [data-scientist], projects: [fraud], purposes: [fraud-model] }
  omar: {}
services:
  etl: { owner: dana }
  watcher: { owner: dana, roles: [inspector] }
agents:
  scout: { owner: dana }
  mapper: { owner: omar }
  third: { owner: dana }
  fourth: { owner: dana }
"""
INSPECTORS = """
@id("inspectors-inspect")
permit(principal in Doorward::Role::"inspector", action == Doorward::Action::"inspect", resource);
"""


@dataclass
class Said:
    """One answer of the issuer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.json.get("error", "")

    @property
    def token(self) -> str:
        assert self.status == 200, (self.status, self.body)
        return str(self.json["access_token"])


@dataclass
class OAuth:
    plane: Plane

    @property
    def issuer(self) -> str:
        return self.plane.services.issuer.issuer

    def key(self, kind: str, name: str, **bounds: Any) -> tuple[str, KeyRecord]:
        """Make an API key; return its text and what is kept of it."""
        services = self.plane.services
        record, text = api_keys.create(
            key_id=services.ids.new(), subject=EntityUid.of(kind, name), now=services.clock.now(), **bounds
        )
        services.directory.add_key(record)
        return text.reveal(), record

    def mint(self, name: str = "dana", **more: Any) -> str:
        return self.plane.services.issuer.mint(EntityUid.of("User", name), **more).text.reveal()

    async def post(
        self, path: str, fields: dict[str, Any] | Sequence[tuple[str, str]] | bytes, **headers: str
    ) -> Said:
        body = fields if isinstance(fields, bytes) else urlencode(fields, doseq=True).encode()
        sent = {"content-type": "application/x-www-form-urlencoded"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        work = partial(self._send, path, body, {name: value for name, value in sent.items() if value})
        return await asyncio.get_running_loop().run_in_executor(_THREADS, work)

    def _send(self, path: str, body: bytes, headers: dict[str, str]) -> Said:
        connection = http.client.HTTPConnection("127.0.0.1", self.plane.port, timeout=30)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return Said(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    async def token(self, *, basic: tuple[str, str] | None = None, dpop: str = "", **fields: Any) -> Said:
        named = {name: value for name, value in fields.items() if value is not None}
        given = {"authorization": basic_of(*basic)} if basic else {}
        return await self.post("/oauth/token", named, **given, **({"dpop": dpop} if dpop else {}))

    async def exchange(self, subject: str, key: str, agent: str = "agent/scout", **fields: Any) -> Said:
        wanted = {
            "grant_type": EXCHANGE, "subject_token": subject, "subject_token_type": ACCESS, **fields,
        }  # fmt: skip
        return await self.token(basic=(agent, key), **wanted)

    def gate(self) -> Authenticator:
        """Return what a gateway lets callers in by: the snapshot and the public keys, nothing else."""
        services = self.plane.services
        directory = services.directory
        return Authenticator(
            lambda: directory.snapshot,
            [],
            services.issuer.jwks,
            services.clock,
            GATE,
            one_time=MemoryOneTime(services.clock),
        )

    async def caller(self, token: str, *, gate: Authenticator | None = None, path: str = "/llm/v1") -> Caller:
        return await (gate or self.gate()).authenticate(bearer(token, path=path))


def bearer(token: str, *, path: str = "/llm/v1", ip: str = "127.0.0.1") -> Request:
    return Request(
        id="r", method="GET", path=path, raw_path=path, query=(), raw_query="",
        headers=(("authorization", f"Bearer {token}"),), peer=Peer(ip), body=NoBody(),
    )  # fmt: skip


def basic_of(name: str, secret: str) -> str:
    pair = f"{quote_plus(name)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def proof(key: ECKey, url: str, **claims: Any) -> str:
    header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": key.as_dict(private=False)}
    body = {"jti": secrets.token_urlsafe(12), "htm": "POST", "htu": url, "iat": int(time.time()), **claims}
    return jwt.encode(header, body, key, algorithms=["ES256"])


def assertion(
    key: ECKey, client: str, audience: str, *, header: dict[str, Any] | None = None, **more: Any
) -> str:
    now = int(time.time())
    body = {
        "iss": client, "sub": client, "aud": audience, "iat": now, "exp": now + 60,
        "jti": secrets.token_urlsafe(12), **more,
    }  # fmt: skip
    kept = {name: value for name, value in body.items() if value is not ...}
    head = {"alg": "ES256", "kid": key.thumbprint(), **(header or {})}
    return jwt.encode({n: v for n, v in head.items() if v is not ...}, kept, key, algorithms=["ES256"])


@asynccontextmanager
async def issuing(**more: Any) -> AsyncIterator[OAuth]:
    """Run a control plane that issues, with people, services and agents known."""
    async with running(issues=True, policies=POLICIES + INSPECTORS, **more) as plane:
        plane.services.directory.apply(parse(ORG, "org"))
        yield OAuth(plane)


def later(oauth: OAuth, seconds: float) -> Any:
    return oauth.plane.services.clock.now() + timedelta(seconds=seconds)
