"""Tell gateways what is known: one state, then changes in order, over a private Unix socket.

Lines of JSON (`core.feed.Message`). A client that falls behind is dropped and starts over with the
whole state, so that what it holds is never a mixture; it sees by itself when nothing comes any more.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from msgspec.structs import replace

from doorward import peer
from doorward.core.clock import Clock, SystemClock
from doorward.core.errors import ConflictError, DoorwardError, UnavailableError
from doorward.core.feed import Bundle, Delta, Known, Message
from doorward.core.identity import KeyRecord

if TYPE_CHECKING:
    from doorward.directory.administration import Directory

HEARTBEAT: Final = 1.0
SILENCE: Final = 5.0
_QUEUED: Final = 1024
_SEND_TIMEOUT: Final = 30.0
_LONGEST_LINE: Final = 1 << 30
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 2.0
# Both processes start together: nobody should wait for a long pause to end.
_WAIT_AT_START: Final = 0.2

_decoder = msgspec.json.Decoder(Message)
log = structlog.get_logger()


def _no_secret(_key: KeyRecord) -> str | None:
    return None


def _no_jwks() -> Mapping[str, Any]:
    return {}


def _line(message: Message) -> bytes:
    return msgspec.json.encode(message) + b"\n"


class _Client:
    """One connected gateway: what waits to be sent, and the version it will then be at."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.version = -1
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(_QUEUED)

    @property
    def idle(self) -> bool:
        return self._waiting.empty()

    def offer(self, line: bytes) -> None:
        try:
            self._waiting.put_nowait(line)
        except asyncio.QueueFull:
            log.warning("feed_client_dropped", reason="slow")
            self.drop()

    def drop(self) -> None:
        self.writer.transport.abort()

    async def send(self) -> None:
        """Send what waits until the connection ends."""
        while True:
            self.writer.write(await self._waiting.get())
            async with asyncio.timeout(_SEND_TIMEOUT):
                await self.writer.drain()


class FeedServer:
    """Serve the feed (control process). `s3_secret` and `issuer_jwks` add what is never stored."""

    def __init__(
        self,
        socket_path: Path,
        directory: Directory,
        *,
        s3_secret: Callable[[KeyRecord], str | None] = _no_secret,
        issuer_jwks: Callable[[], Mapping[str, Any]] = _no_jwks,
        allowed_uids: frozenset[int] | None = None,
    ) -> None:
        """Name the socket and where state comes from; peers have our own uid unless told otherwise."""
        self._path, self._directory = socket_path, directory
        self._s3_secret, self._issuer_jwks = s3_secret, issuer_jwks
        self._allowed = allowed_uids if allowed_uids is not None else frozenset({os.geteuid()})
        self._clients: set[_Client] = set()
        self._bundle: Bundle | None = None
        self._bundle_error: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._heart: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    async def start(self) -> None:
        """Listen; raise ConflictError if another process serves the socket."""
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_unix_server(self._serve, sock=peer.listen(self._path))
        self._unsubscribe = self._directory.subscribe(self._from_thread(self._broadcast_delta))
        self._heart = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Stop listening, drop every client and remove the socket."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._heart is not None:
            self._heart.cancel()
            with suppress(asyncio.CancelledError):
                await self._heart
        if self._server is not None:
            self._server.close()
            for client in tuple(self._clients):
                client.drop()
            await self._server.wait_closed()
            self._server = None
            self._path.unlink(missing_ok=True)

    @property
    def clients(self) -> int:
        """Return how many gateways follow the feed now."""
        return len(self._clients)

    def on_bundle(self, bundle: Bundle) -> None:
        """Send a new bundle to everyone, and to whoever connects later. Callable from any thread."""
        self._bundle, self._bundle_error = bundle, None
        self._soon(_line(Message(bundle=bundle)))

    def on_bundle_error(self, text: str) -> None:
        """Say that the newest policies cannot be used; the last good bundle stays in force."""
        self._bundle_error = text
        self._soon(_line(Message(bundle_error=text)))

    def resync(self) -> None:
        """Send everyone the whole state again (the issuer's keys changed). Callable from any thread."""
        self._call(self._send_state_to_all)

    # On the event loop

    def _from_thread(self, act: Callable[[Delta], None]) -> Callable[[Delta], None]:
        return lambda delta: self._call(act, delta)

    def _call(self, act: Callable[..., None], *args: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act, *args)

    def _soon(self, line: bytes) -> None:
        self._call(self._broadcast, line)

    def _broadcast(self, line: bytes) -> None:
        for client in tuple(self._clients):
            client.offer(line)

    def _broadcast_delta(self, delta: Delta) -> None:
        line = _line(Message(delta=replace(delta, keys=tuple(map(self._with_secret, delta.keys)))))
        for client in tuple(self._clients):
            # A client that connected meanwhile got this change with its first state.
            if client.version < delta.version:
                client.version = delta.version
                client.offer(line)

    def _send_state_to_all(self) -> None:
        for client in tuple(self._clients):
            self._send_state(client)

    def _send_state(self, client: _Client) -> None:
        known = self._known()
        client.version = known.version
        client.offer(_line(Message(known=known)))

    def _known(self) -> Known:
        known = self._directory.known()
        keys = tuple(map(self._with_secret, known.keys))
        return replace(known, keys=keys, issuer_jwks=dict(self._issuer_jwks()))

    def _with_secret(self, key: KeyRecord) -> KeyRecord:
        return replace(key, s3_secret=self._s3_secret(key))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = peer.uid_of(writer.get_extra_info("socket"))
        if uid not in self._allowed:
            log.warning("feed_client_refused", uid=uid)
            writer.transport.abort()
            return
        client = _Client(writer)
        self._send_state(client)
        if self._bundle is not None:
            client.offer(_line(Message(bundle=self._bundle)))
        if self._bundle_error is not None:
            client.offer(_line(Message(bundle_error=self._bundle_error)))
        self._clients.add(client)
        sending = asyncio.create_task(client.send())
        try:
            # The client says nothing; its end of file is how we learn that it left.
            left = asyncio.create_task(reader.read(1))
            await asyncio.wait({sending, left}, return_when=asyncio.FIRST_COMPLETED)
            left.cancel()
        finally:
            self._clients.discard(client)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            client.drop()

    async def _beat(self) -> None:
        line = _line(Message())
        while True:
            await asyncio.sleep(HEARTBEAT)
            for client in tuple(self._clients):
                # What waits already shows that we live; a beat behind it would only fill the queue.
                if client.idle:
                    client.offer(line)


