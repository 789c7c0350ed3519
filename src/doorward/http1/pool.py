"""Connections to one server, kept for the next request as long as they are surely fresh."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque

from doorward.core.errors import UnavailableError
from doorward.http1.addresses import ForbiddenAddressError, resolve
from doorward.http1.budget import Budget
from doorward.http1.link import Link
from doorward.http1.wheel import Deadline, wheel_of

# Shorter than the idle time of the usual servers (uvicorn: 5 s): a pooled connection is dropped by us
# before it goes stale, because a request on a stale one can only be repeated if repeating is harmless.
IDLE_SECONDS = 4.0
_TLS_CLOSE_SECONDS = 2.0


class Origin:
    """Say where a server is: host and port, or the path of a Unix socket; and its TLS, if it has any."""

    __slots__ = ("host", "port", "tls", "unix")

    def __init__(
        self, host: str = "", port: int = 0, *, unix: str | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Keep the parts; `host` is a name or an address without brackets."""
        self.host, self.port, self.unix, self.tls = host, port, unix, tls


class UnconnectedError(UnavailableError):
    """No connection could be made; `__cause__` says why."""


class Pool:
    """Lend connections, at most `limit` at a time; the last one given back is lent first."""

    def __init__(
        self, origin: Origin, name: str, *, budget: Budget, limit: int, connect_seconds: float
    ) -> None:
        """Connect on demand; `name` stands in errors. Made inside a running event loop."""
        self._origin, self._name, self._budget = origin, name, budget
        self._limit, self._connect_seconds = limit, connect_seconds
        self._loop = asyncio.get_running_loop()
        self._wheel = wheel_of(self._loop)
        self._idle: list[tuple[Link, float]] = []
        self._all: set[Link] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sweep = Deadline(self._wheel, self._drop_stale)
        self._closed = False

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self._all)

    async def take(self, *, fresh: bool = False) -> tuple[Link, bool]:
        """Return a connection, and whether it was used before.

        Raises UnconnectedError if none can be made, UnavailableError if none becomes free in time.
        """
        while True:
            if not fresh:
                while self._idle:
                    link, since = self._idle.pop()
                    if link.is_usable and self._wheel.time() - since < IDLE_SECONDS:
                        return link, True
                    link.abort()
            if len(self._all) + self._connecting < self._limit:
                return await self._connect(), False
            if self._idle:
                self._idle.pop()[0].abort()
            await self._turn()

    async def _turn(self) -> None:
        """Wait until a connection is free or gone."""
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self._connect_seconds):
                await waiter
        except TimeoutError:
            raise UnavailableError(
                f"all {self._limit} connections to upstream `{self._name}` are busy",
                hint="Try again in a moment.",
                code="upstream_timeout",
            ) from None
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)

    async def _connect(self) -> Link:
        self._connecting += 1
        try:
            async with asyncio.timeout(self._connect_seconds):
                link = await self._connected()
        except (OSError, TimeoutError, ForbiddenAddressError, ValueError) as reason:
            self._next()
            raise UnconnectedError(f"upstream `{self._name}` cannot be reached") from reason
        except BaseException:
            self._next()
            raise
        finally:
            self._connecting -= 1
        if self._closed:
            link.abort()
            raise UnconnectedError(f"the connections to upstream `{self._name}` are closed")
        self._all.add(link)
        return link

    async def _connected(self) -> Link:
        origin = self._origin
        if origin.unix is not None:
            _, link = await self._loop.create_unix_connection(self._link, origin.unix)
            return link
        failed: Exception = OSError("the name leads nowhere")
        for address in await resolve(origin.host, origin.port):
            try:
                _, link = await self._loop.create_connection(
                    self._link, address, origin.port, ssl=origin.tls,
                    server_hostname=origin.host if origin.tls is not None else None,
                    ssl_shutdown_timeout=_TLS_CLOSE_SECONDS if origin.tls is not None else None,
                )  # fmt: skip
            except OSError as reason:
                failed = reason
            else:
                return link
        raise failed

    def _link(self) -> Link:
        return Link(self._name, wheel=self._wheel, budget=self._budget, released=self._released)

    def _released(self, link: Link) -> None:
        if not link.is_usable:
            self._all.discard(link)
        elif self._closed:
            link.abort()
        else:
            self._idle.append((link, self._wheel.time()))
            if not self._sweep.is_set:
                self._sweep.set(IDLE_SECONDS)
        self._next()

    def _next(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _drop_stale(self) -> None:
        edge = self._wheel.time() - IDLE_SECONDS
        kept = [(link, since) for link, since in self._idle if since > edge and link.is_usable]
        for link, since in self._idle:
            if since <= edge:
                link.abort()
        self._idle = kept
        if kept:
            self._sweep.set(max(0.1, kept[0][1] - edge))

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        self._sweep.clear()
        for link in list(self._all):
            link.abort()
        self._idle.clear()
