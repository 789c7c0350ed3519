"""When and from where each key was last used: kept in memory, written now and then, never per request."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

_FOLDER = "last-use"
_log = structlog.get_logger()


class Use(msgspec.Struct, frozen=True):
    """The last use of a key: Unix seconds, and the address it came from."""

    at: int
    ip: str


class LastUses:
    """Collect uses of one gateway process; `save` writes those that are new, in one small file."""

    def __init__(self, data: Path | None, writer: str = "gateway") -> None:
        """Write below `data` under the name of this process; without `data` remember only."""
        self._file = None if data is None else data / _FOLDER / f"{writer}.json"
        self._uses: dict[str, tuple[float, str]] = {}
        self._changed = False
        if self._file is not None:
            self._uses = {key: (use.at, use.ip) for key, use in _read(self._file).items()}

    def note(self, key_id: str, now: datetime, ip: str) -> None:
        """Remember a use; costs one entry of a dictionary."""
        self._uses[key_id] = (now.timestamp(), ip)
        self._changed = True

    def save(self) -> None:
        """Write what is new, if anything is; a disk that refuses costs the knowledge, not the request."""
        if self._file is None or not self._changed:
            return
        self._changed = False
        uses = {key: Use(int(at), ip) for key, (at, ip) in dict(self._uses).items()}
        try:
            self._file.parent.mkdir(mode=0o700, exist_ok=True)
            draft = self._file.with_name(f".{self._file.name}.{secrets.token_hex(4)}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(msgspec.json.encode(uses))
            draft.replace(self._file)
        except OSError as reason:
            self._changed = True
            _log.warning("last_uses_not_saved", reason=reason.strerror or str(reason))

    def forget_others(self, known: frozenset[str]) -> None:
        """Keep only keys that exist, so that what is remembered stays bounded by them."""
        gone = self._uses.keys() - known
        for key in gone:
            del self._uses[key]
        self._changed = self._changed or bool(gone)


def last_uses(data: Path) -> dict[str, tuple[datetime, str]]:
    """Return, of every gateway process together, when and from where each key was last used."""
    found: dict[str, tuple[datetime, str]] = {}
    for key, use in _of_all(data):
        at = datetime.fromtimestamp(use.at, UTC)
        if key not in found or found[key][0] < at:
            found[key] = (at, use.ip)
    return found


def _of_all(data: Path) -> Iterator[tuple[str, Use]]:
    for file in sorted((data / _FOLDER).glob("*.json")):
        yield from _read(file).items()


def _read(file: Path) -> dict[str, Use]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Use])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as reason:
        _log.warning("last_uses_not_read", file=str(file), reason=type(reason).__name__)
        return {}