class FeedClient:
    """Follow the feed (gateway process); callbacks run on the event loop, in order, and never wait.

    Whatever goes wrong (a gap, a line that cannot be read, a callback that fails, silence) ends the
    connection, and the next one starts with the whole state.
    """

    def __init__(  # noqa: PLR0913 -- one callback per kind of message
        self,
        socket_path: Path,
        on_known: Callable[[Known], None],
        on_delta: Callable[[Delta], None],
        on_bundle: Callable[[Bundle], None],
        on_error: Callable[[str], None],
        *,
        clock: Clock | None = None,
        silence: float = SILENCE,
    ) -> None:
        """Name the socket and who hears what; `on_error` hears why newer policies are not in force.

        `silence` is how many seconds without a heartbeat end a connection.
        """
        self._path = socket_path
        self._on_known, self._on_delta = on_known, on_delta
        self._on_bundle, self._on_error = on_bundle, on_error
        self._clock = clock or SystemClock()
        self._silence = silence
        self._version: int | None = None
        self._heard: float | None = None
        self._connected = False
        self._told = ""

    @property
    def connected(self) -> bool:
        """Return whether the whole state has been received on a connection that still stands."""
        return self._connected

    def staleness(self) -> float:
        """Return seconds since the last message; infinite before the first."""
        return math.inf if self._heard is None else self._clock.monotonic() - self._heard

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        wait = _FIRST_WAIT
        while True:
            try:
                await self._follow()
            except (OSError, EOFError, TimeoutError, ValueError, DoorwardError) as error:
                self._tell(error)
            except Exception:  # a callback's fault: start over with the whole state
                log.exception("feed_callback_failed")
            longest = _LONGEST_WAIT if self._heard is not None else _WAIT_AT_START
            wait = _FIRST_WAIT if self._connected else min(wait * 2, longest)
            self._connected = False
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads reconnects, hides nothing

    def _tell(self, error: Exception) -> None:
        """Log why there is no feed, once per reason; that it is not there yet at the start is no fault."""
        reason = "the other end closed it" if isinstance(error, EOFError) else str(error)
        reason = reason or type(error).__name__
        if reason == self._told:
            return
        self._told = reason
        if self._heard is None and isinstance(error, FileNotFoundError | ConnectionRefusedError):
            log.info("feed_awaited", socket=str(self._path))
        else:
            log.warning("feed_lost", reason=reason)

    async def _follow(self) -> None:
        self._version = None
        with peer.socket_address(self._path) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=_LONGEST_LINE)
        try:
            self._require_own(writer)
            while True:
                async with asyncio.timeout(self._silence):
                    line = await reader.readuntil(b"\n")
                self._take(_decoder.decode(line))
        finally:
            writer.transport.abort()

    def _require_own(self, writer: asyncio.StreamWriter) -> None:
        uid = peer.uid_of(writer.get_extra_info("socket"))
        if uid != os.geteuid():
            raise UnavailableError(f"the feed is served by uid {uid}, not by our own")

    def _take(self, message: Message) -> None:
        if message.known is not None:
            self._on_known(message.known)
            self._version = message.known.version
            self._connected, self._told = True, ""
        elif message.delta is not None:
            self._require_next(message.delta)
            self._on_delta(message.delta)
            self._version = message.delta.version
        elif message.bundle is not None:
            self._on_bundle(message.bundle)
        elif message.bundle_error is not None:
            self._on_error(message.bundle_error)
        self._heard = self._clock.monotonic()

    def _require_next(self, delta: Delta) -> None:
        if self._version is None or delta.version != self._version + 1:
            raise ConflictError(f"version {delta.version} does not follow {self._version}")
