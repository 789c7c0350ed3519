"""Prove that nobody touched the log: recompute every hash and compare every end with what was promised.

For each writer the first record that was changed, removed, reordered, duplicated or cut is named. The
heads are read before the records, so that a log that is being written to verifies as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from doorward.audit import canonical
from doorward.audit.head import Head, read_checkpoint, read_head, writer_directories
from doorward.audit.segments import segment_paths
from doorward.core.errors import AuditBrokenError

CheckSignature = Callable[[bytes, bytes], bool]
_ID = re.compile(rb'"id":"([0-9A-Za-z_.-]{1,64})"')
_BROKEN_EVENTS = frozenset({"tail_lost", "tail_changed", "tail_added", "head_lost"})


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """Name the first record of a writer that is not as it was written, and what is wrong with it.

    `what` is changed, removed, reordered, duplicated, cut, added, missing or `unsigned`; `id` is empty
    when the record itself is gone.
    """

    writer: str
    what: str
    seq: int
    id: str = ""
    segment: str = ""
    detail: str = ""


class WriterReport(msgspec.Struct, frozen=True, kw_only=True):
    """State what one writer's log holds; `head` is the hash of its last record, `clean` how it ended."""

    writer: str
    records: int
    head: str
    clean: bool = False
    broken: Break | None = None
    notes: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """State what the whole log holds; `covered` is the time of the signed checkpoint, if any."""

    writers: tuple[WriterReport, ...]
    broken: tuple[Break, ...]
    covered: str = ""

    @property
    def intact(self) -> bool:
        """Return whether no record was changed, removed, reordered, duplicated or cut."""
        return not self.broken


def verify(directory: Path, *, check_signature: CheckSignature | None = None) -> Report:
    """Verify all writers under `directory`.

    `check_signature(message, signature)` checks checkpoints with a key the caller trusts; without
    it their content is compared but who signed them is not known.
    """
    broken: list[Break] = []
    promised: dict[str, Head] = {}
    covered = ""
    try:
        checkpoint = read_checkpoint(directory)
    except AuditBrokenError as reason:
        checkpoint = None
        broken.append(Break(writer="", what="changed", seq=0, detail=reason.message))
    if checkpoint is not None:
        covered = checkpoint.time
        promised = {head.writer: head for head in checkpoint.heads}
        if check_signature is not None and not _signed(check_signature, checkpoint):
            broken.append(
                Break(writer="", what="unsigned", seq=0, detail="the checkpoint's signature does not verify")
            )
    reports = [
        _verify_writer(place, promised.pop(place.name, None)) for place in writer_directories(directory)
    ]
    broken += [report.broken for report in reports if report.broken is not None]
    broken += [
        Break(writer=writer, what="missing", seq=1, detail=f"the whole log of {head.size} records is gone")
        for writer, head in promised.items()
    ]
    if check_signature is not None and checkpoint is None and any(report.clean for report in reports):
        broken.append(Break(writer="", what="missing", seq=0, detail="the signed checkpoint is gone"))
    if not reports and not broken:
        broken.append(Break(writer="", what="missing", seq=1, detail=f"there is no log in {directory}"))
    return Report(writers=tuple(reports), broken=tuple(broken), covered=covered)


def _signed(check: CheckSignature, checkpoint: Any) -> bool:
    try:
        return check(checkpoint.signed_bytes(), bytes.fromhex(checkpoint.signature))
    except ValueError:
        return False


def _verify_writer(place: Path, promised: Head | None) -> WriterReport:
    writer = place.name
    try:
        head = read_head(place)
    except AuditBrokenError as reason:
        found = Break(writer=writer, what="changed", seq=0, segment="head.json", detail=reason.message)
        return WriterReport(writer=writer, records=0, head="", broken=found)
    chain = _Chain(writer, [each for each in (promised, head) if each is not None])
    broken = next(chain.walk(place), None)
    if broken is None:
        broken = chain.end(head)
    return WriterReport(
        writer=writer,
        records=chain.seq,
        head=chain.head,
        clean=head is not None and head.clean,
        broken=broken,
        notes=tuple(chain.notes),
    )


