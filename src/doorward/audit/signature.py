"""Check who signed a checkpoint: Ed25519 (RFC 8032) with a public key in PEM."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from doorward.audit.verify import CheckSignature
from doorward.core.errors import InvalidConfigError


def checker(pem: bytes) -> CheckSignature:
    """Return a check against this public key; raise InvalidConfigError if it is not an Ed25519 key."""
    try:
        key = load_pem_public_key(pem)
    except ValueError as reason:
        raise InvalidConfigError("the checkpoint key is not a public key in PEM form") from reason
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidConfigError("the checkpoint key is not an Ed25519 public key")

    def check(message: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return check
