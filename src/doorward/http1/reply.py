"""An answer of another server, as it arrives: its head first, its body when somebody reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from doorward.core.errors import UnavailableError

if TYPE_CHECKING:
    from doorward.http1.link import Link

# Above this much unread the other server has to wait; bytes.
_HIGH_WATER = 64 * 1024
_BODILESS = frozenset({204, 304})


class Reply:
    """One answer. Implements core.wire.UpstreamAnswer; always close it."""

    __slots__ = (
        "_broken", "_closed", "_link", "_parts", "_reader", "_size", "complete", "headers", "status",
    )  # fmt: skip

    def __init__(self, link: Link, status: int, headers: list[tuple[str, str]]) -> None:
        """Take the head; the link hands the body over as it comes."""
        self._link = link
        self._parts: list[bytes] = []
        self._size = 0
        self._reader: asyncio.Future[None] | None = None
        self._broken: UnavailableError | None = None
        self._closed = False
        self.status = status
        self.headers = headers
        self.complete = False

    # Called by the link.

    def arrived(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self._closed:
            return
        self._parts.append(data)
        self._size += len(data)
        self._link.note(len(data))
        if self._size > _HIGH_WATER:
            self._link.hold_back()
        self._wake()

    def ended(self) -> None:
        """Note that the body is whole."""
        self.complete = True
        self._wake()

    def broke(self, error: UnavailableError) -> None:
        """Note that the body will never be whole."""
        if not self.complete and self._broken is None:
            self._broken = error
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # Called by whoever reads.

    def arrived_whole(self) -> bytes | None:
        """Return the whole body if it is here and unread, else None; nothing is left to read then."""
        return self._taken() if self.complete else None

    def _taken(self) -> bytes:
        parts, self._parts = self._parts, []
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._link.note(-self._size)
        self._size = 0
        return data

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; raise UnavailableError if it breaks off or stalls."""
        while True:
            if self._parts:
                data = self._taken()
                if not self.complete:
                    self._link.go_on()
                yield data
            elif self.complete:
                return
            elif self._broken is not None:
                raise self._broken
            else:
                self._reader = asyncio.get_running_loop().create_future()
                self._link.await_more()
                try:
                    await self._reader
                finally:
                    self._reader = None

    async def close(self) -> None:
        """Drop the connection if the body was not received to its end."""
        if self._closed:
            return
        self._closed = True
        self._taken()
        if not self.complete:
            self._link.abort()


def has_no_body(method: str, status: int) -> bool:
    """Return whether an answer ends with its head, whatever its headers say (RFC 9112 §6.3)."""
    return method == "HEAD" or status in _BODILESS
