"""Find records again: all writers merged by time, forwards or backwards.

Reading needs no lock and no running process. A line that does not read as a record is skipped here;
`verify` is what complains about it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from doorward.audit.head import writer_directories
from doorward.audit.query import Query
from doorward.audit.segments import segment_paths

Cursor = dict[str, int]
AuditEntry = dict[str, Any]
_CHUNK = 1 << 16
_ALL = Query()


class Page(msgspec.Struct, frozen=True):
    """One page of records, newest first; `older` continues it, empty at the end of the log."""

    records: tuple[AuditEntry, ...]
    older: str


class AuditReader:
    """Read the log under `directory` (the one that holds a directory per writer)."""

    def __init__(self, directory: Path) -> None:
        """Remember where the log is; it need not exist yet."""
        self.directory = directory

    def records(self, query: Query = _ALL) -> Iterator[AuditEntry]:
        """Yield matching records of all writers, oldest first."""
        streams = [_forwards(place, query) for place in writer_directories(self.directory)]
        return heapq.merge(*streams, key=order)

    def latest(self, limit: int, query: Query = _ALL, *, older_than: str = "") -> Page:
        """Return the newest matching records, newest first; `older_than` is a page's `older`."""
        below = read_cursor(older_than)
        places = writer_directories(self.directory)
        streams = [_backwards(place, query, below.get(place.name)) for place in places]
        found: list[AuditEntry] = []
        reached = {place.name: below.get(place.name, _END) for place in places}
        for record in heapq.merge(*streams, key=order, reverse=True):
            if len(found) == limit:
                return Page(tuple(found), write_cursor(reached))
            found.append(record)
            reached[record["writer"]] = record["seq"]
        return Page(tuple(found), "")

    def request(self, request_id: str) -> list[AuditEntry]:
        """Return everything on record about one request: the decision, then what became of it."""
        return list(self.records(Query(request_id=request_id)))

    def position(self) -> Cursor:
        """Return how far each writer's log reaches now."""
        return {place.name: last_seq(place) for place in writer_directories(self.directory)}


_END = 2**62


def write_cursor(cursor: Mapping[str, int]) -> str:
    """Return a cursor as text: `control:7,gateway-1:120`."""
    return ",".join(f"{writer}:{seq}" for writer, seq in sorted(cursor.items()))


def read_cursor(text: str) -> Cursor:
    """Read a cursor's text; parts that are none are ignored, so that an old one never fails."""
    parts = (part.rpartition(":") for part in text.split(",")[:100])
    return {writer: int(seq) for writer, _, seq in parts if writer and seq.isascii() and seq.isdecimal()}


def order(record: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return the key that merges writers: time, then writer and sequence."""
    return (record["time"], record["writer"], record["seq"])


def _forwards(place: Path, query: Query) -> Iterator[AuditEntry]:
    for path in segment_paths(place):
        with path.open("rb") as file:
            for line in file:
                record = read_line(line, place.name, query)
                if record is not None:
                    yield record


def _backwards(place: Path, query: Query, below: int | None) -> Iterator[AuditEntry]:
    for path in reversed(segment_paths(place)):
        if below is not None and int(path.stem) >= below:
            continue
        for line in _lines_backwards(path):
            record = read_line(line, place.name, query)
            if record is not None and (below is None or record["seq"] < below):
                yield record


def read_line(line: bytes, writer: str, query: Query = _ALL) -> AuditEntry | None:
    """Return the record of a raw line, None if it is torn, no record, or does not match."""
    if not line.endswith(b"\n") or query.rules_out(line):
        return None
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    sound = (
        isinstance(record, dict)
        and isinstance(record.get("seq"), int)
        and isinstance(record.get("time"), str)
        and record.get("writer") == writer
    )
    return record if sound and query.matches(record) else None


def _lines_backwards(path: Path) -> Iterator[bytes]:
    """Yield a file's whole lines, last first, each with its newline."""
    with path.open("rb") as file:
        position = file.seek(0, 2)
        rest = b""
        while position:
            step = min(_CHUNK, position)
            position -= step
            file.seek(position)
            lines = (file.read(step) + rest).split(b"\n")
            rest = lines[0]
            # The first piece may go on in the chunk before; the last one has no newline behind it.
            for index in range(len(lines) - 1, 0, -1):
                tail = b"\n" if index < len(lines) - 1 else b""
                if lines[index] or tail:
                    yield lines[index] + tail
            rest += b"\n" if len(lines) > 1 else b""
        if rest:
            yield rest


def last_seq(place: Path) -> int:
    """Return the sequence number of a writer's last whole record, 0 if there is none."""
    for path in reversed(segment_paths(place)):
        for line in _lines_backwards(path):
            record = read_line(line, place.name)
            if record is not None:
                return int(record["seq"])
    return 0


def joined(records: list[AuditEntry]) -> AuditEntry | None:
    """Return a request's decision with its `outcome` in it, None if nothing was decided.

    A stream that is decided again has several decisions under one id: the last one stands.
    """
    decided = [record for record in records if record["kind"] in {"decision", "admin"}]
    if not decided:
        return None
    outcomes = [record.get("outcome", {}) for record in records if record["kind"] == "outcome"]
    return {**decided[-1], "outcome": outcomes[-1] if outcomes else {}}
