"""Answers on their way to a caller: whole ones in one write, streamed ones as they come, at her speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from doorward.core.wire import Answer
from doorward.http1.heads import lines, status_line
from doorward.http1.wheel import Deadline

if TYPE_CHECKING:
    from doorward.http1.listener import Listener

_WRITE_BUFFER = 64 * 1024
# Above this size a copy costs more than another element of the write.
_COPY = 16 * 1024
_EMPTY = 204
_NO_CONTENT = frozenset({_EMPTY, 304})
_HTTP_1_0 = (1, 0)
_OURS = frozenset({"transfer-encoding", "connection", "server", "date", "keep-alive"})


class Outgoing:
    """The writing half of one connection."""

    __slots__ = ("_deadline", "_full", "_listener", "_transport", "_writable", "lost", "streaming")

    def __init__(self, transport: asyncio.Transport, listener: Listener) -> None:
        """Write to `transport`; an answer that is not read in time ends the connection."""
        self._transport, self._listener = transport, listener
        self._deadline = Deadline(listener.wheel, transport.abort)
        self._writable: asyncio.Future[None] | None = None
        self._full = self.lost = self.streaming = False
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)

    def pause(self) -> None:
        """Let the answer wait: the caller does not read."""
        self._full = True

    def resume(self) -> None:
        """Let it go on."""
        self._full = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def end(self) -> None:
        """Forget the transport: it is gone."""
        self.lost = True
        self._deadline.clear()

    async def write(self, answer: Answer, *, method: str, version: tuple[int, int], keep: bool) -> bool:
        """Write an answer; return whether the connection can be kept.

        Raises ValueError, before anything is written, if a header would break its line.
        """
        if self.lost:
            return False
        # A HEAD keeps the length that a GET would have; 204 and 304 have none of their own.
        empty = method == "HEAD" or answer.status in _NO_CONTENT
        body = answer.body
        headers, declared = self._headers(answer, empty=empty)
        chunked = not isinstance(body, bytes) and declared is None and not empty
        if chunked and version == _HTTP_1_0:
            chunked = keep = False
        if chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        if not keep:
            headers.append(("Connection", "close"))
        head = lines(status_line(answer.status), headers)
        if not isinstance(body, bytes):
            self._transport.write(head)
            self.streaming = True
            whole = await self._stream(
                body, declared=None if empty else declared, chunked=chunked, empty=empty
            )
            self.streaming = False
            return keep and whole
        if empty or not body:
            self._transport.write(head)
        elif len(body) <= _COPY:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        if self._full:
            await self._drained()
        return keep

    def _headers(self, answer: Answer, *, empty: bool) -> tuple[list[tuple[str, str]], int | None]:
        """Return the headers to send, and the length that was declared for a streamed body."""
        whole = isinstance(answer.body, bytes) and not empty
        declared: int | None = None
        headers: list[tuple[str, str]] = []
        for pair in answer.headers:
            name = pair[0].lower()
            if name in _OURS:
                continue
            if name == "content-length":
                if whole or answer.status == _EMPTY or declared is not None or not pair[1].isdecimal():
                    continue
                declared = int(pair[1])
            headers.append(pair)
        if whole:
            headers.append(("Content-Length", str(len(answer.body))))  # type: ignore[arg-type]  # bytes, if whole
        headers += (("Server", "doorward"), ("Date", self._listener.date()))
        return headers, declared

    async def _stream(
        self, body: AsyncIterator[bytes], *, declared: int | None, chunked: bool, empty: bool
    ) -> bool:
        """Write a streamed answer with backpressure; one that breaks off ends the connection abruptly."""
        whole, sent = False, 0
        try:
            if not empty:
                async for chunk in body:
                    sent += len(chunk)
                    if declared is not None and sent > declared:
                        break
                    if chunk:
                        self._write_chunk(chunk, chunked=chunked)
                        if self._full:
                            await self._drained()
            whole = declared is None or sent == declared
            if whole and chunked:
                self._transport.write(b"0\r\n\r\n")
        except Exception as error:  # noqa: BLE001 -- whatever broke it, the caller sees that it is not all
            self._listener.broken(error)
        finally:
            try:
                close = getattr(body, "aclose", None)
                if close is not None:
                    await close()
            finally:
                if not whole:
                    self._break_off()
        return whole

    def _write_chunk(self, chunk: bytes, *, chunked: bool) -> None:
        if not chunked:
            self._transport.write(chunk)
        elif len(chunk) <= _COPY:
            self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        else:
            self._transport.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))

    def _break_off(self) -> None:
        """End without the end of the answer: short of its length, or without the last chunk."""
        if self._full:
            self._transport.abort()
        elif not self.lost:
            self._transport.close()
            self._deadline.set(self._listener.bounds.linger)

    async def _drained(self) -> None:
        if self.lost:
            return
        self._deadline.set(self._listener.bounds.write_timeout)
        self._writable = self._listener.loop.create_future()
        try:
            await self._writable
        finally:
            self._writable = None
            self._deadline.clear()
