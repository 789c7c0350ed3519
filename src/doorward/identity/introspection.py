"""Opaque tokens: ask the issuer that made them, and believe the answer for a short while (RFC 7662, 9701)."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from doorward.core.clock import Clock
from doorward.core.errors import DoorwardError, UnavailableError
from doorward.identity import claims
from doorward.identity.client_authentication import ClientAuthentication, authentication_of
from doorward.identity.issuer_keys import FetchedKeys
from doorward.identity.key_sets import KeySet, signature_holds
from doorward.identity.strict_jose import TokenFaultError, read_object, take_apart
from doorward.identity.token_cache import Kept
from doorward.settings import IntrospectionSettings, IssuerSettings

_OPAQUE = re.compile(r"[A-Za-z0-9._~+/-]{8,4096}=*", re.ASCII)
_SIGNED = "token-introspection+jwt"
NEGATIVE_SECONDS = 10.0
_REMEMBERED = 4096
_AT_ONCE, _WAITING = 16, 256
# How long an open answer goes on while its token is asked for again; seconds.
GRACE = 5.0
_SOUND = KeySet()
_log = structlog.get_logger()

Form = Mapping[str, str]
Post = Callable[[str, Form, Mapping[str, str]], Awaitable[tuple[str, bytes]]]


class _Live(msgspec.Struct):
    text: str
    kept: Kept
    checking: asyncio.Task[None] | None = None


class Introspector:
    """Ask one issuer about its opaque tokens. It is the source of what it finds: no key rotates here."""

    def __init__(
        self,
        settings: IssuerSettings,
        *,
        keys: FetchedKeys,
        authentication: ClientAuthentication,
        post: Post,
        clock: Clock,
    ) -> None:
        """Take the settings of an issuer that has `introspection`, and how we authenticate there."""
        self._settings, self._keys, self._authentication = settings, keys, authentication
        self._post, self._clock = post, clock
        self._asking = settings.introspection or IntrospectionSettings(client_id="", client_secret="")
        self._inactive: dict[bytes, float] = {}
        self._flights: dict[str, asyncio.Task[Kept]] = {}
        self._live: dict[str, _Live] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    @property
    def prefix(self) -> str:
        """Return how this issuer's opaque tokens begin."""
        return self._asking.prefix

    @property
    def issuer(self) -> str:
        """Return whom is asked."""
        return self._settings.issuer

    def current(self) -> KeySet:
        """Return always the same: what was found ends by time, not with a key."""
        return _SOUND

    async def verify(self, text: str) -> Kept:
        """Return what the issuer says of a token; raise TokenFaultError, UnavailableError in a flood."""
        # 1. It could be a token.
        if not _OPAQUE.fullmatch(text):
            raise TokenFaultError("token_not_opaque")
        # 2. Its issuer did not say a moment ago that it is none.
        digest = hashlib.sha256(text.encode("ascii")).digest()
        if self._inactive.get(digest, 0.0) > self._clock.monotonic():
            raise TokenFaultError("token_not_active")
        # 3. Of all who send the same token at once, one asks; and not too many ask at once.
        flight = self._flights.get(text)
        if flight is None:
            if len(self._flights) >= _WAITING:
                raise UnavailableError("too many tokens are being asked for", hint="Try again in a moment.")
            flight = self._flights[text] = asyncio.get_running_loop().create_task(self._ask(text, digest))
            flight.add_done_callback(lambda done: self._landed(text, done))
        return await asyncio.shield(flight)

    def stands(self, credential: str) -> bool:
        """Return, without waiting, whether an earlier token still counts: asked again now and then."""
        live = self._live.get(credential)
        if live is None:
            return False
        over = self._clock.monotonic() - live.kept.until
        if over >= 0 and (live.checking is None or live.checking.done()):
            live.checking = asyncio.get_running_loop().create_task(self._check_again(credential, live))
        return over < GRACE

    async def close(self) -> None:
        """Stop asking."""
        tasks = [*self._flights.values(), *(live.checking for live in self._live.values() if live.checking)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Inside

    async def _ask(self, text: str, digest: bytes) -> Kept:
        async with self._slots:
            # 4. The issuer's own endpoint, from its own metadata, with our own credential.
            answer = await self._answer(text)
        # 5. The token is active: exactly `true`, nothing that only looks like it.
        if answer.get("active") is not True:
            self._remember_inactive(digest)
            raise TokenFaultError("token_not_active")
        # 6. It is an access token of this issuer.
        if answer.get("iss", self.issuer) != self.issuer:
            raise TokenFaultError("issuer_wrong")
        if str(answer.get("token_type", "Bearer")).lower() not in {"bearer", "dpop"}:
            raise TokenFaultError("not_an_access_token")
        # 7. Its claims hold, as those of any other token: audience, times, subject, what it is bound to.
        # A client that asks in its own name is its own subject (RFC 9068, 2.2).
        named = {
            "jti": f"opaque-{digest.hex()[:32]}",
            "client_id": "-",
            "sub": answer.get("client_id"),
            **answer,
        }
        token = claims.read(
            named,
            issuer=self.issuer,
            audience=self._settings.audience,
            now=self._clock.now(),
            leeway=0,
            trust=frozenset(self._settings.trust),
            local=False,
            max_age=self._settings.max_age,
            mapped={str(name): claim for name, claim in self._settings.map.items()},
            provision=self._settings.provision,
        )
        # 8. It is believed until its end, and never longer than the cap.
        until = self._clock.monotonic() + self._asking.cache
        kept = Kept(token, self, _SOUND, until=until, introspected=True)
        self._remember(text, kept)
        return kept

    async def _answer(self, text: str) -> dict[str, Any]:
        try:
            endpoint = await self._keys.endpoint("introspection_endpoint")
            fields, headers = self._authentication.of(self.issuer)
            form = {"token": text, "token_type_hint": "access_token", **fields}
            accept = f"application/{_SIGNED}" if self._asking.signed else "application/json"
            kind, body = await self._post(endpoint, form, {**headers, "Accept": accept})
        except DoorwardError as reason:
            _log.warning("introspection_failed", issuer=self.issuer, reason=str(reason))
            raise TokenFaultError("issuer_unreachable") from None
        if self._asking.signed:
            return await self._opened(kind, body)
        if kind != "application/json":
            raise TokenFaultError("introspection_answer_invalid")
        return read_object(body)

    async def _opened(self, kind: str, body: bytes) -> dict[str, Any]:
        """Verify a signed answer (RFC 9701, 5): by the issuer, for us, about one token."""
        if kind != f"application/{_SIGNED}" or not body.isascii():
            raise TokenFaultError("introspection_answer_not_signed")
        parts = take_apart(body.decode("ascii"))
        alg, kid = parts.header.get("alg"), parts.header.get("kid")
        wrong_type = parts.header.get("typ") != _SIGNED or "crit" in parts.header
        if wrong_type or alg not in self._settings.algorithms or not isinstance(kid, str | None):
            raise TokenFaultError("introspection_answer_not_signed")
        key = await self._keys.find(kid, alg)
        if not signature_holds(parts, key, alg):
            raise TokenFaultError("introspection_answer_not_signed")
        client = self._asking.client_id
        said = parts.payload.get("token_introspection")
        if parts.payload.get("iss") != self.issuer or parts.payload.get("aud") not in (client, [client]):
            raise TokenFaultError("introspection_answer_for_another")
        if not isinstance(said, dict):
            raise TokenFaultError("introspection_answer_invalid")
        return said

    def _remember(self, text: str, kept: Kept) -> None:
        if len(self._live) >= _REMEMBERED:
            del self._live[next(iter(self._live))]
        self._live[kept.token.jti] = _Live(text, kept)

    def _remember_inactive(self, digest: bytes) -> None:
        if len(self._inactive) >= _REMEMBERED:
            del self._inactive[next(iter(self._inactive))]
        self._inactive[digest] = self._clock.monotonic() + NEGATIVE_SECONDS

    async def _check_again(self, credential: str, live: _Live) -> None:
        try:
            live.kept = await self.verify(live.text)
        except TokenFaultError as fault:
            if str(fault) != "issuer_unreachable":
                self._live.pop(credential, None)
        except UnavailableError:
            return

    def _landed(self, text: str, done: asyncio.Task[Kept]) -> None:
        self._flights.pop(text, None)
        if not done.cancelled():
            done.exception()  # everybody who waited has it; nobody need have waited


def introspectors_by(
    post: Post, *, clock: Clock, resolve: Callable[[Path], Path] = Path
) -> Callable[[IssuerSettings, FetchedKeys], Introspector | None]:
    """Return what makes the introspector of an issuer, None for one that is not asked."""

    def made(settings: IssuerSettings, keys: FetchedKeys) -> Introspector | None:
        if settings.introspection is None:
            return None
        own = authentication_of(settings.introspection, clock=clock, resolve=resolve)
        return Introspector(settings, keys=keys, authentication=own, post=post, clock=clock)

    return made
