"""The keys of each trusted issuer: fetched and cached for identity providers, fed for our own issuer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import structlog

from doorward.core.clock import Clock
from doorward.core.errors import DoorwardError, InvalidConfigError, UnavailableError
from doorward.identity.key_sets import KeySet, VerificationKey, read_key_set
from doorward.identity.strict_jose import TokenFaultError, read_object
from doorward.settings import is_loopback

_NO_KEYS = KeySet()
Fetch = Callable[[str], Awaitable[bytes]]
_OPENID = "openid-configuration"
_METADATA = (_OPENID, "oauth-authorization-server")

UNKNOWN_KEY_INTERVAL = 5.0  # seconds between refreshes that tokens with unknown keys can cause
RETRY_INTERVAL = 2.0  # seconds between attempts while an issuer cannot be reached
_log = structlog.get_logger()


class KeySource(Protocol):
    """Give one issuer's verification keys."""

    async def find(self, kid: str | None, alg: str) -> VerificationKey:
        """Return the key a token names; raise TokenFaultError if there is none or none can be had."""

    def current(self) -> KeySet:
        """Return, without waiting, the keys that count now: the same object for as long as none changes."""

    def fresh_until(self) -> float:
        """Return until when (monotonic seconds) the current keys need no look, unless they change."""


class FedKeys:
    """The local issuer's keys, as the control process feeds them."""

    def __init__(self, document: Callable[[], Mapping[str, Any]]) -> None:
        """Read `document` (a JWKS with a member `issuer`) each time; it changes with the feed."""
        self._document = document
        self._read: tuple[object, object, KeySet] | None = None

    @property
    def issuer(self) -> str | None:
        """Return the local issuer's name, or None while the feed has not told it."""
        issuer = self._document().get("issuer")
        return issuer if isinstance(issuer, str) and issuer else None

    async def find(self, kid: str | None, alg: str) -> VerificationKey:
        """Return the key a token names; raise TokenFaultError if there is none."""
        found = self.current().choose(kid, alg)
        if found is None:
            raise TokenFaultError("signing_key_unknown")
        return found

    def fresh_until(self) -> float:
        """Return that they count for as long as the feed says so."""
        return float("inf")

    def current(self) -> KeySet:
        """Return the keys that count now; another issuer's name makes them other keys."""
        document = self._document()
        keys, issuer = document.get("keys"), document.get("issuer")
        read = self._read
        if not keys or not issuer:
            return _NO_KEYS  # the feed has not told them, or not yet
        if read is None or (read[0] is not keys and read[0] != keys) or read[1] != issuer:
            self._read = read = (keys, issuer, read_key_set(document))
        return read[2]


