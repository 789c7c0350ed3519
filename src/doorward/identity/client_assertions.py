"""Clients of our own issuer that authenticate by a signed assertion: `private_key_jwt` (RFC 7523, 3)."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from doorward.core.clock import Clock
from doorward.core.errors import UnauthenticatedError
from doorward.core.ports import OneTimeStore
from doorward.identity.client_authentication import ASSERTION_TYPE
from doorward.identity.key_sets import ALGORITHMS, KeySet, signature_holds
from doorward.identity.strict_jose import SignedParts, TokenFaultError, take_apart

LONGEST = 300  # seconds an assertion may live
SKEW = 60  # seconds a client's clock may be off
_HEADER = frozenset({"alg", "kid", "typ"})
_TYPES = frozenset({None, "JWT", "client-authentication+jwt"})
_JTI = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_LAST_TIME = 253_402_300_799


class ClientAssertions:
    """Verify who a client is, by the keys that were registered for it."""

    def __init__(
        self,
        keys_of: Callable[[str], KeySet | None],
        *,
        issuer: Callable[[], str],
        one_time: OneTimeStore,
        clock: Clock,
    ) -> None:
        """Take what gives a client's public keys, None for an unknown one, and our issuer's name."""
        self._keys_of, self._issuer, self._one_time, self._clock = keys_of, issuer, one_time, clock

    async def verify(self, form: Mapping[str, str]) -> str:
        """Return the id of the client whose assertion a form carries.

        Raises UnauthenticatedError (`invalid_client`, RFC 6749, 5.2) for whatever does not verify, and
        UnavailableError when it cannot be known whether an assertion was used before.
        """
        try:
            client, jti, until = self._verified(form)
        except TokenFaultError as fault:
            raise refused(str(fault)) from None
        # 10. It is used once, whichever process sees it. Last, so that nothing is spent in vain.
        if not await self._one_time.claim("assertion", f"{client}\n{jti}", expires=until.timestamp()):
            raise refused("assertion_replayed")
        return client

    def _verified(self, form: Mapping[str, str]) -> tuple[str, str, datetime]:
        # 1. It is one assertion of the one kind, and no other way to authenticate beside it.
        if form.get("client_assertion_type") != ASSERTION_TYPE or "client_secret" in form:
            raise TokenFaultError("assertion_missing")
        # 2. Size, shape, strict base64url and JSON.
        parts = take_apart(form.get("client_assertion", ""))
        # 3. Its header brings nothing of its own.
        alg, kid = _header_of(parts)
        # 4. It speaks for itself: issuer, subject and the form name one client.
        client = parts.payload.get("iss")
        if not isinstance(client, str) or client != parts.payload.get("sub"):
            raise TokenFaultError("assertion_for_another_client")
        if not hmac.compare_digest(form.get("client_id", client).encode(), client.encode()):
            raise TokenFaultError("assertion_for_another_client")
        # 5. The client is known. 6. The key is one of its own, meant for this algorithm.
        keys = self._keys_of(client)
        key = None if keys is None else keys.choose(kid, alg)
        if key is None:
            raise TokenFaultError("assertion_key_unknown")
        # 7. The signature holds.
        if not signature_holds(parts, key, alg):
            raise TokenFaultError("assertion_signature_invalid")
        # 8. It is for us, by our issuer's name, and for nobody else.
        if parts.payload.get("aud") not in (self._issuer(), [self._issuer()]):
            raise TokenFaultError("assertion_for_another_server")
        # 9. It has begun, has not ended, lives shortly, and names itself.
        until = self._lifetime(parts.payload)
        jti = parts.payload.get("jti")
        if not isinstance(jti, str) or not _JTI.fullmatch(jti):
            raise TokenFaultError("assertion_jti_invalid")
        return client, jti, until

    def _lifetime(self, payload: Mapping[str, Any]) -> datetime:
        now = self._clock.now()
        ends = _time(payload, "exp")
        if now >= ends:
            raise TokenFaultError("assertion_expired")
        if ends - now > timedelta(seconds=LONGEST + SKEW):
            raise TokenFaultError("assertion_lives_too_long")
        for name in ("iat", "nbf"):
            if name in payload and _time(payload, name) > now + timedelta(seconds=SKEW):
                raise TokenFaultError("assertion_not_yet_valid")
        return ends + timedelta(seconds=1)


def refused(reason: str) -> UnauthenticatedError:
    """Refuse a client: whatever was wrong looks alike."""
    return UnauthenticatedError(
        "the client is not accepted",
        hint="Sign a new assertion for this issuer, with the key that was registered.",
        challenge='Bearer realm="doorward", error="invalid_client"',
        reason=reason,
    )


def _header_of(parts: SignedParts) -> tuple[str, str | None]:
    alg, kid = parts.header.get("alg"), parts.header.get("kid")
    if parts.header.keys() - _HEADER or parts.header.get("typ") not in _TYPES:
        raise TokenFaultError("assertion_header_has_more")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise TokenFaultError("assertion_algorithm_not_allowed")
    if not isinstance(kid, str | None):
        raise TokenFaultError("assertion_key_unknown")
    return alg, kid


def _time(payload: Mapping[str, Any], name: str) -> datetime:
    value = payload.get(name)
    if type(value) is not int or not 0 <= value <= _LAST_TIME - LONGEST:
        raise TokenFaultError(f"assertion_{name}_invalid")
    return datetime.fromtimestamp(value, UTC)
