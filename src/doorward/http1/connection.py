"""One connection of a caller: requests in turn, each read whole before the next, answers in order.

Bytes of later requests stay unread until their turn: what they say is decided then. Whatever has no
single reading is answered with a refusal, after which the connection ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

from doorward.core.errors import DoorwardError, InvalidRequestError, PayloadTooLargeError
from doorward.core.wire import Answer
from doorward.http1.chunked import ChunkError
from doorward.http1.framing import Framing
from doorward.http1.heads import is_hopeless, malformed, read_request
from doorward.http1.incoming import IncomingBody
from doorward.http1.outgoing import Outgoing
from doorward.http1.peers import peer_of
from doorward.http1.wheel import Deadline

if TYPE_CHECKING:
    from doorward.http1.listener import Listener

_HEAD_END = b"\r\n\r\n"
# So long that it must hold the whole method.
_METHOD = 64


class Connection(asyncio.Protocol):
    """Serve one caller. Made by a Listener, which bounds and counts it."""

    __slots__ = (
        "_body", "_buffer", "_deadline", "_dropping", "_eof", "_framing", "_held", "_keep", "_leaving",
        "_listener", "_loop", "_lost", "_out", "_ready", "_scanned", "_task", "_transport", "_waiter", "busy",
        "peer",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        """Wait for the connection."""
        self._listener = listener
        self._loop = listener.loop
        self._transport: asyncio.Transport | None = None
        self._deadline = Deadline(listener.wheel, self._too_late)
        self._leaving = Deadline(listener.wheel, self.abort)
        self._buffer = b""
        self._scanned = 0
        self._ready: bytes | DoorwardError | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._body: IncomingBody | None = None
        self._framing: Framing | None = None
        self._out: Outgoing | None = None
        self._keep = True
        self._held = self._eof = self._lost = self._dropping = False
        self.busy = False

    # The life of the connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, unless the listener has too many of this kind."""
        # uvloop's transports do not derive from it, and have all of it.
        self._transport = cast("asyncio.Transport", transport)
        self._out = Outgoing(self._transport, self._listener)
        self.peer = peer_of(self._transport, self._listener.chain_of)
        refused = self._listener.admit(self)
        if refused is not None:
            self._transport.write(refused)
            self._linger()
            return
        self._deadline.set(self._listener.bounds.header_timeout)
        self._task = self._listener.started(self._run())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- why does not matter
        """End whatever is under way for this caller."""
        self._lost = True
        self._deadline.clear()
        self._leaving.clear()
        if self._out is not None:
            self._out.end()
        if self._body is not None:
            self._body.failed(ConnectionResetError("the caller left"))
        if self._task is not None:
            self._task.cancel()
        self._listener.forget(self)

    def abort(self) -> None:
        """End the connection at once, without a word."""
        if self._transport is not None:
            self._transport.abort()

    def wind_down(self, seconds: float) -> None:
        """Answer nothing after the present request; an idle connection ends after so many seconds."""
        self._keep = False
        if not self.busy:
            self._deadline.set(seconds)

    def _too_late(self) -> None:
        # No head in time, nothing asked for too long, or an answer that is not read.
        self.abort()

    def eof_received(self) -> bool:
        """Go on for a moment for a caller that only stopped sending: it may as well have left.

        While an answer streams it counts as gone at once: no moment would be long enough.
        """
        self._eof = True
        unfinished = self._body is not None and not self._body.complete and not self._dropping
        streaming = self._out is not None and self._out.streaming
        if not self.busy or unfinished or streaming or self.peer.tls:
            return False
        self._leaving.set(self._listener.bounds.half_close)
        return True

    # Bytes of the caller.

    def data_received(self, data: bytes) -> None:
        """Take bytes: of the body that is being read, or of a later head."""
        if self._dropping:
            return
        if self._body is not None and self._framing is not None and not self._body.complete:
            data = self._take_body(self._body, self._framing, data)
            if not data:
                return
        self._buffer = self._buffer + data if self._buffer else data
        if self.busy:
            # What was sent ahead waits for its turn, within bounds.
            if len(self._buffer) > self._listener.bounds.max_header_bytes:
                self._hold()
            return
        self._look(fresh=data)

    def _look(self, *, fresh: bytes) -> None:
        """Cut the next head off the buffer if it is all there, and wake the task with it."""
        buffer, bounds = self._buffer, self._listener.bounds
        while buffer.startswith(b"\r\n"):  # RFC 9112 §2.2: tolerated before a request line
            buffer, self._scanned = buffer[2:], 0
        self._buffer = buffer
        end = buffer.find(_HEAD_END, max(0, self._scanned - 3))
        if end >= 0:
            self._scanned = 0
            self._buffer = buffer[end + 4 :]
            large = end + 4 > bounds.max_header_bytes
            self._wake(_headers_too_large() if large else buffer[: end + 4])
            return
        self._scanned = len(buffer)
        if len(buffer) > bounds.max_header_bytes:
            self._wake(_headers_too_large())
        elif len(buffer) > 1 and _may_be_hopeless(buffer, fresh) and is_hopeless(buffer):
            self._wake(malformed())
        elif buffer and self._deadline.due > self._listener.wheel.time() + bounds.header_timeout:
            self._deadline.set(bounds.header_timeout)

    def _wake(self, ready: bytes | DoorwardError) -> None:
        self._deadline.clear()
        self._ready = ready
        self.busy = True
        self._listener.begun()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take_body(self, body: IncomingBody, framing: Framing, data: bytes) -> bytes:
        """Hand bytes to the body; return what follows it."""
        try:
            pieces, rest = framing.take(data)
        except ChunkError:
            self._keep, self._dropping = False, True
            body.failed(InvalidRequestError("the body is framed wrongly"))
            return b""
        full = False
        for piece in pieces:
            full = body.arrived(piece)
        if framing.done:
            body.ended()
        elif full:
            # Not once it is whole: then only reading on tells that the caller left.
            self._hold()
        return rest

    def _hold(self) -> None:
        if not self._held and not self._lost and self._transport is not None:
            self._held = True
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if self._held:
            self._held = False
            if not self._lost and self._transport is not None:
                self._transport.resume_reading()

    # One request after another.

    async def _run(self) -> None:
        try:
            await self._serve()
        except Exception as error:  # noqa: BLE001 -- the last line: the connection ends, the others go on
            self._listener.broken(error)
            self.abort()
        finally:
            if self._body is not None:
                self._body.dropped()

    async def _serve(self) -> None:
        while not self._lost:
            if self._ready is None:
                self._waiter = self._loop.create_future()
                await self._waiter
                self._waiter = None
                continue
            ready, self._ready = self._ready, None
            await self._exchange(ready)
            if not self._turn_over():
                return

    async def _exchange(self, ready: bytes | DoorwardError) -> None:
        """Answer one request."""
        self._body = None
        if isinstance(ready, bytes):
            try:
                head, parser = read_request(ready)
            except InvalidRequestError as error:
                ready = error
            else:
                body = self._begin_body(Framing(head, parser))
                answer, sound = await self._listener.serve(head, body, self.peer)
                # A body nobody read: where the next request starts is not known yet, nor worth waiting for.
                self._keep = self._keep and sound and body.complete and self._listener.is_open
                await self._write(answer, method=head.method, version=head.version)
                body.dropped()
                return
        self._keep = False
        await self._write(await self._listener.refuse(ready, self.peer), method="", version=(1, 1))

    async def _write(self, answer: Answer, *, method: str, version: tuple[int, int]) -> None:
        if self._out is not None:
            kept = await self._out.write(answer, method=method, version=version, keep=self._keep)
            # The listener may have begun to close meanwhile.
            self._keep = self._keep and kept

    def _begin_body(self, framing: Framing) -> IncomingBody:
        self._framing = framing
        self._keep = self._keep and not framing.closes
        body = self._body = IncomingBody(
            length=framing.length,
            wheel=self._listener.wheel,
            budget=self._listener.budget,
            pause=self._listener.bounds.body_pause,
            invite=self._invite if framing.expects else None,
            read_on=self._read_on,
        )
        if self._buffer and not body.complete:
            buffer, self._buffer = self._buffer, b""
            self._buffer = self._take_body(body, framing, buffer)
        return body

    def _invite(self) -> None:
        """Send 100 Continue to a caller that waits for it (RFC 9110 §10.1.1)."""
        if self._transport is not None and not self._lost:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _turn_over(self) -> bool:
        """Be ready for the next request; return whether there may be one."""
        if self.busy:
            self.busy = False
            self._listener.ended()
        if self._lost:
            return False
        if not self._keep:
            self._linger()
            return False
        self._read_on()
        self._deadline.set(self._listener.bounds.idle_timeout)
        if self._buffer:
            self._look(fresh=self._buffer)
        if self._eof and self._ready is None and self._transport is not None:
            self._transport.close()
            return False
        return True

    def _linger(self) -> None:
        """Close so that the answer is still read: what the caller goes on sending is dropped for a moment."""
        transport = self._transport
        if transport is None or self._lost:
            return
        clean = self._body is not None and self._body.complete and not self._buffer
        if clean or self._eof:
            transport.close()
            return
        self._dropping, self._buffer = True, b""
        self._deadline.set(self._listener.bounds.linger)
        with contextlib.suppress(NotImplementedError, RuntimeError, OSError):
            transport.write_eof()
        self._read_on()

    def pause_writing(self) -> None:
        """Let the answer wait: the caller does not read."""
        if self._out is not None:
            self._out.pause()

    def resume_writing(self) -> None:
        """Let it go on."""
        if self._out is not None:
            self._out.resume()


def _may_be_hopeless(buffer: bytes, fresh: bytes) -> bool:
    # Looked at again only when something came that could decide it: a slow caller must not cost much.
    return len(buffer) <= _METHOD or b"\n" in fresh or b"\r" in fresh or b"\0" in fresh


def _headers_too_large() -> PayloadTooLargeError:
    return PayloadTooLargeError("the header section is too large", code="headers_too_large")