class FetchedKeys:
    """An identity provider's keys, found by discovery and kept for `ttl` seconds.

    Past half of `ttl` they are refreshed in the background. Provider down: the keys serve until
    `ttl`, then every token is refused; the next attempt after RETRY_INTERVAL heals it.
    """

    def __init__(  # noqa: PLR0913 -- what tells one kind of issuer from another, by name
        self,
        issuer: str,
        *,
        fetch: Fetch,
        clock: Clock,
        ttl: float,
        metadata: tuple[str, ...] = _METADATA,
        jwks_uri: str = "",
    ) -> None:
        """Take an issuer URL; raise InvalidConfigError unless it is https, or http on loopback.

        `metadata` are the well-known names its metadata may have, tried in turn; `jwks_uri` is
        where its keys stand if nobody needs to ask it.
        """
        _check_url(issuer, plain_allowed=True)
        self._names, self._location = metadata, jwks_uri
        self._issuer, self._fetch, self._clock, self._ttl = issuer, fetch, clock, ttl
        self._keys = KeySet()
        self._metadata: dict[str, Any] = {}
        self._fetched: float | None = None
        self._attempted: float | None = None
        self._flight: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, alg: str) -> VerificationKey:
        """Return the key a token names; raise TokenFaultError if there is none or none can be had."""
        # 1. Keys older than their time are not used, whatever the reason they are old.
        if not self._current():
            await self._refresh(RETRY_INTERVAL)
        if not self._current():
            raise TokenFaultError("issuer_unreachable")
        self._refresh_early()
        found = self._keys.choose(kid, alg)
        # 2. A key we never saw may be a new one: look once, and not more often than the interval.
        if found is None and not (kid is not None and self._keys.names(kid)):
            await self._refresh(UNKNOWN_KEY_INTERVAL)
            found = self._keys.choose(kid, alg)
        if found is None or not self._current():
            raise TokenFaultError("signing_key_unknown")
        return found

    def current(self) -> KeySet:
        """Return the keys that were fetched last; `fresh_until` says for how long they count."""
        return self._keys

    def fresh_until(self) -> float:
        """Return when a refresh is due, and once it is overdue, when the keys are too old."""
        fetched = 0.0 if self._fetched is None else self._fetched
        return fetched + (self._ttl / 2 if self._age() < self._ttl / 2 else self._ttl)

    async def endpoint(self, name: str) -> str:
        """Return an endpoint from the issuer's metadata; raise UnavailableError if there is none to use."""
        if not self._current():
            await self._refresh(RETRY_INTERVAL)
        if not self._current():
            raise UnavailableError(f"{self._issuer} cannot be reached")
        self._refresh_early()
        url = self._metadata.get(name)
        if not isinstance(url, str):
            raise UnavailableError(f"{self._issuer} names no {name}")
        _check_url(url, plain_allowed=urlsplit(self._issuer).scheme == "http")
        return url

    async def close(self) -> None:
        """Stop a refresh that is under way."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    def _age(self) -> float:
        return float("inf") if self._fetched is None else self._clock.monotonic() - self._fetched

    def _current(self) -> bool:
        return self._age() < self._ttl

    def _refresh_early(self) -> None:
        if self._ttl / 2 <= self._age() < self._ttl:
            self._start(RETRY_INTERVAL)

    async def _refresh(self, interval: float) -> None:
        # One flight for all who wait. Shielded: a client that leaves does not stop it for the others.
        flight = self._start(interval)
        if flight is not None:
            await asyncio.shield(flight)

    def _start(self, interval: float) -> asyncio.Task[None] | None:
        if self._flight is not None and not self._flight.done():
            return self._flight
        now = self._clock.monotonic()
        if self._attempted is not None and now - self._attempted < interval:
            return None
        self._attempted = now
        self._flight = asyncio.get_running_loop().create_task(self._load_once())
        return self._flight

    async def _load_once(self) -> None:
        started = self._clock.monotonic()
        try:
            metadata, keys = await self._load()
        except (DoorwardError, TokenFaultError) as reason:
            _log.warning("issuer_keys_not_refreshed", issuer=self._issuer, reason=str(reason))
            return
        if not keys.same_as(self._keys):
            self._keys = keys
        self._metadata, self._fetched = metadata, started

    async def _load(self) -> tuple[dict[str, Any], KeySet]:
        metadata = await self._discover()
        # RFC 8414, 3.3: the metadata must be about exactly the issuer we asked for (mix-up defence).
        if metadata.get("issuer") != self._issuer:
            raise TokenFaultError("issuer_metadata_names_another_issuer")
        location = metadata.get("jwks_uri")
        if not isinstance(location, str):
            raise TokenFaultError("issuer_metadata_has_no_jwks_uri")
        _check_url(location, plain_allowed=urlsplit(self._issuer).scheme == "http")
        keys = read_key_set(read_object(await self._fetch(location)))
        if not keys.keys:
            raise TokenFaultError("issuer_has_no_usable_key")
        return metadata, keys

    async def _discover(self) -> dict[str, Any]:
        if self._location:
            return {"issuer": self._issuer, "jwks_uri": self._location}
        parts = urlsplit(self._issuer)
        path = parts.path.rstrip("/")
        root = f"{parts.scheme}://{parts.netloc}"
        *earlier, last = (
            # OpenID Connect Discovery appends, RFC 8414 and SSF insert before the path.
            f"{root}{path}/.well-known/{name}" if name == _OPENID else f"{root}/.well-known/{name}{path}"
            for name in self._names
        )
        for url in earlier:
            try:
                return read_object(await self._fetch(url))
            except (UnavailableError, TokenFaultError):
                continue
        return read_object(await self._fetch(last))


def _check_url(url: str, *, plain_allowed: bool) -> None:
    parts = urlsplit(url)
    plain = plain_allowed and parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or not (parts.scheme == "https" or plain):
        raise InvalidConfigError(
            f"`{url}` cannot be asked for an issuer's keys", hint="Use https://, or http:// on loopback only."
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidConfigError(f"`{url}` must have no user, query or fragment")
