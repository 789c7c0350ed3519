"""Keep entries on disk: many answers wait for one sync (group commit), and the file stays small.

Each frame is length, CRC-32 and body. Reading stops at the first frame that is not whole: what comes
after it was never answered. On failure: the whole owner stops, and limited requests are 503 until it is
back; it never goes on from memory that the disk does not hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from doorward.core.errors import ConflictError, UnavailableError
from doorward.ledger.entries import Entry

_HEAD: Final = struct.Struct("!II")
_FILE: Final = "journal"
# The file is written anew when it has grown to this, and to four times what it began with; bytes.
_SMALLEST: Final = 4 << 20
_GROWTH: Final = 4
_CLOSING_SECONDS: Final = 5.0
_decoder = msgspec.msgpack.Decoder(Entry)
_encoder = msgspec.msgpack.Encoder()
_log = structlog.get_logger()


def _frame(entry: Entry) -> bytes:
    body = _encoder.encode(entry)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


@dataclass(slots=True, frozen=True)
class _Job:
    """Bytes for the end of the file, or (`anew`) in place of it, and who waits for them."""

    data: bytes
    then: Callable[[], None] | None
    durable: bool
    anew: bool = False


class Journal:
    """Append entries in order from one event loop; a thread of its own writes and syncs."""

    def __init__(self, directory: Path) -> None:
        """Work in a directory that `open` makes and locks."""
        self._directory = directory
        self._path = directory / _FILE
        self._lock = self._file = -1
        self._ready = threading.Condition()
        self._queue: list[_Job] = []
        self._closing = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_failure: Callable[[OSError], None] = lambda _: None
        self.size = self._began = 0

    def lock(self) -> None:
        """Make the directory and take it; raise ConflictError if another process keeps it."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.chmod(0o700)
            self._lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"another process keeps the counters in {self._directory}",
                hint="One data directory serves one Doorward; stop the other one or choose another --data.",
            ) from None
        except OSError as reason:
            raise _unusable(self._directory, reason) from reason

    def read(self) -> Iterator[Entry]:
        """Yield what was kept, in order; stop at the first frame that is not whole. Call before `start`."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as reason:
            raise _unusable(self._path, reason) from reason
        at = 0
        while at + _HEAD.size <= len(data):
            length, check = _HEAD.unpack_from(data, at)
            body = data[at + _HEAD.size : at + _HEAD.size + length]
            if len(body) < length or zlib.crc32(body) != check:
                break
            try:
                entry = _decoder.decode(body)
            except msgspec.MsgspecError as reason:
                raise UnavailableError(
                    f"{self._path} holds an entry that this version cannot read ({reason})",
                    hint="Start the version that wrote it; removing the file would reset every budget.",
                ) from reason
            yield entry
            at += _HEAD.size + length
        if at < len(data):
            aside = self._path.with_suffix(".cut")
            aside.write_bytes(data[at:])
            _log.warning("journal_tail_cut", kept_in=str(aside), bytes=len(data) - at)

    def start(self, state: Iterable[Entry], on_failure: Callable[[OSError], None]) -> None:
        """Write `state` as a new file and go on from it; `on_failure` hears of a disk that refuses."""
        self._loop, self._on_failure = asyncio.get_running_loop(), on_failure
        try:
            data = b"".join(map(_frame, state))
            self._replace(data)
            self.size = self._began = len(data)
        except OSError as reason:
            raise _unusable(self._path, reason) from reason
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, *entries: Entry, then: Callable[[], None] | None = None, durable: bool = True) -> None:
        """Queue entries; `then` is called in the loop once they are written, and synced if `durable`."""
        data = b"".join(map(_frame, entries))
        self.size += len(data)
        self._put(_Job(data, then, durable=durable))

    @property
    def grown(self) -> bool:
        """Return whether the file should be written anew."""
        return self.size > max(_SMALLEST, _GROWTH * self._began)

    def rewrite(self, state: Iterable[Entry]) -> None:
        """Put `state`, which holds all that was appended so far, in place of the file."""
        data = b"".join(map(_frame, state))
        self.size = self._began = len(data)
        self._put(_Job(data, None, durable=True, anew=True))

    async def close(self) -> None:
        """Write what is queued, sync, let go."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _CLOSING_SECONDS)
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def _put(self, job: _Job) -> None:
        with self._ready:
            self._queue.append(job)
            self._ready.notify()

    # What follows runs in the writing thread (`_replace` once before it starts).

    def _run(self) -> None:
        while jobs := self._take():
            try:
                self._write(jobs)
            except OSError as reason:
                self._tell(partial(self._on_failure, reason))
                return
            answers = [job.then for job in jobs if job.then is not None]
            if answers:
                self._tell(partial(_call, answers))

    def _take(self) -> list[_Job]:
        """Wait for jobs; an empty list when closing and nothing is left."""
        with self._ready:
            while not self._queue and not self._closing:
                self._ready.wait()
            jobs, self._queue = self._queue, []
            return jobs

    def _write(self, jobs: list[_Job]) -> None:
        waiting: list[bytes] = []
        for job in jobs:
            if job.anew:
                # All that waits is in the new file already.
                waiting.clear()
                self._replace(job.data)
            else:
                waiting.append(job.data)
        data = memoryview(b"".join(waiting))
        while data:
            data = data[os.write(self._file, data) :]
        if any(job.durable and not job.anew for job in jobs):
            os.fdatasync(self._file)

    def _tell(self, act: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed meanwhile: nobody waits any more
                self._loop.call_soon_threadsafe(act)

    def _replace(self, data: bytes) -> None:
        draft = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        fresh = os.open(draft, flags, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fresh, rest) :]
            os.fsync(fresh)
            draft.replace(self._path)
            _sync_directory(self._directory)
        except OSError:
            os.close(fresh)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file = fresh


def _call(answers: list[Callable[[], None]]) -> None:
    for answer in answers:
        answer()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, reason: OSError) -> UnavailableError:
    return UnavailableError(
        f"{path} cannot be used: {reason.strerror or reason}",
        hint="Free the disk, or give the data directory to the user Doorward runs as.",
    )
