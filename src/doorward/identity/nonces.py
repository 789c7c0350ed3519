"""Nonces of our own for DPoP proofs (RFC 9449, 9): without a list they prove that a proof is a new one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from doorward.core.clock import Clock
from doorward.core.errors import InvalidConfigError

LIFETIME = 120  # seconds a nonce may be used
_KEY_BYTES = 32
_TIME_BYTES = 8
_NONCE_BYTES = _TIME_BYTES + 16
_FILE = "dpop-nonce.key"


class Nonces:
    """Make and recognise nonces: a time and its MAC, so that every worker of a machine knows them."""

    def __init__(self, key: bytes, clock: Clock) -> None:
        """Take the key the workers share."""
        self._key, self._clock = key, clock

    def fresh(self) -> str:
        """Return a nonce for now."""
        return self._nonce(int(self._clock.now().timestamp()))

    def holds(self, nonce: object) -> bool:
        """Return whether a nonce is ours and not older than LIFETIME."""
        if not isinstance(nonce, str) or not nonce.isascii():
            return False
        try:
            made = int.from_bytes(base64.urlsafe_b64decode(nonce)[:_TIME_BYTES])
        except ValueError:
            return False
        age = self._clock.now().timestamp() - made
        if not hmac.compare_digest(self._nonce(made), nonce):
            return False
        return -1 <= age < LIFETIME

    def _nonce(self, made: int) -> str:
        time = made.to_bytes(_TIME_BYTES)
        mac = hmac.digest(self._key, time, hashlib.sha256)[: _NONCE_BYTES - _TIME_BYTES]
        return base64.urlsafe_b64encode(time + mac).decode("ascii")


def shared_key(data: Path) -> bytes:
    """Return the key the gateways of this data directory share; the first one makes it.

    Raises InvalidConfigError if the file cannot be made or is not ours alone.
    """
    file = data / _FILE
    draft = data / f".{_FILE}.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(_KEY_BYTES))
        # A link is made whole or not at all: of two workers that start together both read one key.
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        if file.stat().st_mode & 0o077:
            raise InvalidConfigError(f"{file} may be read by others", hint=f"chmod 600 {file}")
        key = file.read_bytes()
    except OSError as reason:
        raise InvalidConfigError(f"{file} cannot be used: {reason.strerror or reason}") from reason
    if len(key) != _KEY_BYTES:
        raise InvalidConfigError(f"{file} is damaged", hint="Remove it; it is made anew.")
    return key
