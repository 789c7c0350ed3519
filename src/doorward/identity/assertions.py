"""Verify how a client signs that it is itself: `private_key_jwt` (RFC 7523, 3; OpenID Connect Core, 9)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from doorward.core.clock import Clock
from doorward.core.identity import KeyRecord
from doorward.core.ports import OneTimeStore
from doorward.identity.key_sets import PROOF_ALGORITHMS, read_key, signature_holds
from doorward.identity.strict_jose import SignedParts, TokenFaultError, take_apart

LONGEST = timedelta(minutes=5)
_SKEW = timedelta(seconds=60)
_TYPES = frozenset({None, "JWT", "client-authentication+jwt"})
_HEADER = frozenset({"alg", "kid", "typ"})
_JTI = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_LAST_TIME = 253_402_000_000

Candidates = Callable[[str, str | None], Iterable[KeyRecord]]


class AssertionVerifier:
    """Verify assertions made for us; each is used once."""

    def __init__(self, *, audiences: Iterable[str], one_time: OneTimeStore, clock: Clock) -> None:
        """Take the names an assertion may be for: the issuer, and its token endpoint."""
        self._audiences, self._one_time, self._clock = frozenset(audiences), one_time, clock

    async def verify(self, text: str, candidates: Candidates) -> tuple[str, KeyRecord]:
        """Return the client's name and the registered key that signed.

        `candidates` returns the keys of a client (by its name, and by the key id the header states).
        Raises TokenFaultError, and UnavailableError if a replay cannot be told.
        """
        # 1. One compact JWS whose header asks for nothing we do not do, and is no other kind of token's.
        parts = take_apart(text)
        alg, kid = _header_of(parts)
        # 2. Its issuer and subject are the client itself.
        client = parts.payload.get("sub")
        if not isinstance(client, str) or not client or parts.payload.get("iss") != client:
            raise TokenFaultError("assertion_not_by_the_client")
        # 3. It is for us and for no one else.
        self._for_us(parts.payload.get("aud"))
        # 4. It lives now, and not for long.
        until = self._lifetime(parts.payload)
        # 5. It is identified.
        jti = parts.payload.get("jti")
        if not isinstance(jti, str) or not _JTI.fullmatch(jti):
            raise TokenFaultError("assertion_jti_invalid")
        # 6. The signature holds, by a key registered for this client.
        record = _signer(parts, alg, candidates(client, kid))
        # 7. It is used once. Last, so that nobody can spend another's identifiers.
        if not await self._one_time.claim("assertion", f"{record.id}\n{jti}", expires=until.timestamp()):
            raise TokenFaultError("assertion_replayed")
        return client, record

    def _for_us(self, stated: Any) -> None:
        if isinstance(stated, list) and len(stated) == 1:
            stated = stated[0]
        if not isinstance(stated, str) or stated not in self._audiences:
            raise TokenFaultError("assertion_for_another")

    def _lifetime(self, payload: dict[str, Any]) -> datetime:
        now = self._clock.now()
        ends = _time(payload, "exp")
        if now >= ends + _SKEW:
            raise TokenFaultError("assertion_expired")
        if ends > now + LONGEST + _SKEW:
            raise TokenFaultError("assertion_lives_too_long")
        for name in ("iat", "nbf"):
            if name in payload and _time(payload, name) > now + _SKEW:
                raise TokenFaultError("assertion_from_the_future")
        return ends + _SKEW


def _header_of(parts: SignedParts) -> tuple[str, str | None]:
    header = parts.header
    alg, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if header.keys() - _HEADER or typ not in _TYPES:
        raise TokenFaultError("assertion_header_has_more")
    if not isinstance(alg, str) or alg not in PROOF_ALGORITHMS:
        raise TokenFaultError("assertion_algorithm_not_allowed")
    if kid is not None and not isinstance(kid, str):
        raise TokenFaultError("assertion_kid_invalid")
    return alg, kid


def _signer(parts: SignedParts, alg: str, records: Iterable[KeyRecord]) -> KeyRecord:
    for record in records:
        key = None if record.public_key is None else read_key(record.public_key)
        if key is not None and key.fits(alg) and signature_holds(parts, key, alg):
            return record
    raise TokenFaultError("assertion_signature_invalid")


def _time(payload: dict[str, Any], name: str) -> datetime:
    value = payload.get(name)
    if type(value) is not int or not 0 <= value <= _LAST_TIME:
        raise TokenFaultError(f"assertion_{name}_invalid")
    return datetime.fromtimestamp(value, UTC)
