"""One connection to another server: a request goes out, one answer comes back, strictly in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import httptools

from doorward.core.errors import UnavailableError
from doorward.http1.budget import Budget
from doorward.http1.reply import Reply, has_no_body
from doorward.http1.wheel import Deadline, Wheel

_MAX_HEAD = 64 * 1024
_MAX_HEADERS = 200
_MAX_INTERIM = 8
_WRITE_BUFFER = 64 * 1024
_SWITCHING = 101
_GONE = "upstream_unavailable"


class LinkLostError(UnavailableError):
    """The connection ended before a single byte of the answer came."""

    code = _GONE


class UnsentError(LinkLostError):
    """The connection was gone before a single byte of the request went out."""


class _BadAnswerError(Exception):
    """The answer cannot be passed on; the message says why."""


class Link(asyncio.Protocol):
    """Speak HTTP/1.1 over one connection. `released` is told when it is free again, or lost."""

    def __init__(self, name: str, *, wheel: Wheel, budget: Budget, released: Callable[[Link], None]) -> None:
        """Wait for the connection; `name` says in errors whose it is."""
        self.name = name
        self._budget, self._released = budget, released
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._deadline = Deadline(wheel, self._too_late)
        self._parser: httptools.HttpResponseParser | None = None
        self._head: asyncio.Future[Reply] | None = None
        self._reply: Reply | None = None
        self._pump: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._full = self._held = self._lost = False
        self._begin("", 0.0)

    def _begin(self, method: str, patience: float) -> None:
        self._method, self._patience = method, patience
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = self._header_bytes = self._interim = 0
        self._in_head, self._whole, self._sent = True, False, True
        self._surplus, self._reusable, self._until_end = False, True, False

    # The life of the connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports do not derive from it, and have all of it.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits; an answer that goes on until the end of the connection is whole now."""
        self._lost = True
        if self._until_end and exc is None:
            self.on_message_complete()
        self._fail("broke off", _GONE)
        self.abort()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._released(self)

    def abort(self) -> None:
        """End the connection at once; what still waits for it fails."""
        self._lost = True
        self._deadline.clear()
        self._stop_pump()
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_usable(self) -> bool:
        """Return whether another request may go out."""
        return not self._lost and self._transport is not None and not self._transport.is_closing()

    # One exchange.

    async def exchange(
        self, method: str, head: bytes, body: bytes | AsyncIterator[bytes] | None, *,
        length: int | None, patience: float,
    ) -> Reply:  # fmt: skip
        """Send one request and return its answer once the head is there.

        `length` is what a streamed body must come to, None for a chunked one. `patience` bounds each
        wait for the other server, in seconds. Raises LinkLostError if the connection ended without an
        answer, UnavailableError for every other failure of the other server.
        """
        transport = self._transport
        if transport is None or not self.is_usable:
            raise UnsentError(f"the connection to upstream `{self.name}` is closed")
        self._begin(method, patience)
        self._parser = httptools.HttpResponseParser(self)
        waiting: asyncio.Future[Reply] = self._loop.create_future()
        self._head = waiting
        if body is None:
            transport.write(head)
        elif not isinstance(body, bytes):
            transport.write(head)
            self._sent = False
            self._pump = self._loop.create_task(self._pumped(body, length))
        elif len(body) > _WRITE_BUFFER:
            transport.writelines((head, body))
        else:
            transport.write(head + body)
        if self._sent:
            self._deadline.set(patience)
        try:
            return await waiting
        except BaseException:
            if self._head is waiting:
                self.abort()
            raise
        finally:
            # A short answer frees the connection before we are back: the next one may wait on it already.
            if self._head is waiting:
                self._head = None

    async def _pumped(self, body: AsyncIterator[bytes], length: int | None) -> None:
        """Send a body as it comes; one that fails, or is not as long as it should be, ends the connection."""
        sent = 0
        try:
            async for chunk in body:
                sent += len(chunk)
                if length is not None and sent > length:
                    break
                if chunk:
                    await self._write_piece(chunk, chunked=length is None)
            if length is not None and sent != length:
                raise UnavailableError(  # noqa: TRY301 -- handled as any other fault of the body
                    f"the body for upstream `{self.name}` is not as long as declared", code=_GONE
                )
        except Exception as error:  # noqa: BLE001 -- it belongs to whoever waits for the answer
            self._pump = None
            if self._head is not None and not self._head.done():
                self._head.set_exception(error)
            self._fail("was not sent the whole request", _GONE)
            self.abort()
            return
        if length is None and self._transport is not None:
            self._transport.write(b"0\r\n\r\n")
        self._pump, self._sent = None, True
        self._deadline.set(self._patience)

    async def _write_piece(self, chunk: bytes, *, chunked: bool) -> None:
        transport = self._transport
        if transport is None or self._lost:
            return
        if chunked:
            transport.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))
        else:
            transport.write(chunk)
        if self._full:
            self._deadline.set(self._patience)
            self._writable = self._loop.create_future()
            await self._writable
            self._writable = None
            self._deadline.clear()

    def _stop_pump(self) -> None:
        pump, self._pump = self._pump, None
        if pump is not None and pump is not asyncio.current_task():
            pump.cancel()

    def pause_writing(self) -> None:
        """Let a streamed body wait: the other server does not read."""
        self._full = True

    def resume_writing(self) -> None:
        """Let it go on."""
        self._full = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # What the reply asks for.

    def note(self, size: int) -> None:
        """Count bytes that wait to be read."""
        self._budget.note(size)

    def hold_back(self) -> None:
        """Read nothing more until the reply was read."""
        if not self._held and not self._lost and self._transport is not None:
            self._held = True
            self._deadline.clear()
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read on."""
        if self._held:
            self._held = False
            if not self._lost and self._transport is not None:
                self._transport.resume_reading()

    def await_more(self) -> None:
        """Note that somebody waits for the rest of the body: from now on silence is the other server's."""
        if not self._deadline.is_set and not self._lost:
            self._deadline.set(self._patience)

    # Bytes from the other server.

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        parser = self._parser
        if parser is None:
            # Nobody asked: whatever it is, it must not become the answer to the next question.
            self.abort()
            return
        if self._in_head:
            self._head_bytes += len(data)
        if self._deadline.is_set:
            self._deadline.set(self._patience)
        try:
            parser.feed_data(data)
            if self._in_head and self._head_bytes > _MAX_HEAD:
                raise _BadAnswerError("answered with too large a header section")  # noqa: TRY301 -- as the rest
        except httptools.HttpParserError as error:
            cause = error.__context__
            said = str(cause) if isinstance(cause, _BadAnswerError) else ""
            self._give_up(said or "answered with something that is not HTTP/1.1")
        except _BadAnswerError as error:
            self._give_up(str(error))
        if self._whole:
            self._settle()

    def _give_up(self, what: str) -> None:
        self._fail(what, _GONE)
        self.abort()

    def _settle(self) -> None:
        """Free the connection once the answer is whole, or end it if something is not in order."""
        self._parser = None
        self._deadline.clear()
        if self._surplus or not self._sent or not self._reusable:
            self.abort()
        elif self.is_usable:
            self.go_on()
            self._released(self)

    def eof_received(self) -> bool:
        """Close when the other server has."""
        return False

    # Called by llhttp.

    def on_message_begin(self) -> None:
        """Note bytes after the answer: they belong to nobody."""
        self._surplus = self._surplus or self._whole

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are dropped."""
        if self._in_head:
            self._headers.append((name, value))
            self._header_bytes += len(name) + len(value)
            if len(self._headers) > _MAX_HEADERS or self._header_bytes > _MAX_HEAD:
                raise _BadAnswerError("answered with too large a header section")

    def on_headers_complete(self) -> None:
        """Hand the head to whoever waits for it."""
        parser = self._parser
        if parser is None or not self._in_head:
            return
        status = parser.get_status_code()
        if status == _SWITCHING:
            raise _BadAnswerError("changed the protocol, which was not asked for")
        if 100 <= status < 200:  # noqa: PLR2004 -- the informational class
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                raise _BadAnswerError("answered with too many interim answers")
            self._headers = []
            return
        headers = [
            (name.decode("ascii", "replace"), value.decode("utf-8", "surrogateescape"))
            for name, value in self._headers
        ]
        self._read_framing(parser, status, headers)
        self._in_head = False
        reply = self._reply = Reply(self, status, headers)
        if self._head is not None and not self._head.done():
            self._head.set_result(reply)
        if has_no_body(self._method, status):
            self.on_message_complete()

    def _read_framing(
        self, parser: httptools.HttpResponseParser, status: int, headers: list[tuple[str, str]]
    ) -> None:
        framed = has_no_body(self._method, status)
        for name, value in headers:
            match name.lower():
                case "content-length":
                    framed = True
                case "transfer-encoding":
                    if value.strip().lower() != "chunked":
                        raise _BadAnswerError("answered in a transfer coding that was not asked for")
                    framed = True
        # Asked now: once the message is over the parser has forgotten.
        self._reusable = framed and parser.should_keep_alive()
        self._until_end = not framed

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body over."""
        if self._whole:
            self._surplus = True
        elif self._reply is not None:
            self._reply.arrived(data)

    def on_message_complete(self) -> None:
        """Note the end of the answer; an interim one is followed by another."""
        if self._in_head or self._whole:
            return
        self._whole = True
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.ended()

    # Endings.

    def _too_late(self) -> None:
        what = "did not answer in time" if self._in_head else "stalled in the middle of its answer"
        self._fail(what, "upstream_timeout")
        self.abort()

    def _fail(self, what: str, code: str) -> None:
        nothing_came = self._in_head and not self._head_bytes and code == _GONE
        kind = LinkLostError if nothing_came else UnavailableError
        error = kind(f"upstream `{self.name}` {what}", code=code)
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.broke(error)
