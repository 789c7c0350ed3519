"""The custodian: one private place for keys, one key per use, made on first use, rotated with overlap.

A use has generations. The newest signs; earlier ones are still honoured for the time that what they signed
may live, unless they were distrusted. Only the control process opens a custodian.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from doorward.core.errors import InvalidConfigError
from doorward.identity import vault as files
from doorward.identity.vault import FileVault, Vault

_ROTATIONS = "rotations.json"
# What a token's keys need beside it: certificates of the CA and when what was rotated.
_BESIDE_TOKEN = "keys"  # noqa: S105 -- a directory's name


class KeyUse(StrEnum):
    """Name what a key is for; a key is never used for two things."""

    ISSUER = "issuer"
    DEVICE_CA = "device-ca"
    S3_MASTER = "s3-master"
    CHECKPOINT = "checkpoint"
    PDP_METADATA = "pdp-metadata"
    AUTHENTICATORS = "authenticators"


class Rotation(msgspec.Struct, frozen=True):
    """State when a use got its next key; `distrusts` says the earlier ones count for nothing since."""

    at: datetime
    distrusts: bool = False


class Custodian:
    """Keep keys in a vault, and when they were rotated in a private file beside it."""

    def __init__(self, vault: Vault, directory: Path) -> None:
        """Take an open vault, and a private directory for what is not secret."""
        self._vault, self._directory = vault, directory
        self._changing = threading.Lock()
        self._listeners: list[Callable[[KeyUse], None]] = []
        self._rotations = _read_rotations(directory / _ROTATIONS)

    @classmethod
    def open(cls, provider: str, data: Path) -> Custodian:
        """Open `file:DIR` (relative to the data directory, made if it is not there) or `pkcs11:…`.

        Raises InvalidConfigError for another provider, for a directory or key file that others could
        read or that is not ours, and for a token that cannot be used.
        """
        scheme, separator, place = provider.partition(":")
        if scheme == "pkcs11":
            directory = data / _BESIDE_TOKEN
            files.make_private_directory(directory)
            return cls(_token_vault(provider), directory)
        if scheme != "file" or not separator or not place:
            raise InvalidConfigError(
                f"[keys] provider: `{provider}` is not one",
                hint='Write provider = "file:keys", or "pkcs11:token=…?module-path=…&pin-source=…".',
            )
        return cls(FileVault(data / place), data / place)

    def p256(self, use: KeyUse, generation: int | None = None) -> ec.EllipticCurvePrivateKey:
        """Return the P-256 key of one use: the newest, or an earlier generation."""
        return self._vault.p256(self._name(use, generation))

    def ed25519(self, use: KeyUse, generation: int | None = None) -> ed25519.Ed25519PrivateKey:
        """Return the Ed25519 key of one use: the newest, or an earlier generation."""
        return self._vault.ed25519(self._name(use, generation))

    def s3_secret(self, key_id: str, generation: int, made: datetime) -> str | None:
        """Return the S3 secret of a key: HMAC-SHA-256 of id and generation, so none is ever stored.

        The master is the one that was the newest when the key was made, so a rotation changes no key that
        is in use. None if that master is distrusted: the key must be made again.
        """
        rotations = self.rotations(KeyUse.S3_MASTER)
        since = [rotation for rotation in rotations if made < rotation.at]
        if any(rotation.distrusts for rotation in since):
            return None
        name = self._name(KeyUse.S3_MASTER, self.generation(KeyUse.S3_MASTER) - len(since))
        digest = self._vault.mac(name, f"s3:{key_id}:{generation}".encode())
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")

    def sealing_key(self, use: KeyUse, generation: int) -> bytes:
        """Return the 256-bit key that seals what is stored for one use."""
        return self._vault.mac(self._name(use, generation), b"seal:v1")

    def keep(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return the file `name` beside the keys, written once with what `make` gives."""
        return files.keep(self._directory / name, make)

    # Rotation

    def generation(self, use: KeyUse) -> int:
        """Return the number of the newest key of a use; the first is 1."""
        return 1 + len(self._rotations.get(use, ()))

    def rotations(self, use: KeyUse) -> tuple[Rotation, ...]:
        """Return when a use got its later keys, oldest first."""
        return self._rotations.get(use, ())

    def honoured(self, use: KeyUse, *, overlap: timedelta, now: datetime) -> tuple[int, ...]:
        """Return the generations that count, newest first: an earlier one for `overlap` after its end."""
        newest = self.generation(use)
        counting = [newest]
        for number, rotation in zip(range(newest - 1, 0, -1), reversed(self.rotations(use)), strict=True):
            if rotation.distrusts or now >= rotation.at + overlap:
                break
            counting.append(number)
        return tuple(counting)

    def rotate(self, use: KeyUse, *, now: datetime, distrust: bool = False) -> int:
        """Start the next key of a use and return its generation; with `distrust` the earlier ones end now.

        Raises InvalidConfigError if that cannot be written down: then nothing changed.
        """
        with self._changing:
            after = {**self._rotations, use: (*self.rotations(use), Rotation(now, distrust))}
            try:
                files.replace(self._directory / _ROTATIONS, msgspec.json.encode(after))
            except OSError as reason:
                raise InvalidConfigError(f"the rotation cannot be kept: {reason.strerror}") from reason
            self._rotations = after
        for listener in tuple(self._listeners):
            listener(use)
        return self.generation(use)

    def on_rotation(self, listener: Callable[[KeyUse], None]) -> None:
        """Call `listener` after each rotation, in the thread that asked for it."""
        self._listeners.append(listener)

    def _name(self, use: KeyUse, generation: int | None) -> str:
        number = self.generation(use) if generation is None else generation
        return str(use) if number == 1 else f"{use}-{number}"


def _token_vault(provider: str) -> Vault:
    try:
        from doorward.identity.token_vault import TokenVault  # noqa: PLC0415 -- an extra few installations have
    except ImportError as missing:
        raise InvalidConfigError(
            "[keys] provider: keys in a PKCS #11 token need the package python-pkcs11",
            hint='Install it: pip install "doorward[pkcs11]".',
        ) from missing
    return TokenVault(provider)


def _read_rotations(file: Path) -> dict[KeyUse, tuple[Rotation, ...]]:
    if not file.exists():
        return {}
    try:
        return msgspec.json.decode(files.read_private(file), type=dict[KeyUse, tuple[Rotation, ...]])
    except msgspec.MsgspecError as reason:
        raise InvalidConfigError(
            f"{file} cannot be read: {reason}",
            hint="It says which key is the newest. Restore it from the backup of the keys beside it.",
        ) from reason
