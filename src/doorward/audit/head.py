"""Heads and checkpoints: how far a writer's log reaches, so that a cut tail shows.

A head is written by its writer each second and when it stops. A checkpoint is the list of all heads,
signed by the control process, which alone holds the key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import structlog

from doorward.audit.canonical import canonical
from doorward.audit.disk import Disk
from doorward.core.clock import Clock, rfc3339
from doorward.core.errors import AuditBrokenError

HEAD_NAME = "head.json"
CHECKPOINT_NAME = "checkpoint.json"
PUBLIC_KEY_NAME = "checkpoint.pub"
KEYS_NAME = "checkpoint.keys.json"
Sign = Callable[[bytes], bytes]
S = TypeVar("S", bound=msgspec.Struct)
_log = structlog.get_logger()


class Head(msgspec.Struct, frozen=True):
    """State that a writer made `size` records durable, the last of them with hash `head`.

    `clean` says the writer stopped in order: nothing may follow.
    """

    writer: str
    size: int
    head: str
    time: str
    clean: bool = False


class Checkpoint(msgspec.Struct, frozen=True):
    """State all writers' heads at one time; `signature` (hex) covers the two.

    `key` (hex) only hints at which key signed: a rotation makes a new checkpoint.
    """

    heads: tuple[Head, ...]
    time: str
    signature: str = ""
    key: str = ""

    def signed_bytes(self) -> bytes:
        """Return the bytes the signature covers, under a label no other signed thing shares."""
        body = {"heads": [msgspec.to_builtins(head) for head in self.heads], "time": self.time}
        return b"doorward audit checkpoint v1\n" + canonical(body)


def read_head(directory: Path) -> Head | None:
    """Return the head of one writer's directory, None if there is none; raise AuditBrokenError."""
    return _read(directory / HEAD_NAME, Head)


def read_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the last checkpoint of the whole log, None if none was made; raise AuditBrokenError."""
    return _read(directory / CHECKPOINT_NAME, Checkpoint)


def write_head(disk: Disk, directory: Path, head: Head) -> None:
    """Replace a writer's head. Raises OSError."""
    disk.replace(directory / HEAD_NAME, msgspec.json.encode(head) + b"\n")


def _read(path: Path, kind: type[S]) -> S | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as reason:
        raise AuditBrokenError(
            f"{path} was changed: it does not read as a {kind.__name__.lower()} ({reason})",
            hint="Doorward replaces this file whole; something else wrote to it.",
        ) from reason


class CheckpointKey(msgspec.Struct, frozen=True):
    """The key that signs now, its public half (hex and PEM), and how it follows from `earlier` ones (PEM)."""

    sign: Sign
    name: str = ""
    pem: bytes = b""
    endorsements: bytes = b""
    earlier: tuple[bytes, ...] = ()


class SigningKeys(Protocol):
    """Give the key that signs now; the custodian may have rotated it since."""

    def newest(self) -> CheckpointKey:
        """Return it."""


class Checkpointer:
    """Sign all writers' heads; never sign less than was signed before."""

    def __init__(
        self,
        directory: Path,
        *,
        keys: SigningKeys,
        clock: Clock,
        disk: Disk | None = None,
    ) -> None:
        """Work on the log's directory (above its writers), with the custodian's newest key each time."""
        self._keys = keys
        self._directory = directory
        self._clock = clock
        self._disk = disk or Disk()

    def sign_now(self) -> Checkpoint | None:
        """Sign the heads if they moved; return the new checkpoint.

        Raises AuditBrokenError if a writer's log is gone or shorter than signed before, or a head was
        changed: the earlier checkpoint stays, as evidence. Raises OSError if the disk refuses it.
        """
        before = read_checkpoint(self._directory)
        heads = tuple(filter(None, (read_head(place) for place in writer_directories(self._directory))))
        key = self._keys.newest()
        if not heads or (before is not None and before.heads == heads and before.key == key.name):
            return None
        if before is not None:
            _require_growth(before, {head.writer: head for head in heads})
        draft = Checkpoint(heads, rfc3339(self._clock.now()))
        signed = Checkpoint(draft.heads, draft.time, key.sign(draft.signed_bytes()).hex(), key.name)
        # In this order a reader with the old key and one with the new verify at every moment.
        self._lay(KEYS_NAME, key.endorsements, instead_of=None)
        self._disk.replace(self._directory / CHECKPOINT_NAME, msgspec.json.encode(signed) + b"\n")
        self._lay(PUBLIC_KEY_NAME, key.pem, instead_of=key.earlier)
        return signed

    async def keep(self, interval: float = 1.0) -> None:
        """Sign every `interval` seconds until cancelled, and once more then."""
        try:
            while True:
                await asyncio.to_thread(self._try)
                await asyncio.sleep(interval)
        finally:
            self._try()

    def _lay(self, name: str, content: bytes, *, instead_of: tuple[bytes, ...] | None) -> None:
        """Lay a public file beside the log, for convenience: an outsider keeps a copy of her own.

        What is there stays unless it is one of `instead_of` (None: anything): a key that nobody rotated
        must not take the place of the one the log was signed with.
        """
        place = self._directory / name
        there = place.read_bytes() if place.exists() else None
        if content and there != content and (there is None or instead_of is None or there in instead_of):
            self._disk.replace(place, content)

    def _try(self) -> None:
        try:
            self.sign_now()
        except (AuditBrokenError, OSError) as reason:
            _log.critical("audit_checkpoint_failed", reason=str(reason))


def _require_growth(before: Checkpoint, now: dict[str, Head]) -> None:
    for old in before.heads:
        new = now.get(old.writer)
        if new is None or new.size < old.size or (new.size == old.size and new.head != old.head):
            raise AuditBrokenError(
                f"the log of `{old.writer}` no longer holds what was signed at {old.time}",
                hint="`doorward audit verify` names the first record that is missing or changed.",
            )


def writer_directories(directory: Path) -> list[Path]:
    """Return the directories of all writers of a log, sorted."""
    return sorted(path for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []
