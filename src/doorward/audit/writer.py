"""Make records durable: many waiting requests share one write and one sync (group commit).

`write` returns when its record is on disk and raises AuditUnavailableError in every other case: past
the deadline, disk full, I/O error, queue full, closed. It never hangs and never claims what is not so.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import structlog

from doorward.audit.disk import Disk
from doorward.audit.draft import Draft
from doorward.audit.segments import Segments
from doorward.core.clock import Clock, rfc3339
from doorward.core.errors import AuditUnavailableError
from doorward.core.ids import IdSource
from doorward.core.record import LogRecord, Record
from doorward.settings import AuditSettings

_BATCH = 1000
_HEAD_INTERVAL = 1.0
_PAUSE_AFTER_FAILURE = 0.05
# How long a record nobody waits for may wait for others to be made durable with.
_UNAWAITED_SECONDS = 0.02
_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Entry:
    """One queued record; `waiter` is None when nobody waits for it."""

    draft: Draft
    waiter: asyncio.Future[None] | None


class AuditWriter:
    """Write one process's records under `directory/writer`. Implements core.ports.AuditLog."""

    def __init__(  # noqa: PLR0913 -- everything is injected
        self,
        directory: Path,
        writer: str,
        *,
        clock: Clock,
        ids: IdSource,
        settings: AuditSettings,
        disk: Disk | None = None,
        queue: int = 10_000,
    ) -> None:
        """Remember what to do; `open` touches the disk. `queue` bounds records of each kind in memory."""
        self.writer = writer
        self._clock = clock
        self._ids = ids
        self._deadline = settings.deadline
        self._segments = Segments(
            directory / writer, writer=writer, segment_bytes=settings.segment_bytes, disk=disk or Disk()
        )
        self._bound = queue
        self._ready = threading.Condition()
        self._awaited: deque[_Entry] = deque()
        self._unawaited: deque[_Entry] = deque()
        self._closing = False
        self._closed = True
        self._failed = ""
        self._refused = 0
        self._lost = 0
        self._lost_noted = 0
        self._marked = (-1, 0.0)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._called = self._timed = False
        self._expected: deque[tuple[float, asyncio.Future[None]]] = deque()

    @property
    def healthy(self) -> bool:
        """Return whether the last batch became durable (for /readyz)."""
        return not self._closed and not self._failed

    @property
    def lost(self) -> int:
        """Return how many unawaited records were dropped since the start (for metrics)."""
        return self._lost

    async def open(self) -> None:
        """Recover the tail, note what was found, and start to write.

        Raises ConflictError if another process writes this log, AuditUnavailableError if the disk refuses.
        """
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        try:
            findings = await asyncio.to_thread(self._segments.open)
            notes = [self._note(each.event, each.detail, each.facts) for each in findings]
            await asyncio.to_thread(self._begin, notes)
        except OSError as reason:
            self._segments.close()
            raise AuditUnavailableError(
                f"the audit log of `{self.writer}` cannot be opened: {reason.strerror or reason}",
                hint="Free the disk, or give the data directory to the user Doorward runs as.",
            ) from reason
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"audit-{self.writer}", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Write what is queued, mark a clean stop, let go; waits no longer than the deadline."""
        if self._closed:
            return
        with self._ready:
            self._closed = self._closing = True
            self._ready.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, self._deadline)

    async def __aenter__(self) -> Self:
        """Open the log."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the log."""
        await self.close()

    async def write(self, record: Record) -> None:
        """Return once the record is on disk; raise AuditUnavailableError otherwise."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        entry = _Entry(Draft(record), waiter)
        with self._ready:
            if self._closed:
                raise AuditUnavailableError("the audit log is closed")
            if len(self._awaited) >= self._bound:
                self._refused += 1
                raise AuditUnavailableError(
                    "too many requests wait for the audit log", hint="The disk is slower than the traffic."
                )
            self._awaited.append(entry)
            self._ready.notify()
        self._expect(loop, waiter)
        try:
            await waiter
        except TimeoutError as reason:
            self._withdraw(entry)
            raise AuditUnavailableError(
                f"the record was not durable within {self._deadline:g} s", hint="The disk does not keep up."
            ) from reason
        except asyncio.CancelledError:
            self._withdraw(entry)
            raise

    def write_soon(self, record: Record) -> None:
        """Queue a record nobody waits for; when the queue is full it is dropped and counted."""
        try:
            entry = _Entry(Draft(record), None)
        except AuditUnavailableError:
            self._lost += 1
            return
        with self._ready:
            if self._closed or len(self._unawaited) >= self._bound:
                self._lost += 1
                return
            self._unawaited.append(entry)
        # It goes with the next batch that somebody waits for, or alone a moment later: half the syncs.
        if self._loop is None or threading.get_ident() != self._loop_thread:
            self._wake()
        elif not self._called:
            self._called = True
            self._loop.call_later(_UNAWAITED_SECONDS, self._wake)

    def _wake(self) -> None:
        self._called = False
        with self._ready:
            if self._unawaited:
                self._ready.notify()

    def _expect(self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
        """Let a record's waiter fail at the deadline.

        One timer serves all: they come in the order of their deadlines. It is a timer on the answers, not on
        their tasks: when the loop was busy past the deadline, an answer that came in time is handled
        before the timer, and counts.
        """
        self._expected.append((loop.time() + self._deadline, waiter))
        if not self._timed:
            self._timed = True
            loop.call_later(self._deadline, self._expire)

    def _expire(self) -> None:
        if self._loop is None:
            return
        now = self._loop.time()
        while self._expected and (self._expected[0][1].done() or self._expected[0][0] <= now):
            _, waiter = self._expected.popleft()
            if not waiter.done():
                waiter.set_exception(TimeoutError())
        self._timed = bool(self._expected)
        if self._timed:
            self._loop.call_later(max(0.001, self._expected[0][0] - now), self._expire)

    def _withdraw(self, entry: _Entry) -> None:
        """Take back a record whose request was refused meanwhile, unless it is being written."""
        with self._ready, contextlib.suppress(ValueError):
            self._awaited.remove(entry)

    # What follows runs in the writing thread.

    def _begin(self, notes: list[Draft]) -> None:
        self._segments.begin(rfc3339(self._clock.now()))
        # The notes before the new head: until they are durable, the old one is evidence of what they say.
        self._segments.append(notes)
        self._mark(clean=False)

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            if batch:
                self._commit(batch)
            self._mark_in_time()
        self._finish()

    def _take(self) -> list[_Entry] | None:
        """Wait for records, at most until a head is due; None when closing and nothing is left."""
        with self._ready:
            if not self._awaited and not self._unawaited:
                if self._closing:
                    return None
                self._ready.wait(_HEAD_INTERVAL)
            batch: list[_Entry] = []
            for queue in (self._awaited, self._unawaited):
                while queue and len(batch) < _BATCH:
                    batch.append(queue.popleft())
            return batch

    def _commit(self, batch: list[_Entry]) -> None:
        try:
            self._segments.append([entry.draft for entry in batch])
        except Exception as reason:  # noqa: BLE001 -- whatever went wrong, nothing may be claimed durable
            self._refuse(batch, reason)
            return
        if self._failed:
            _log.info("audit_healed", writer=self.writer)
        healed, self._failed = self._failed, ""
        self._tell(batch, None, healed)

    def _refuse(self, batch: list[_Entry], reason: Exception) -> None:
        text = (
            (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
        )
        if not self._failed:
            _log.critical("audit_write_failed", writer=self.writer, reason=text)
        self._failed = text
        kept = [entry for entry in batch if entry.waiter is None]
        with self._ready:
            self._refused += len(batch) - len(kept)
            room = max(0, self._bound - len(self._unawaited))
            dropped = len(kept) if self._closing else max(0, len(kept) - room)
            self._lost += dropped
            self._unawaited.extendleft(reversed(kept[: len(kept) - dropped]))
        self._tell(batch, text, "")
        with contextlib.suppress(OSError):
            self._segments.repair()
        time.sleep(_PAUSE_AFTER_FAILURE)  # a full disk is not asked a thousand times a second

    def _tell(self, batch: list[_Entry], failure: str | None, healed: str) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        with contextlib.suppress(RuntimeError):  # the loop closed meanwhile: nobody waits any more
            self._loop.call_soon_threadsafe(self._answer, batch, failure, healed)

    def _mark_in_time(self) -> None:
        size, when = self._marked
        if size != self._segments.seq and time.monotonic() - when >= _HEAD_INTERVAL:
            with contextlib.suppress(OSError):  # a head that lags claims less, never more
                self._mark(clean=False)

    def _mark(self, *, clean: bool) -> None:
        self._segments.mark(rfc3339(self._clock.now()), clean=clean)
        self._marked = (self._segments.seq, time.monotonic())

    def _finish(self) -> None:
        try:
            self._segments.repair()
            self._mark(clean=True)
        except OSError as reason:
            _log.critical("audit_close_failed", writer=self.writer, reason=str(reason))
        if self._lost > self._lost_noted:
            _log.error("audit_records_lost", writer=self.writer, lost=self._lost - self._lost_noted)
        self._segments.close()

    # What follows runs in the event loop.

    def _answer(self, batch: list[_Entry], failure: str | None, healed: str) -> None:
        for entry in batch:
            waiter = entry.waiter
            if waiter is None:
                continue
            if waiter.done():
                if failure is None:
                    self._note_soon(
                        "unclaimed", "became durable after its request was refused or had gone",
                        {"record": entry.draft.id, "request": entry.draft.request_id},
                    )  # fmt: skip
            elif failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(AuditUnavailableError(f"the record could not be written: {failure}"))
        if healed:
            refused, self._refused = self._refused, 0
            self._note_soon("healed", f"writing works again after: {healed}", {"refused": refused})
        if failure is None and self._lost > self._lost_noted:
            lost, self._lost_noted = self._lost - self._lost_noted, self._lost
            self._note_soon("lost", "records nobody waited for were dropped", {"lost": lost})

    def _note_soon(self, event: str, detail: str, facts: dict[str, Any]) -> None:
        with self._ready:
            if not self._closed:
                self._unawaited.append(_Entry(self._note(event, detail, facts), None))
                self._ready.notify()

    def _note(self, event: str, detail: str, facts: dict[str, Any]) -> Draft:
        time_now = rfc3339(self._clock.now())
        return Draft(
            LogRecord(
                id=self._ids.new(), kind="log", time=time_now, request_id="",
                event=event, detail=detail, facts=facts,
            )
        )  # fmt: skip
