"""Read tokens of the local issuer where they come back: to be exchanged, revoked, asked about.

A gateway reads them as any issuer's (`access_tokens`); here the audience may be any of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from doorward.core.clock import Clock
from doorward.core.ports import CredentialRegistry
from doorward.identity import claims
from doorward.identity.access_tokens import check_header
from doorward.identity.claims import VerifiedToken
from doorward.identity.descent import fault_of, unlinked
from doorward.identity.issuer_keys import FedKeys
from doorward.identity.key_sets import signature_holds
from doorward.identity.signing_key import ALGORITHM
from doorward.identity.strict_jose import TokenFaultError, take_apart


class OwnToken(msgspec.Struct, frozen=True):
    """A token of ours that verifies; `claims` are as they stand in it."""

    token: VerifiedToken
    audience: str
    claims: Mapping[str, Any]


class OwnTokens:
    """Verify tokens of the local issuer for any of its audiences. Lives in the control process."""

    def __init__(
        self, jwks: Callable[[], Mapping[str, Any]], *, audiences: Sequence[str], clock: Clock
    ) -> None:
        """Take the public keys as the issuer shows them, and the resource servers that are ours."""
        self._keys, self._audiences, self._clock = FedKeys(jwks), tuple(audiences), clock

    async def read(self, text: str) -> OwnToken:
        """Return what a token says; raise TokenFaultError. Whether it was revoked is asked of `fault`."""
        # 1. Shape, and the header of an access token. 2. It is ours: issuer, key, signature.
        parts = take_apart(text)
        kid, alg = check_header(parts.header)
        if alg != ALGORITHM or parts.payload.get("iss") != self._keys.issuer:
            raise TokenFaultError("not_a_token_of_ours")
        key = await self._keys.find(kid, alg)
        if not signature_holds(parts, key, alg):
            raise TokenFaultError("signature_invalid")
        # 3. Its claims, and it is for one of ours.
        audience = self._audience(parts.payload)
        token = claims.read(
            parts.payload,
            issuer=str(self._keys.issuer),
            audience=audience,
            now=self._clock.now(),
            leeway=0,
            trust=frozenset(),
            local=True,
        )
        return OwnToken(token, f"{audience}{token.path}", parts.payload)

    def fault(self, token: VerifiedToken, registry: CredentialRegistry) -> str | None:
        """Return why a token that verifies counts no more, or None: what a gateway would say."""
        principal = token.principal
        if principal is None or not registry.is_active(principal):
            return "subject_inactive"
        if registry.token_revoked(token.jti):
            return "token_revoked"
        out = registry.sign_out_of(principal)
        if out is not None and out.ends(token.signed_in_at or token.issued):
            return "signed_out"
        if token.descent is None:
            return None
        if unlinked(token.descent, registry, principal):
            return "ancestor_identity_unlinked"
        return fault_of(token.descent, registry, now=self._clock.now(), ip=None)

    def _audience(self, payload: Mapping[str, Any]) -> str:
        for audience in self._audiences:
            try:
                claims.for_us(payload.get("aud"), audience)
            except TokenFaultError:
                continue
            return audience
        raise TokenFaultError("audience_wrong")
