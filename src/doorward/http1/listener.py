"""Accept connections within bounds, know which are busy, and let them end in order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from email.utils import formatdate
from typing import Protocol

import msgspec
import structlog

from doorward.core.errors import DoorwardError
from doorward.core.wire import Answer, Peer
from doorward.http1.budget import Budget
from doorward.http1.connection import Connection
from doorward.http1.heads import RequestHead
from doorward.http1.incoming import IncomingBody
from doorward.http1.peers import ChainOf
from doorward.http1.wheel import wheel_of

_log = structlog.get_logger()
# How long a kept connection may still bring a request after the listener stopped; seconds.
_LAST_REQUESTS = 0.25


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of every connection; bytes, seconds and counts."""

    max_header_bytes: int = 60 * 1024
    header_timeout: float = 10.0
    body_pause: float = 10.0
    idle_timeout: float = 3600.0
    write_timeout: float = 60.0
    half_close: float = 0.5
    linger: float = 2.0
    max_connections: int = 20_000
    max_connections_per_address: int = 4_000


class Serves(Protocol):
    """What a listener hands requests to."""

    async def serve(self, head: RequestHead, body: IncomingBody, peer: Peer) -> tuple[Answer, bool]:
        """Return the answer, and whether the connection can be trusted to go on; never raise."""

    async def refuse(self, error: DoorwardError, peer: Peer) -> Answer:
        """Return the answer to bytes that are no request; never raise."""

    def broken(self, error: Exception) -> None:
        """Note that a streamed answer ended before its end."""


def _shed(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


_TOO_MANY = _shed("503 Service Unavailable")
_TOO_MANY_OF_ONE = _shed("429 Too Many Requests")


class Listener:
    """Make connections (it is a protocol factory), and be what they have in common."""

    def __init__(
        self, handler: Serves, bounds: Bounds, budget: Budget, *, chain_of: ChainOf | None = None
    ) -> None:
        """Serve with `handler`. Made inside a running event loop."""
        self.chain_of = chain_of
        self.loop = asyncio.get_running_loop()
        self.wheel = wheel_of(self.loop)
        self.bounds, self.budget = bounds, budget
        self.serve, self.refuse, self.broken = handler.serve, handler.refuse, handler.broken
        self.is_open = True
        self.shed = 0
        self._connections: set[Connection] = set()
        self._by_address: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._gone = asyncio.Event()
        self._gone.set()
        self._date = (0, "")

    def __call__(self) -> Connection:
        """Return the protocol of one new connection."""
        return Connection(self)

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self._connections)

    @property
    def busy(self) -> int:
        """Return how many of them carry a request."""
        return self._busy

    # Called by connections.

    def started(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a connection's work."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def admit(self, connection: Connection) -> bytes | None:
        """Count a connection; return what to refuse it with if there are too many."""
        ip = connection.peer.ip
        self._connections.add(connection)
        self._gone.clear()
        count = self._by_address[ip] = self._by_address.get(ip, 0) + 1
        if len(self._connections) > self.bounds.max_connections:
            self.shed += 1
            return _TOO_MANY
        if count > self.bounds.max_connections_per_address:
            self.shed += 1
            return _TOO_MANY_OF_ONE
        return None

    def forget(self, connection: Connection) -> None:
        """Count a connection that ended."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        left = self._by_address[connection.peer.ip] - 1
        if left:
            self._by_address[connection.peer.ip] = left
        else:
            del self._by_address[connection.peer.ip]
        if connection.busy:
            connection.busy = False
            self.ended()
        if not self._connections:
            self._gone.set()

    def begun(self) -> None:
        """Count a request."""
        self._busy += 1

    def ended(self) -> None:
        """Count its end."""
        self._busy -= 1

    def date(self) -> str:
        """Return the time as a Date header has it (RFC 9110 §6.6.1); made once a second."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return self._date[1]

    # The end.

    async def drain(self, grace: float) -> None:
        """Take nothing more, and wait at most `grace` seconds for what is under way."""
        self.is_open = False
        for connection in list(self._connections):
            connection.wind_down(_LAST_REQUESTS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._gone.wait()

    async def close(self, seconds: float) -> None:
        """End every connection that is left, and wait for what that sets free."""
        for connection in list(self._connections):
            connection.abort()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=seconds)
