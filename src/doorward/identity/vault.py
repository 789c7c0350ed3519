"""Where keys lie: the port that the custodian has, and files that only we can read."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from doorward.core.errors import InvalidConfigError

_PRIVATE_DIRECTORY, _PRIVATE_FILE = 0o700, 0o600
_OTHERS = 0o077
_MAX_FILE = 64 * 1024
SECRET_BYTES = 32


class Vault(Protocol):
    """Keep keys by name, made on first use and never overwritten. Safe to call from several threads."""

    def p256(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Return a P-256 key; where it lies may be unable to give out its private numbers."""

    def ed25519(self, name: str) -> ed25519.Ed25519PrivateKey:
        """Return an Ed25519 key."""

    def mac(self, name: str, message: bytes) -> bytes:
        """Return HMAC-SHA-256 of a message under a 256-bit secret that stays where it is."""


class FileVault:
    """Keep keys as PKCS #8 PEM and secrets as hex, each in a file of mode 0600 of our own."""

    def __init__(self, directory: Path) -> None:
        """Take a directory, made if it is not there; raise InvalidConfigError if others could read it."""
        self._directory = directory
        make_private_directory(directory)
        # Names with a dot in front are drafts another process is about to put in place.
        for file in sorted(found for found in directory.iterdir() if not found.name.startswith(".")):
            read_private(file)

    def p256(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Return a P-256 key."""
        key = self._private_key(name, lambda: ec.generate_private_key(ec.SECP256R1()))
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise self._unusable(name)
        return key

    def ed25519(self, name: str) -> ed25519.Ed25519PrivateKey:
        """Return an Ed25519 key."""
        key = self._private_key(name, ed25519.Ed25519PrivateKey.generate)
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise self._unusable(name)
        return key

    def mac(self, name: str, message: bytes) -> bytes:
        """Return HMAC-SHA-256 of a message under the secret of this name."""
        text = keep(self._directory / f"{name}.secret", lambda: secrets.token_hex(SECRET_BYTES).encode())
        try:
            secret = bytes.fromhex(text.decode("ascii").strip())
        except ValueError as reason:
            raise self._unusable(name) from reason
        if len(secret) != SECRET_BYTES:
            raise self._unusable(name)
        return hmac.digest(secret, message, hashlib.sha256)

    def _private_key(self, name: str, make: Callable[[], object]) -> object:
        def fresh() -> bytes:
            key = make()
            assert isinstance(key, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey))  # noqa: S101 -- for types
            return key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )

        try:
            pem = keep(self._directory / f"{name}.pem", fresh)
            return serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as reason:
            raise self._unusable(name) from reason

    def _unusable(self, name: str) -> InvalidConfigError:
        return InvalidConfigError(
            f"the key `{name}` in {self._directory} cannot be used",
            hint="Restore it from your backup. Without it a new one is made, and what it signed ends.",
        )


def keep(file: Path, make: Callable[[], bytes]) -> bytes:
    """Return a private file's content, written once with what `make` gives if it is not there."""
    if not file.exists():
        create_once(file, make())
    return read_private(file)


def make_private_directory(directory: Path) -> None:
    """Make a directory that only we can enter; raise InvalidConfigError for one others can."""
    try:
        directory.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        state = directory.lstat()
    except OSError as reason:
        raise InvalidConfigError(f"{directory} cannot be used for keys: {reason.strerror}") from reason
    if not stat.S_ISDIR(state.st_mode):
        raise InvalidConfigError(f"{directory} must be a directory of its own, not a link to one")
    _refuse_loose(directory, state, "700")


def read_private(file: Path) -> bytes:
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


def create_once(file: Path, content: bytes) -> None:
    """Write a file whole or not at all; if another process was first, its file stays."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        _write(draft, content)
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        _sync_directory(file.parent)
    except OSError as reason:
        raise InvalidConfigError(f"{file} cannot be written: {reason.strerror}") from reason


def replace(file: Path, content: bytes) -> None:
    """Replace a private file whole. Raises OSError."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    _write(draft, content)
    draft.replace(file)
    _sync_directory(file.parent)


def _write(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(descriptor)


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


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
