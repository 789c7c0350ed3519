"""Sign JSON Web Tokens with a custodian's key, which may lie where only its signatures come out."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc.jwk import ECKey

from doorward.identity.custody import Custodian, KeyUse

ALGORITHM = "ES256"
_COORDINATE = 32


class SigningKey:
    """One ES256 key (RFC 7518, 3.4), named by the thumbprint of its public half (RFC 7638)."""

    def __init__(self, private: EllipticCurvePrivateKey) -> None:
        """Take a P-256 key; only its signatures and its public half are used."""
        public = private.public_key()
        self._private = private
        shown = ECKey(public, public)
        self.kid = shown.thumbprint()
        self._public = {**shown.as_dict(private=False), "kid": self.kid, "alg": ALGORITHM, "use": "sig"}

    def public(self) -> dict[str, Any]:
        """Return the public JWK (RFC 7517)."""
        return dict(self._public)

    def sign(self, claims: Mapping[str, Any], *, typ: str) -> str:
        """Return a signed token (RFC 7515, 7.1) of a type (`typ`, RFC 8725 3.11) with these claims."""
        header = {"alg": ALGORITHM, "typ": typ, "kid": self.kid}
        signed = f"{_text(msgspec.json.encode(header))}.{_text(msgspec.json.encode(claims))}"
        # A JWS carries the two numbers themselves, not their DER form (RFC 7518, 3.4).
        r, s = decode_dss_signature(self._private.sign(signed.encode("ascii"), ECDSA(hashes.SHA256())))
        return f"{signed}.{_text(r.to_bytes(_COORDINATE) + s.to_bytes(_COORDINATE))}"


class SigningKeys:
    """The signing keys of one use, over the custodian's rotations; each is read once."""

    def __init__(self, custodian: Custodian, use: KeyUse) -> None:
        """Take where the keys lie."""
        self._custodian, self._use = custodian, use
        self._read: dict[int, SigningKey] = {}

    def newest(self) -> SigningKey:
        """Return the key that signs now."""
        return self._of(self._custodian.generation(self._use))

    def public(self, *, overlap: timedelta, now: datetime) -> list[dict[str, Any]]:
        """Return the public keys that count, newest first: an earlier one for `overlap` after its end."""
        counting = self._custodian.honoured(self._use, overlap=overlap, now=now)
        return [self._of(number).public() for number in counting]

    def _of(self, generation: int) -> SigningKey:
        key = self._read.get(generation)
        if key is None:
            key = self._read[generation] = SigningKey(self._custodian.p256(self._use, generation))
        return key


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")
