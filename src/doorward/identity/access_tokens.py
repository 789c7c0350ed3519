"""Verify JWT access tokens (RFC 9068, RFC 8725): numbered checks, one refusal, a cache that forgets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from doorward.core.clock import Clock
from doorward.core.errors import InvalidConfigError
from doorward.identity import claims
from doorward.identity.claims import VerifiedToken
from doorward.identity.issuer_keys import FedKeys, Fetch, FetchedKeys, KeySource
from doorward.identity.key_sets import ALGORITHMS, signature_holds
from doorward.identity.strict_jose import SignedParts, TokenFaultError, take_apart
from doorward.settings import IssuerSettings

_TYPES = frozenset({"at+jwt", "application/at+jwt"})
# Parameters that bring their own key, change the signed bytes, or demand what we do not do.
_FORBIDDEN = frozenset({"crit", "jwk", "jku", "x5u", "x5c", "b64", "zip", "enc"})
_LOCAL_ALGORITHMS = frozenset({"ES256"})
_MAX_KID = 256
CACHE_SECONDS = 300.0
CACHE_ENTRIES = 4096


class TrustedIssuer(msgspec.Struct, frozen=True):
    """An issuer, what its tokens must be for, and how far its word goes.

    `trust` lists which of `amr`, `acr`, `auth_time` count. `leeway` is in seconds, for `exp`.
    """

    name: str
    audience: str
    keys: KeySource
    algorithms: frozenset[str]
    trust: frozenset[str] = frozenset()
    local: bool = False
    leeway: int = claims.SKEW


class _Kept(msgspec.Struct, frozen=True):
    token: VerifiedToken
    thumbprint: str
    until: float


class TokenVerifier:
    """Turn the text of an access token into what it verifiably says."""

    def __init__(
        self,
        issuers: Sequence[IssuerSettings],
        *,
        local: FedKeys,
        audience: str,
        clock: Clock,
        fetch: Fetch,
    ) -> None:
        """Trust exactly these issuers; raise InvalidConfigError for one that cannot be trusted."""
        self._clock, self._local, self._audience = clock, local, audience
        self._trusted = {setting.issuer: _trusted(setting, clock, fetch) for setting in issuers}
        if len(self._trusted) != len(issuers):
            raise InvalidConfigError("one issuer is configured twice", hint="Keep one [[issuer]] for each.")
        self._cache: dict[bytes, _Kept] = {}

    async def verify(self, text: str) -> VerifiedToken:
        """Return what the token says; raise TokenFaultError with the reason for the record."""
        # The key of the cache is the whole token, never a part of it.
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        kept = self._kept(key)
        if kept is not None:
            return kept
        # 1-3. Size, shape, strict base64url and JSON.
        parts = take_apart(text)
        # 4. The header is that of an access token and brings nothing of its own.
        kid, alg = check_header(parts.header)
        # 5. The issuer is, character for character, one we trust. Nothing is fetched for any other.
        issuer = self.issuer(parts.payload.get("iss"))
        # 6. Its algorithm is one we allow this issuer.
        if issuer is None:
            raise TokenFaultError("issuer_unknown")
        if alg not in issuer.algorithms:
            raise TokenFaultError("algorithm_not_allowed")
        # 7. The key is one of that issuer's, meant for this algorithm (type, curve, alg, use, key_ops).
        verification_key = await issuer.keys.find(kid, alg)
        # 8. The signature holds.
        if not signature_holds(parts, verification_key, alg):
            raise TokenFaultError("signature_invalid")
        # 9-14. The claims.
        token = self._read_claims(parts, issuer)
        self._keep(key, _Kept(token, verification_key.thumbprint, self._clock.monotonic() + CACHE_SECONDS))
        return token

    def issuer(self, name: Any) -> TrustedIssuer | None:
        """Return the trusted issuer with exactly this name; the local one cannot be taken over."""
        if not isinstance(name, str):
            return None
        if name == self._local.issuer:
            return TrustedIssuer(name, self._audience, self._local, _LOCAL_ALGORITHMS, local=True, leeway=0)
        return self._trusted.get(name)

    async def close(self) -> None:
        """Stop refreshes that are under way."""
        for issuer in self._trusted.values():
            if isinstance(issuer.keys, FetchedKeys):
                await issuer.keys.close()

    def _read_claims(self, parts: SignedParts, issuer: TrustedIssuer) -> VerifiedToken:
        return claims.read(
            parts.payload,
            issuer=issuer.name,
            audience=issuer.audience,
            now=self._clock.now(),
            leeway=issuer.leeway,
            trust=issuer.trust,
            local=issuer.local,
        )

    def _kept(self, key: bytes) -> VerifiedToken | None:
        kept = self._cache.get(key)
        if kept is None:
            return None
        issuer = self.issuer(kept.token.issuer)
        fresh = self._clock.monotonic() < kept.until and self._clock.now() < kept.token.expires
        if fresh and issuer is not None and issuer.keys.holds(kept.thumbprint):
            return kept.token
        del self._cache[key]
        return None

    def _keep(self, key: bytes, kept: _Kept) -> None:
        if len(self._cache) >= CACHE_ENTRIES:
            del self._cache[next(iter(self._cache))]
        self._cache[key] = kept


def check_header(header: dict[str, Any]) -> tuple[str | None, str]:
    """Return (kid, alg) of an access token's header; raise TokenFaultError for any other header."""
    forbidden = _FORBIDDEN & header.keys()
    if forbidden:
        raise TokenFaultError(f"header_has_{min(forbidden)}")
    # RFC 9068, 2.1: an ID token or a logout token is not an access token.
    kind = header.get("typ")
    if not isinstance(kind, str) or not kind.isascii() or kind.lower() not in _TYPES:
        raise TokenFaultError("not_an_access_token")
    alg, kid = header.get("alg"), header.get("kid")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise TokenFaultError("algorithm_not_allowed")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID):
        raise TokenFaultError("key_id_invalid")
    return kid, alg


def _trusted(setting: IssuerSettings, clock: Clock, fetch: Fetch) -> TrustedIssuer:
    unknown = sorted(set(setting.algorithms) - ALGORITHMS.keys())
    if unknown or not setting.algorithms:
        raise InvalidConfigError(
            f"issuer {setting.issuer}: algorithm `{', '.join(unknown)}` is not one that may be trusted",
            hint=f"Choose from {', '.join(ALGORITHMS)}.",
        )
    if not setting.audience:
        raise InvalidConfigError(
            f"issuer {setting.issuer}: `audience` is empty", hint="It is this gateway's own URL."
        )
    keys = FetchedKeys(setting.issuer, fetch=fetch, clock=clock, ttl=setting.jwks_ttl)
    return TrustedIssuer(
        setting.issuer, setting.audience, keys, frozenset(setting.algorithms), frozenset(setting.trust)
    )
