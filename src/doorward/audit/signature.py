"""Check who signed a checkpoint: Ed25519 (RFC 8032) with a public key in PEM.

When the key is rotated the old one signs the new one: who holds the first key verifies all that follows.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from doorward.audit.head import KEYS_NAME
from doorward.audit.verify import CheckSignature
from doorward.core.errors import InvalidConfigError

_MAX_KEYS = 1000


class Endorsement(msgspec.Struct, frozen=True):
    """State that the key before signed this one (`key`: its 32 bytes, both in hex)."""

    key: str
    signature: str


def endorsed_bytes(key: Ed25519PublicKey) -> bytes:
    """Return what the earlier key signs, under a label no other signed thing shares."""
    return b"doorward audit key v1\n" + key.public_bytes_raw()


def checker(pem: bytes, directory: Path | None = None) -> CheckSignature:
    """Return a check against this public key, and those it endorsed as the log in `directory` says.

    Raises InvalidConfigError if it is not an Ed25519 key.
    """
    try:
        key = load_pem_public_key(pem)
    except ValueError as reason:
        raise InvalidConfigError("the checkpoint key is not a public key in PEM form") from reason
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidConfigError("the checkpoint key is not an Ed25519 public key")
    trusted = [key, *_endorsed(key, _read(directory))]
    return lambda message, signature: any(_holds(each, signature, message) for each in trusted)


def _read(directory: Path | None) -> list[Endorsement]:
    """Return what the log says of its keys; what cannot be read endorses nothing."""
    if directory is None:
        return []
    try:
        content = (directory / KEYS_NAME).read_bytes()
        return msgspec.json.decode(content, type=list[Endorsement])[:_MAX_KEYS]
    except (OSError, msgspec.MsgspecError):
        return []


def _endorsed(trusted: Ed25519PublicKey, chain: list[Endorsement]) -> list[Ed25519PublicKey]:
    found: list[Ed25519PublicKey] = []
    newest = trusted
    for endorsement in chain:
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(endorsement.key))
            signature = bytes.fromhex(endorsement.signature)
        except ValueError:
            return found
        if _holds(newest, signature, endorsed_bytes(key)):
            found.append(key)
            newest = key
    return found


def _holds(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
