"""See records as they come: each `poll` reads only what was appended since the one before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from doorward.audit.head import writer_directories
from doorward.audit.query import Query
from doorward.audit.reader import AuditEntry, AuditReader, Cursor, last_seq, order, read_line
from doorward.audit.segments import segment_paths

_ALL = Query()


@dataclass(slots=True)
class _Place:
    """How far one writer's log was read: the segment, and the bytes of it."""

    path: Path
    offset: int


class Follower:
    """Read on from a cursor; `cursor` moves with every poll and may be kept to resume later.

    One process polls from one thread at a time.
    """

    def __init__(self, reader: AuditReader, cursor: Cursor | None = None, *, query: Query = _ALL) -> None:
        """Start after `cursor`, by default at the end of the log."""
        self.cursor = reader.position() if cursor is None else dict(cursor)
        self._directory = reader.directory
        self._query = query
        self._places: dict[str, _Place] = {}

    def poll(self) -> list[AuditEntry]:
        """Return what came since the last poll, oldest first."""
        found: list[AuditEntry] = []
        for directory in writer_directories(self._directory):
            found += self._appended(directory)
        return sorted(found, key=order)

    def _appended(self, directory: Path) -> list[AuditEntry]:
        paths = segment_paths(directory)
        if not paths:
            return []
        place = self._places.setdefault(directory.name, self._start(directory.name, paths))
        found: list[AuditEntry] = []
        for path in [path for path in paths if path >= place.path]:
            if path != place.path:
                place.path, place.offset = path, 0
            found += self._read(directory, place)
        return found

    def _start(self, writer: str, paths: list[Path]) -> _Place:
        """Return the segment that holds what follows the cursor."""
        after = self.cursor.get(writer, 0)
        reached = [path for path in paths if int(path.stem) <= after + 1]
        return _Place((reached or paths)[-1 if reached else 0], 0)

    def _read(self, directory: Path, place: _Place) -> list[AuditEntry]:
        size = place.path.stat().st_size
        if size < place.offset:
            # A batch that failed was cut off again: its numbers will come once more.
            place.offset = 0
            self.cursor[directory.name] = min(self.cursor.get(directory.name, 0), last_seq(directory))
        if size == place.offset:
            return []
        found: list[AuditEntry] = []
        with place.path.open("rb") as file:
            file.seek(place.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                place.offset += len(line)
                record = read_line(line, directory.name)
                if record is None or record["seq"] <= self.cursor.get(directory.name, 0):
                    continue
                self.cursor[directory.name] = record["seq"]
                if self._query.matches(record):
                    found.append(record)
        return found
