"""The body of a request on its way in: bounded in size, speed and memory, whoever sends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from math import inf

from doorward.core.errors import InvalidRequestError, PayloadTooLargeError, UnavailableError
from doorward.http1.budget import Budget
from doorward.http1.wheel import Deadline, Wheel

# A body must keep coming at this rate on average, once it was waited for longer than one pause may last.
_SLOWEST = 1024
# Above this much unread the caller has to wait; bytes.
_HIGH_WATER = 64 * 1024


def too_large(limit: int) -> PayloadTooLargeError:
    """Return the error for a body over `limit` bytes."""
    return PayloadTooLargeError(f"the body is larger than {limit} bytes", hint="Send less at a time.")


def too_slow() -> InvalidRequestError:
    """Return the error for a body that stalls or crawls."""
    return InvalidRequestError("the body arrives too slowly", code="request_timeout")


def overloaded() -> UnavailableError:
    """Return the error for a body there is no memory for at this moment."""
    return UnavailableError(
        "too many bytes are held for other requests at this moment", hint="Try again in a few seconds.",
        code="overloaded",
    )  # fmt: skip


class IncomingBody:
    """One request body. Implements core.wire.Body; `whole` reads it at once, within the budget."""

    __slots__ = (
        "_budget", "_deadline", "_error", "_invite", "_kept", "_parts", "_pause", "_read_on", "_reader",
        "_size", "_taken_bytes", "_time", "_waited", "complete", "length", "started",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 -- made in one place, by the connection
        self,
        *,
        length: int | None,
        wheel: Wheel,
        budget: Budget,
        pause: float,
        invite: Callable[[], None] | None,
        read_on: Callable[[], None],
    ) -> None:
        """Wait for a body of `length` bytes, None for a chunked one; `pause` bounds each silence, in seconds.

        `invite` asks a caller for the body who waits for that; `read_on` lets the connection go on reading.
        """
        self._parts: list[bytes] = []
        self._size = self._kept = self._taken_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._budget, self._pause = budget, pause
        self._deadline = Deadline(wheel, self._too_late)
        self._time = wheel.time
        self._waited = 0.0
        self._invite, self._read_on = invite, read_on
        self.length = length
        self.complete = length == 0
        self.started = False

    # Called by the connection.

    def arrived(self, data: bytes) -> bool:
        """Take a piece; return whether the connection should stop reading for now."""
        self._parts.append(data)
        self._size += len(data)
        self._budget.note(len(data))
        self._wake()
        return self._size > _HIGH_WATER

    def ended(self) -> None:
        """Note that the body is whole."""
        self.complete = True
        self._wake()

    def failed(self, error: Exception) -> None:
        """Note that it will never be whole."""
        if not self.complete and self._error is None:
            self._error = error
            self._wake()

    def dropped(self) -> None:
        """Let go of everything: the exchange is over."""
        self._deadline.clear()
        self._budget.give(self._size + self._kept)
        self._size = self._kept = 0
        self._parts = []

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _too_late(self) -> None:
        self.failed(too_slow())

    # Called by whoever reads.

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; raise InvalidRequestError if it stalls or is framed wrongly."""
        while (data := await self._next(inf)) is not None:
            yield data

    async def whole(self, *, limit: int, seconds: float) -> bytes:
        """Return the whole body; it counts against the budget until the exchange ends.

        Raises PayloadTooLargeError over `limit` bytes, InvalidRequestError after `seconds` or when it
        stalls, UnavailableError when the budget is used up.
        """
        if self.length is not None and self.length > limit:
            raise too_large(limit)
        until = self._time() + seconds
        parts: list[bytes] = []
        size = 0
        while (data := await self._next(until)) is not None:
            size += len(data)
            if size > limit:
                raise too_large(limit)
            if not self._budget.take(len(data)):
                raise overloaded()
            self._kept += len(data)
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _next(self, until: float) -> bytes | None:
        if not self.started:
            self.started = True
            if self._invite is not None and not self._parts and not self.complete:
                self._invite()
        while not self._parts:
            if self.complete:
                return None
            if self._error is not None:
                raise self._error
            await self._wait(until)
        parts, self._parts = self._parts, []
        self._budget.give(self._size)
        self._taken_bytes += self._size
        self._size = 0
        if not self.complete:
            self._read_on()
            if self._taken_bytes < (self._waited - self._pause) * _SLOWEST:
                raise too_slow()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _wait(self, until: float) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        begun = self._time()
        self._deadline.set(max(0.0, min(self._pause, until - begun)))
        try:
            await self._reader
        finally:
            self._reader = None
            self._deadline.clear()
            self._waited += self._time() - begun