class _Chain:
    """Walk one writer's records; each check yields a Break, and the first one is the answer."""

    def __init__(self, writer: str, promises: list[Head]) -> None:
        self.seq = 0
        self.head = canonical.GENESIS
        self.notes: list[str] = []
        self._writer = writer
        self._last: dict[str, Any] = {}
        self._promises = promises
        self._place = ""

    def walk(self, directory: Path) -> Iterator[Break]:
        """Yield what is wrong, in the order it is met."""
        paths = segment_paths(directory)
        for path in paths:
            self._place = path.name
            data = path.read_bytes()
            *lines, rest = data.split(b"\n")
            if lines and int(path.stem) > self.seq + 1:
                yield self._break(
                    "removed", self.seq + 1, detail=f"the next segment starts with record {int(path.stem)}"
                )
            for index, line in enumerate(lines):
                yield from self._check(line, lines, index + 1)
            if rest and path is not paths[-1]:
                yield self._break("changed", self.seq + 1, detail="a segment ends in the middle of a record")
            elif rest:
                self.notes.append(
                    f"{len(rest)} bytes at the end are half a record: being written, or left by a crash"
                )

    def end(self, head: Head | None) -> Break | None:
        """Return what is wrong with the end of the log, given what its writer promised."""
        if head is None:
            return self._break("missing", self.seq, detail="the head file, which is always there, is gone")
        for promise in self._promises:
            if promise.size > self.seq:
                return self._break(
                    "cut", self.seq + 1, detail=f"records {self.seq + 1} to {promise.size} are gone"
                )
        if head.clean and head.size < self.seq:
            return self._break("added", head.size + 1, detail="it was added after a clean stop")
        return None

    def _check(self, line: bytes, lines: list[bytes], following: int) -> Iterator[Break]:
        try:
            record = canonical.opened(line)
            digest = canonical.hash_of(record)
        except canonical.NotCanonicalError as reason:
            claimed = line if _ID.search(line) else line + _rest_of(lines[following : following + 1])
            yield self._break("changed", self.seq + 1, line=claimed, detail=str(reason))
            return
        if digest != record["hash"]:
            yield self._break("changed", self.seq + 1, record, detail="its content does not match its hash")
        elif record["writer"] != self._writer:
            yield self._break("added", self.seq + 1, record, detail=f"{record['writer']!r} wrote it")
        elif record["seq"] != self.seq + 1:
            yield self._misplaced(record, lines[following:])
        elif record["prev"] != self.head:
            yield self._unlinked(record, lines[following:])
        self.seq, self.head, self._last = record["seq"], digest, record
        yield from self._kept(record)
        if record["kind"] == "log" and record.get("event") in _BROKEN_EVENTS:
            first = int(record.get("facts", {}).get("recovered", self.seq - 1)) + 1
            yield self._break(
                "cut", first, detail=f"found at the start of {record['time']}: {record['detail']}"
            )

    def _kept(self, record: dict[str, Any]) -> Iterator[Break]:
        """Compare a record with the heads that were promised for its number."""
        for promise in self._promises:
            if promise.size == self.seq and promise.head != self.head:
                yield self._break(
                    "changed", self.seq, record, detail=f"at {promise.time} another record stood here"
                )

    def _misplaced(self, record: dict[str, Any], following: list[bytes]) -> Break:
        expected = self.seq + 1
        if record["seq"] <= self.seq:
            return self._break(
                "duplicated",
                record["seq"],
                record,
                detail=f"it stands a second time, after record {self.seq}",
            )
        missing = next((each for each in map(_peek, following) if each.get("seq") == expected), None)
        if missing is not None:
            return self._break(
                "reordered", expected, missing, detail=f"record {record['seq']} stands in its place"
            )
        return self._break(
            "removed",
            expected,
            detail=f"record {self.seq} is followed by record {record['seq']} ({record['id']})",
        )

    def _unlinked(self, record: dict[str, Any], following: list[bytes]) -> Break:
        """Tell which of two neighbours that do not fit is false: the next record or the head knows."""
        after = _peek(following[0]) if following else {}
        kept = any(each.size == record["seq"] and each.head == record["hash"] for each in self._promises)
        if (kept or after.get("prev") == record["hash"]) and self._last:
            return self._break(
                "changed",
                self.seq,
                self._last,
                detail="and its hash rewritten: the next one was chained to another",
            )
        return self._break(
            "changed", record["seq"], record, detail="it is not chained to the record before it"
        )

    def _break(
        self, what: str, seq: int, record: dict[str, Any] | None = None, *, line: bytes = b"", detail: str
    ) -> Break:
        known = record if record is not None else _peek(line)
        return Break(
            writer=self._writer,
            what=what,
            seq=seq,
            id=str(known.get("id", "")),
            segment=self._place,
            detail=detail,
        )


def _rest_of(following: list[bytes]) -> bytes:
    """Return the next line if it is the other half of a record that a false newline broke in two."""
    return b"".join(line for line in following if not _whole(line))


def _whole(line: bytes) -> bool:
    """Return whether a line is a record of its own."""
    try:
        canonical.opened(line)
    except canonical.NotCanonicalError:
        return False
    return True


def _peek(line: bytes) -> dict[str, Any]:
    """Read what a line claims, without believing it; an empty record if it says nothing."""
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        written = _ID.search(line)
        return {"id": written[1].decode()} if written else {}
    return record if isinstance(record, dict) else {}
