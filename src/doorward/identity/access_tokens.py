"""Verify JWT access tokens (RFC 9068, RFC 8725): numbered checks, one refusal, a cache that forgets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from doorward.core.clock import Clock
from doorward.core.errors import InvalidConfigError
from doorward.identity import claims, svids
from doorward.identity.claims import VerifiedToken
from doorward.identity.introspection import Introspector
from doorward.identity.issuer_keys import FedKeys, Fetch, FetchedKeys, KeySource
from doorward.identity.key_sets import ALGORITHMS, signature_holds
from doorward.identity.spiffe import TrustDomains
from doorward.identity.strict_jose import SignedParts, TokenFaultError, take_apart
from doorward.identity.token_cache import Kept, TokenCache
from doorward.settings import IssuerSettings

_TYPES = frozenset({"at+jwt", "application/at+jwt"})
# Parameters that bring their own key, change the signed bytes, or demand what we do not do.
_FORBIDDEN = frozenset({"crit", "jwk", "jku", "x5u", "x5c", "b64", "zip", "enc"})
_LOCAL_ALGORITHMS = frozenset({"ES256"})
_MAX_KID = 256
_DOTS_OF_A_JWT = 2
CACHE_SECONDS = 300.0


class TrustedIssuer(msgspec.Struct, frozen=True):
    """An issuer, what its tokens must be for, and how far its word goes.

    `trust` lists which of `amr`, `acr`, `auth_time` count, `max_age` for how many seconds after a token
    was issued they do. `leeway` is in seconds, for `exp`.
    """

    name: str
    audience: str
    keys: KeySource
    algorithms: frozenset[str]
    trust: frozenset[str] = frozenset()
    local: bool = False
    leeway: int = claims.SKEW
    max_age: int | None = None
    mapped: Mapping[str, str] = MappingProxyType({})
    provision: bool = False


Introspectors = Callable[[IssuerSettings, FetchedKeys], Introspector | None]


class TokenVerifier:
    """Turn the text of an access token into what it verifiably says."""

    def __init__(  # noqa: PLR0913 -- what the composition root wires, by name
        self,
        issuers: Sequence[IssuerSettings],
        *,
        local: FedKeys,
        audience: str,
        clock: Clock,
        fetch: Fetch,
        introspectors: Introspectors | None = None,
        domains: TrustDomains | None = None,
    ) -> None:
        """Trust exactly these issuers; raise InvalidConfigError for one that cannot be trusted.

        `introspectors` makes what asks an issuer about its opaque tokens, None for one that has none.
        `domains` are the trust domains whose workloads may show JWT-SVIDs.
        """
        self._clock, self._local, self._audience = clock, local, audience
        self._monotonic = clock.monotonic
        self._trusted = {setting.issuer: _trusted(setting, clock, fetch) for setting in issuers}
        if len(self._trusted) != len(issuers):
            raise InvalidConfigError("one issuer is configured twice", hint="Keep one [[issuer]] for each.")
        self._cache, self._domains = TokenCache(), domains
        self._introspectors = _by_prefix(
            introspectors(setting, keys)
            for setting in issuers
            if introspectors is not None
            and isinstance(keys := self._trusted[setting.issuer].keys, FetchedKeys)
        )

    def cached(self, text: str, *, now: datetime) -> Kept | None:
        """Return, without waiting, a token that verified and still would; None: ask `verify`.

        Its end, its issuer's keys and their age are looked at every time.
        """
        # Written out, because every request of a known caller comes through here.
        kept = self._cache.get(text)
        if kept is None:
            return None
        if self._monotonic() < kept.until and now < kept.token.expires and kept.source.current() is kept.keys:
            return kept
        self._cache.drop(text)
        return None

    async def verify(self, text: str) -> Kept:
        """Return what the token says; raise TokenFaultError with the reason for the record."""
        # 0. What is no JWT may be an opaque token: only the issuer it can be of is asked.
        if text.count(".") != _DOTS_OF_A_JWT and (asked := self._introspector_of(text)) is not None:
            kept = await asked.verify(text)
            self._cache.put(text, kept)
            return kept
        # 1-3. Size, shape, strict base64url and JSON.
        parts = take_apart(text)
        # A workload's token has rules of its own, and no other will do for it.
        if self._domains and svids.is_jwt_svid(parts):
            return self._verified_svid(text, parts, self._domains)
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
        until = min(self._clock.monotonic() + CACHE_SECONDS, issuer.keys.fresh_until())
        kept = Kept(token, issuer.keys, issuer.keys.current(), until=until)
        # The keys may have changed since step 7 began to wait.
        if verification_key.thumbprint not in kept.keys.thumbprints:
            raise TokenFaultError("signing_key_unknown")
        self._cache.put(text, kept)
        return kept

    def _verified_svid(self, text: str, parts: SignedParts, domains: TrustDomains) -> Kept:
        now = self._clock.now()
        domain, token = svids.verify_jwt(parts, domains, now=now, audience=self._audience)
        kept = Kept(token, domain, domain.current(), until=self._clock.monotonic() + CACHE_SECONDS)
        self._cache.put(text, kept)
        return kept

    def issuer(self, name: Any) -> TrustedIssuer | None:
        """Return the trusted issuer with exactly this name; the local one cannot be taken over."""
        if not isinstance(name, str):
            return None
        if name == self._local.issuer:
            return TrustedIssuer(name, self._audience, self._local, _LOCAL_ALGORITHMS, local=True, leeway=0)
        return self._trusted.get(name)

    def stands(self, issuer: str, credential: str) -> bool:
        """Return, without waiting, whether an opaque token that let somebody in still counts."""
        asked = next((one for one in self._introspectors if one.issuer == issuer), None)
        return asked is not None and asked.stands(credential)

    def _introspector_of(self, text: str) -> Introspector | None:
        return next((one for one in self._introspectors if text.startswith(one.prefix)), None)

    async def close(self) -> None:
        """Stop refreshes that are under way."""
        for introspector in self._introspectors:
            await introspector.close()
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
            max_age=issuer.max_age,
            mapped=issuer.mapped,
            provision=issuer.provision,
        )


def _by_prefix(found: Iterable[Introspector | None]) -> tuple[Introspector, ...]:
    """Order issuers so that the longest prefix is tried first; raise InvalidConfigError for an equal two."""
    known = sorted((one for one in found if one is not None), key=lambda one: -len(one.prefix))
    prefixes = [one.prefix for one in known]
    if len(set(prefixes)) != len(prefixes):
        raise InvalidConfigError(
            "two issuers have opaque tokens that begin alike",
            hint="Give each `introspection` the `prefix` of its tokens: nobody else may see them.",
        )
    return tuple(known)


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
        setting.issuer,
        setting.audience,
        keys,
        frozenset(setting.algorithms),
        frozenset(setting.trust),
        max_age=setting.max_age,
        mapped={str(name): claim for name, claim in setting.map.items()},
        provision=setting.provision,
    )
