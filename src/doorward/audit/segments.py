"""One writer's directory of segments: recovered at start, appended to, repaired, rotated. Synchronous.

A segment is named after the first record in it. Only whole batches that were synced count; what a
failed batch left behind is cut before the next one, so a reader never meets half a record for long.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from doorward.audit import canonical
from doorward.audit.disk import Disk
from doorward.audit.draft import Draft
from doorward.audit.head import Head, read_head, write_head
from doorward.core.errors import AuditBrokenError, ConflictError

_log = structlog.get_logger()


def segment_paths(directory: Path) -> list[Path]:
    """Return a writer's segments in the order of their records."""
    return sorted(directory.glob("[0-9]*.jsonl"))


def segment_name(first: int) -> str:
    """Return the file name of the segment that starts with this sequence number."""
    return f"{first:020d}.jsonl"


class Finding(msgspec.Struct, frozen=True):
    """State what recovery met: an event for the log's own record, a sentence, and numbers."""

    event: str
    detail: str
    facts: dict[str, Any]


class Segments:
    """Append chained records durably. Not thread-safe: one thread uses it."""

    def __init__(self, directory: Path, *, writer: str, segment_bytes: int, disk: Disk) -> None:
        """Remember where to write; `open` does the work."""
        self.seq = 0
        self.head = canonical.GENESIS
        self._directory = directory
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._disk = disk
        self._lock = -1
        self._file = -1
        self._size = 0
        self._dirty = False
        self._sound = True
        self._head: Head | None = None

    def open(self) -> list[Finding]:
        """Lock the directory, cut a torn tail, find the end; return what is worth a record.

        Raises ConflictError if another process writes here, OSError if the disk refuses.
        """
        self._disk.make_directory(self._directory.parent)
        self._disk.make_directory(self._directory)
        self._lock = _locked(self._directory / "lock")
        findings = list(self._recovered())
        self._sound = all(finding.event == "opened" for finding in findings)
        paths = segment_paths(self._directory)
        if paths:
            self._file = self._disk.open(paths[-1])
            self._size = paths[-1].stat().st_size
        else:
            self._file = self._disk.open(self._directory / segment_name(self.seq + 1), fresh=True)
        return findings

    def append(self, drafts: Sequence[Draft]) -> None:
        """Chain, write and sync a batch: all of it is durable on return, none of it counts on OSError."""
        self.repair()
        seq, head, lines = self.seq, self.head, []
        for draft in drafts:
            seq += 1
            line, head = draft.sealed(seq=seq, writer=self._writer, previous=head)
            lines.append(line)
        data = b"".join(lines)
        if self._size and self._size + len(data) > self._segment_bytes:
            self._rotate()
        self._dirty = True
        self._disk.write(self._file, data)
        self._disk.sync(self._file)
        self._dirty = False
        self.seq, self.head = seq, head
        self._size += len(data)

    def begin(self, time: str) -> None:
        """Say in the head that the log goes on, before anything is appended. Raises OSError.

        What recovery found broken keeps its evidence: then the head stays until that is on record.
        """
        if self._head is None and not self.seq:
            self.mark(time, clean=False)
        elif self._head is not None and self._head.clean and self._sound:
            write_head(self._disk, self._directory, msgspec.structs.replace(self._head, clean=False))

    def mark(self, time: str, *, clean: bool) -> None:
        """Write the head: how far the log reaches now. Raises OSError."""
        write_head(self._disk, self._directory, Head(self._writer, self.seq, self.head, time, clean))

    def close(self) -> None:
        """Let go of the files and the lock."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def repair(self) -> None:
        """Cut what a failed batch left behind. Raises OSError."""
        if not self._dirty:
            return
        self._disk.truncate(self._file, self._size)
        # After a failed sync the kernel may have dropped the very pages it could not write and call
        # the file clean: nothing more is trusted to that file.
        if self._size:
            self._rotate()
        self._dirty = False

    def _rotate(self) -> None:
        fresh = self._disk.open(self._directory / segment_name(self.seq + 1), fresh=True)
        os.close(self._file)
        self._file, self._size = fresh, 0

    def _recovered(self) -> Iterator[Finding]:
        """Find the last good record, set aside what follows it, compare with the head."""
        torn = self._cut_tail()
        try:
            head = read_head(self._directory)
        except AuditBrokenError as reason:
            yield Finding("head_lost", reason.message, {"recovered": self.seq})
            head = None
        else:
            if head is None and self.seq:
                yield Finding(
                    "head_lost", "the head file is gone; it is always there", {"recovered": self.seq}
                )
        self._head = head
        if head is not None:
            yield from self._compared(head)
        if torn:
            yield Finding("opened", "a torn tail was cut and set aside", torn)
        else:
            yield Finding("opened", "", {"recovered": self.seq})

    def _cut_tail(self) -> dict[str, Any]:
        """Set `seq` and `head` from the last record that verifies; move the bytes after it aside."""
        cut = b""
        for path in reversed(segment_paths(self._directory)):
            data = path.read_bytes()
            keep, last = _last_record(data)
            cut = data[keep:] + cut
            if last is not None:
                self.seq, self.head = last["seq"], last["hash"]
                if keep < len(data):
                    descriptor = self._disk.open(path)
                    try:
                        self._set_aside(cut)
                        self._disk.truncate(descriptor, keep)
                    finally:
                        os.close(descriptor)
                break
            self._set_aside(data)
            path.unlink()
        if not cut:
            return {}
        return {
            "recovered": self.seq, "bytes": len(cut), "whole_lines": cut.count(b"\n"),
            "sha256": hashlib.sha256(cut).hexdigest(),
        }  # fmt: skip

    def _set_aside(self, data: bytes) -> None:
        """Keep the bytes recovery cuts: they may be evidence."""
        if data:
            name = f"torn-{hashlib.sha256(data).hexdigest()[:16]}.bin"
            self._disk.replace(self._directory / name, data)

    def _compared(self, head: Head) -> Iterator[Finding]:
        facts = {"size": head.size, "recovered": self.seq}
        if head.size > self.seq:
            missing = f"records {self.seq + 1} to {head.size} were durable and are gone"
            yield Finding("tail_lost", missing, facts)
        elif head.clean and head.size < self.seq:
            yield Finding("tail_added", f"records after {head.size} were added after a clean stop", facts)
        elif head.size and self._hash_at(head.size) not in {head.head, None}:
            yield Finding("tail_changed", f"record {head.size} is not the one that was durable", facts)

    def _hash_at(self, seq: int) -> str | None:
        """Return the hash the record with this number carries, None if it is not where it must be."""
        paths = [path for path in segment_paths(self._directory) if int(path.stem) <= seq]
        if not paths:
            return None
        lines = paths[-1].read_bytes().split(b"\n")
        index = seq - int(paths[-1].stem)
        try:
            return str(canonical.opened(lines[index])["hash"])
        except (canonical.NotCanonicalError, IndexError):
            return ""


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as reason:
        os.close(descriptor)
        raise ConflictError(
            f"another process writes the log in {path.parent}",
            hint="One data directory serves one Doorward; stop the other one or choose another --data.",
        ) from reason
    return descriptor


def _last_record(data: bytes) -> tuple[int, dict[str, Any] | None]:
    """Return where the last verifiable line ends, and its record."""
    end = data.rfind(b"\n") + 1
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        try:
            document = canonical.opened(data[start : end - 1])
            if canonical.hash_of(document) == document["hash"]:
                return end, document
        except canonical.NotCanonicalError:
            pass
        end = start
    return 0, None
