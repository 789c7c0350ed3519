"""A client that makes DPoP proofs, right ones and, on request, wrong ones (RFC 9449)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import Any

from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from doorward.core.clock import Clock


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header: dict[str, Any], claims: dict[str, Any], key: Any, alg: str) -> str:
    """Return a compact JWS, whatever the header says about its algorithm."""
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(JWSRegistry.algorithms[alg].sign(signed.encode(), key))}"


class ProofMaker:
    """One client's key, and proofs by it; `...` as a value leaves a member out."""

    def __init__(self, clock: Clock, *, key: Any = None, alg: str = "ES256") -> None:
        self.clock, self.alg = clock, alg
        self.key = key or ECKey.generate_key("P-256")

    @property
    def thumbprint(self) -> str:
        return self.key.thumbprint()

    def proof(  # noqa: PLR0913 -- what a test may bend
        self,
        url: str,
        *,
        token: str | None = None,
        method: str = "GET",
        header: dict[str, Any] | None = None,
        key: Any = None,
        iat: Any = 0,
        **changes: Any,
    ) -> str:
        """Make a proof; `iat` is relative to now, `key` signs (and shows) in place of the client's own."""
        signer = key or self.key
        public = signer.as_dict(private=False)
        head = {"typ": "dpop+jwt", "alg": self.alg, "jwk": public, **(header or {})}
        now = int(self.clock.now().timestamp())
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(12), "htm": method, "htu": url,
            "iat": now + iat if type(iat) is int else iat,
        }  # fmt: skip
        if token is not None:
            claims["ath"] = b64(hashlib.sha256(token.encode()).digest())
        claims.update(changes)
        return sign(_kept(head), _kept(claims), signer, self.alg)


def _kept(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ...}
