"""Security event tokens of Shared Signals transmitters, verified (RFC 8417, SSF 1.0, CAEP 1.0, RISC 1.0).

What a token says is believed only from the transmitter it names, for us, signed by one of its keys. The
errors are those of RFC 8935, 2.4: the transmitter learns which of its tokens we could not take, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from doorward.core.clock import Clock
from doorward.identity.issuer_keys import Fetch, FetchedKeys
from doorward.identity.key_sets import ALGORITHMS, signature_holds
from doorward.identity.strict_jose import SignedParts, TokenFaultError, take_apart
from doorward.settings.signals import SignalSettings

_TYPES: Final = frozenset({"secevent+jwt", "application/secevent+jwt"})
_PREFIX: Final = "https://schemas.openid.net/secevent/"
_FAMILIES: Final = frozenset({"caep", "risc", "ssf"})
_SKEW: Final = timedelta(seconds=60)
_LONGEST: Final = 1024
METADATA: Final = "ssf-configuration"


class EventRefusedError(Exception):
    """A token cannot be taken: `error` is a code of RFC 8935, 2.4, `reason` is for the record."""

    def __init__(self, error: str, reason: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.error, self.reason = error, reason


class SecurityEvent(msgspec.Struct, frozen=True):
    """One verified event: `family` is caep, risc or ssf, `type` its last word (`session-revoked`).

    `subject` is the sub_id as sent (RFC 9493); `at` is when it happened, never in the future.
    """

    jti: str
    family: str
    type: str
    at: datetime
    subject: Mapping[str, Any]
    claims: Mapping[str, Any]


class EventVerifier:
    """Verify the tokens of one transmitter."""

    def __init__(self, setting: SignalSettings, *, fetch: Fetch, clock: Clock) -> None:
        """Find its keys by its metadata (SSF 1.0, 7.1), or where the settings say."""
        self._setting, self._clock = setting, clock
        self._keys = FetchedKeys(
            setting.issuer,
            fetch=fetch,
            clock=clock,
            ttl=setting.jwks_ttl,
            metadata=(METADATA,),
            jwks_uri=setting.jwks_uri,
        )

    async def verify(self, text: str) -> SecurityEvent:
        """Return what a token says; raise EventRefusedError."""
        # 1. Shape: a compact JWS of strict base64url and JSON, of bounded size.
        try:
            parts = take_apart(text.strip())
        except TokenFaultError as fault:
            raise EventRefusedError("invalid_request", str(fault)) from None
        # 2. It says that it is an event (RFC 8725, 3.11): an access or ID token is none.
        if str(parts.header.get("typ", "")).lower() not in _TYPES:
            raise EventRefusedError("invalid_request", "type_is_not_secevent")
        # 3. It is this transmitter's, and for us.
        if parts.payload.get("iss") != self._setting.issuer:
            raise EventRefusedError("invalid_issuer", "issuer_is_another")
        if not _is_for(parts.payload.get("aud"), self._setting.audience):
            raise EventRefusedError("invalid_audience", "audience_is_another")
        # 4. One of its keys signed it.
        await self._require_signature(parts)
        # 5. What it claims is whole and not from the future.
        return self._read(parts.payload)

    async def close(self) -> None:
        """Stop a refresh of keys that is under way."""
        await self._keys.close()

    async def _require_signature(self, parts: SignedParts) -> None:
        alg, kid = parts.header.get("alg"), parts.header.get("kid")
        if not isinstance(alg, str) or alg not in ALGORITHMS or "crit" in parts.header:
            raise EventRefusedError("invalid_key", "algorithm_not_allowed")
        if kid is not None and not isinstance(kid, str):
            raise EventRefusedError("invalid_key", "key_id_is_no_text")
        try:
            key = await self._keys.find(kid, alg)
        except TokenFaultError as fault:
            raise EventRefusedError("invalid_key", str(fault)) from None
        if not signature_holds(parts, key, alg):
            raise EventRefusedError("authentication_failed", "signature_invalid")

    def _read(self, payload: Mapping[str, Any]) -> SecurityEvent:
        # SSF 1.0, 4.1: the subject stands in sub_id, and an event does not expire.
        if "exp" in payload or "sub" in payload:
            raise EventRefusedError("invalid_request", "exp_or_sub_in_an_event")
        issued = _moment(payload.get("iat"), "iat")
        if issued > self._clock.now() + _SKEW:
            raise EventRefusedError("invalid_request", "issued_in_the_future")
        jti, subject, events = payload.get("jti"), payload.get("sub_id"), payload.get("events")
        if not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST:
            raise EventRefusedError("invalid_request", "jti_missing")
        if not isinstance(subject, dict) or not isinstance(subject.get("format"), str):
            raise EventRefusedError("invalid_request", "sub_id_missing")
        # CAEP interoperability profile, 2.3: exactly one event.
        if not isinstance(events, dict) or len(events) != 1:
            raise EventRefusedError("invalid_request", "not_exactly_one_event")
        ((name, claims),) = events.items()
        if not isinstance(claims, dict):
            raise EventRefusedError("invalid_request", "event_is_no_object")
        family, kind = _named(name)
        return SecurityEvent(jti, family, kind, self._when(claims, issued), subject, claims)

    def _when(self, claims: Mapping[str, Any], issued: datetime) -> datetime:
        at = issued
        if "event_timestamp" in claims:
            at = _moment(claims["event_timestamp"], "event_timestamp")
        # What is to come counts as now: it must not outrank what happens until then.
        return min(at, self._clock.now())


def _is_for(aud: Any, audience: str) -> bool:
    return aud == audience if isinstance(aud, str) else isinstance(aud, list) and audience in aud


def _moment(value: Any, name: str) -> datetime:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise EventRefusedError("invalid_request", f"{name}_is_no_time")
    # Some transmitters send milliseconds where the profile says seconds.
    seconds = value / 1000 if value > _IN_MILLISECONDS else value
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        raise EventRefusedError("invalid_request", f"{name}_is_no_time") from None


_IN_MILLISECONDS: Final = 100_000_000_000


def _named(name: str) -> tuple[str, str]:
    family, _, kind = name.removeprefix(_PREFIX).partition("/event-type/")
    if not name.startswith(_PREFIX) or family not in _FAMILIES or not kind:
        return "", name[:_LONGEST]
    return family, kind[:_LONGEST]
