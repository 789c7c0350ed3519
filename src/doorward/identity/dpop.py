"""Check DPoP proofs: that who sends a token holds the key it is bound to, on this very request (RFC 9449)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from doorward.core.clock import Clock
from doorward.core.ports import OneTimeStore
from doorward.core.wire import Request
from doorward.identity import refusals
from doorward.identity.key_sets import PROOF_ALGORITHMS, VerificationKey, read_key, signature_holds
from doorward.identity.nonces import Nonces
from doorward.identity.own_addresses import OwnAddresses
from doorward.identity.strict_jose import SignedParts, TokenFaultError, take_apart

WINDOW = 60  # seconds a proof may be old, or a client's clock fast
MAX_PROOF = 4096
_HEADER = frozenset({"typ", "alg", "jwk"})
_JTI = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_LAST_TIME = 253_402_300_799


class Presented(msgspec.Struct, frozen=True):
    """A proof and what it must be about: this request, this token, the key the token is bound to."""

    proof: str
    request: Request
    token: str
    thumbprint: str


class ProofVerifier:
    """Verify proofs of possession; one per process."""

    def __init__(
        self, *, own: OwnAddresses, one_time: OneTimeStore, clock: Clock, nonces: Nonces | None = None
    ) -> None:
        """Demand a nonce of ours where `nonces` is given."""
        self._own, self._one_time, self._clock, self._nonces = own, one_time, clock, nonces

    async def verify(self, presented: Presented) -> None:
        """Raise UnauthenticatedError unless the proof holds, UnavailableError if a replay cannot be told."""
        try:
            # 1-7. Its form, its header, its own key, its signature.
            parts = _parts_of(presented.proof)
            key = _key_of(parts)
            # 8-10. It was made for this method, this URL, and just now.
            self._about(parts.payload, presented.request)
            until = self._fresh(parts.payload)
            # 11-12. It was made for this token, by the key this token is bound to.
            _for_token(parts.payload, key, presented)
        except TokenFaultError as fault:
            raise refusals.proof_refused(str(fault)) from None
        # 13. It answers a challenge of ours, where one is demanded.
        if self._nonces is not None and not self._nonces.holds(parts.payload.get("nonce")):
            raise refusals.nonce_wanted(self._nonces.fresh())
        # 14. It is used once. Last, so that nothing is spent by a request that fails anyway.
        await self._spend(key.thumbprint, parts.payload["jti"], until)

    async def shown(self, proof: str, request: Request) -> str:
        """Return the thumbprint of the key a proof is made with, where there is no token yet (RFC 9449, 5).

        Raises as `verify` does.
        """
        try:
            parts = _parts_of(proof)
            key = _key_of(parts)
            self._about(parts.payload, request)
            until = self._fresh(parts.payload)
        except TokenFaultError as fault:
            raise refusals.proof_refused(str(fault)) from None
        if self._nonces is not None and not self._nonces.holds(parts.payload.get("nonce")):
            raise refusals.nonce_wanted(self._nonces.fresh())
        await self._spend(key.thumbprint, parts.payload["jti"], until)
        return key.thumbprint

    def _about(self, payload: dict[str, Any], request: Request) -> None:
        if payload.get("htm") != request.method:
            raise TokenFaultError("proof_for_another_method")
        url = payload.get("htu")
        if not isinstance(url, str) or not self._own.is_request(url, raw_path=request.raw_path):
            raise TokenFaultError("proof_for_another_url")

    def _fresh(self, payload: dict[str, Any]) -> datetime:
        made = payload.get("iat")
        if type(made) is not int or not 0 <= made <= _LAST_TIME - WINDOW:
            raise TokenFaultError("proof_time_invalid")
        at = datetime.fromtimestamp(made, UTC)
        if abs((self._clock.now() - at).total_seconds()) > WINDOW:
            raise TokenFaultError("proof_not_made_now")
        return at + timedelta(seconds=WINDOW + 1)

    async def _spend(self, thumbprint: str, jti: str, until: datetime) -> None:
        # Per key: nobody can use up another client's identifiers.
        if not await self._one_time.claim("dpop", f"{thumbprint}\n{jti}", expires=until.timestamp()):
            raise refusals.proof_refused("proof_replayed")


def _parts_of(proof: str) -> SignedParts:
    # 1. A proof beyond the cap is not looked at. 2. It is one compact JWS in strict base64url and JSON.
    if len(proof) > MAX_PROOF:
        raise TokenFaultError("proof_too_long")
    parts = take_apart(proof)
    # 3. Its type says that it is a proof, and nothing in the header asks for what we do not do.
    if parts.header.get("typ") != "dpop+jwt":
        raise TokenFaultError("not_a_proof")
    if parts.header.keys() != _HEADER:
        raise TokenFaultError("proof_header_has_more")
    # 4. Its algorithm is asymmetric, and one we listed.
    alg = parts.header["alg"]
    if not isinstance(alg, str) or alg not in PROOF_ALGORITHMS:
        raise TokenFaultError("proof_algorithm_not_allowed")
    # 5. It is identified.
    jti = parts.payload.get("jti")
    if not isinstance(jti, str) or not _JTI.fullmatch(jti):
        raise TokenFaultError("proof_jti_invalid")
    return parts


def _key_of(parts: SignedParts) -> VerificationKey:
    # 6. The key is a public one, fit for the algorithm.
    jwk = parts.header["jwk"]
    if not isinstance(jwk, dict) or _PRIVATE & jwk.keys():
        raise TokenFaultError("proof_key_not_public")
    key = read_key(jwk)
    if key is None or not key.fits(parts.header["alg"]):
        raise TokenFaultError("proof_key_invalid")
    # 7. The signature holds, by the key the proof brings.
    if not signature_holds(parts, key, parts.header["alg"]):
        raise TokenFaultError("proof_signature_invalid")
    return key


def _for_token(payload: dict[str, Any], key: VerificationKey, presented: Presented) -> None:
    digest = hashlib.sha256(presented.token.encode("ascii")).digest()
    hashed = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
    stated = payload.get("ath")
    if not isinstance(stated, str) or not stated.isascii() or not hmac.compare_digest(hashed, stated):
        raise TokenFaultError("proof_for_another_token")
    if not hmac.compare_digest(key.thumbprint, presented.thumbprint):
        raise TokenFaultError("proof_by_another_key")
