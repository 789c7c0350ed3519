"""The custodian: one private place for keys, one key per use, made on first use, never overwritten."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from doorward.core.errors import InvalidConfigError
from doorward.core.secret import Secret

_PRIVATE_DIRECTORY, _PRIVATE_FILE = 0o700, 0o600
_OTHERS = 0o077
_MAX_FILE = 64 * 1024
_SECRET_BYTES = 32


class KeyUse(StrEnum):
    """Name what a key is for; a key is never used for two things."""

    ISSUER = "issuer"
    DEVICE_CA = "device-ca"
    S3_MASTER = "s3-master"
    SESSION = "session"
    CHECKPOINT = "checkpoint"
    PDP_METADATA = "pdp-metadata"


class Custodian:
    """Keep keys in files that only we can read. Only the control process opens one."""

    def __init__(self, directory: Path) -> None:
        """Take a directory that `open` has checked."""
        self._directory = directory

    @classmethod
    def open(cls, provider: str, data: Path) -> Custodian:
        """Open `file:DIR` (relative to the data directory), making it if it is not there.

        Raises InvalidConfigError for another provider, and for a directory or key file that others
        could read or that is not ours.
        """
        scheme, separator, place = provider.partition(":")
        if scheme == "pkcs11":
            raise InvalidConfigError(
                "[keys] provider: keys in a PKCS#11 token are not available yet",
                hint='Use provider = "file:keys" for now.',
            )
        if scheme != "file" or not separator or not place:
            raise InvalidConfigError(
                f"[keys] provider: `{provider}` is not one", hint='Write provider = "file:keys".'
            )
        directory = data / place
        _make_directory(directory)
        # Names with a dot in front are drafts another process is about to put in place.
        for file in sorted(found for found in directory.iterdir() if not found.name.startswith(".")):
            _read_private(file)
        return cls(directory)

    def p256(self, use: KeyUse) -> ec.EllipticCurvePrivateKey:
        """Return the P-256 key of one use."""
        key = self._private_key(use, lambda: ec.generate_private_key(ec.SECP256R1()))
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise self._unusable(use)
        return key

    def ed25519(self, use: KeyUse) -> ed25519.Ed25519PrivateKey:
        """Return the Ed25519 key of one use."""
        key = self._private_key(use, ed25519.Ed25519PrivateKey.generate)
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise self._unusable(use)
        return key

    def secret(self, use: KeyUse) -> Secret[bytes]:
        """Return the 256 secret bits of one use."""
        text = self.keep(f"{use}.secret", lambda: secrets.token_hex(_SECRET_BYTES).encode())
        try:
            value = bytes.fromhex(text.decode("ascii").strip())
        except ValueError as reason:
            raise self._unusable(use) from reason
        if len(value) != _SECRET_BYTES:
            raise self._unusable(use)
        return Secret(value)

    def s3_secret(self, key_id: str, generation: int) -> str:
        """Return the S3 secret of a key: HMAC-SHA-256 of id and generation, so none is ever stored."""
        master = self.secret(KeyUse.S3_MASTER).reveal()
        digest = hmac.digest(master, f"s3:{key_id}:{generation}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")

    def keep(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return the file `name`, written once with what `make` gives if it is not there."""
        file = self._directory / name
        if not file.exists():
            _create_once(file, make())
        return _read_private(file)

    def _private_key(self, use: KeyUse, make: Callable[[], object]) -> object:
        def fresh() -> bytes:
            key = make()
            assert isinstance(key, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey))  # noqa: S101 -- for types
            return key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )

        try:
            return serialization.load_pem_private_key(self.keep(f"{use}.pem", fresh), password=None)
        except (ValueError, TypeError) as reason:
            raise self._unusable(use) from reason

    def _unusable(self, use: KeyUse) -> InvalidConfigError:
        return InvalidConfigError(
            f"the key `{use}` in {self._directory} cannot be used",
            hint="Restore it from your backup. Without it a new one is made, and what it signed ends.",
        )


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        state = directory.lstat()
    except OSError as reason:
        raise InvalidConfigError(f"{directory} cannot be used for keys: {reason.strerror}") from reason
    if not stat.S_ISDIR(state.st_mode):
        raise InvalidConfigError(f"{directory} must be a directory of its own, not a link to one")
    _refuse_loose(directory, state, "700")


def _refuse_loose(path: Path, state: os.stat_result, mode: str) -> None:
    if state.st_uid != os.geteuid():
        raise InvalidConfigError(
            f"{path} belongs to another user (uid {state.st_uid})",
            hint=f"chown {os.geteuid()} '{path}'",
        )
    if state.st_mode & _OTHERS:
        raise InvalidConfigError(
            f"{path} holds keys and others can reach it (mode {stat.S_IMODE(state.st_mode):o})",
            hint=f"chmod {mode} '{path}'",
        )


def _read_private(file: Path) -> bytes:
    """Read a key file through one descriptor, so that what was checked is what is read."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as reason:
        raise InvalidConfigError(f"{file} cannot be read: {reason.strerror}") from reason
    with os.fdopen(descriptor, "rb") as opened:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise InvalidConfigError(f"{file} is not a plain file", hint="Keep only keys in this directory.")
        _refuse_loose(file, state, "600")
        return opened.read(_MAX_FILE)


def _create_once(file: Path, content: bytes) -> None:
    """Write a file whole or not at all; if another process was first, its file stays."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(descriptor)
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        _sync_directory(file.parent)
    except OSError as reason:
        raise InvalidConfigError(f"{file} cannot be written: {reason.strerror}") from reason


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
