"""The same for event loops: a connection belongs to the loop it was opened on, and no thread waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import weakref
from collections.abc import Mapping

from doorward.sdk.http1 import Answer, WireError, request
from doorward.sdk.pool import IDLE_SECONDS, KEPT
from doorward.sdk.target import Target

_READ = 64 * 1024


class AsyncPool:
    """Exchange requests with one target from coroutines; each event loop has its own connections."""

    def __init__(self, target: Target) -> None:
        """Connect to nothing yet."""
        self._target = target
        self._process = os.getpid()
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Connection]] = (
            weakref.WeakKeyDictionary()
        )

    async def exchange(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        timeout: float,  # noqa: ASYNC109 -- as `Pool`
    ) -> tuple[int, Mapping[str, str], bytes]:
        """POST; return status, headers and body, and raise, exactly as `Pool.exchange`."""
        message = request(self._target.path + path, self._target.authority, headers, body)
        async with asyncio.timeout(timeout):
            kept = self._take()
            if kept is not None:
                answer = Answer()
                try:
                    return await self._asked(kept, message, answer)
                except TimeoutError:
                    raise
                except OSError:
                    if answer.begun:
                        raise
            return await self._asked(await _Connection.open(self._target), message, Answer())

    def close(self) -> None:
        """Close what this loop keeps; asking again opens anew."""
        for connection in self._mine():
            connection.close()
        self._mine().clear()

    async def _asked(
        self, connection: _Connection, message: bytes, answer: Answer
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            connection.writer.write(message)
            await connection.writer.drain()
            while not answer.feed(await connection.reader.read(_READ)):
                pass
        except BaseException:
            connection.close()
            raise
        idle = self._mine()
        if answer.reusable and len(idle) < KEPT:
            connection.since = time.monotonic()
            idle.append(connection)
        else:
            connection.close()
        return answer.status, answer.headers, answer.body

    def _take(self) -> _Connection | None:
        idle = self._mine()
        while idle:
            connection = idle.pop()
            if connection.usable():
                return connection
            connection.close()
        return None

    def _mine(self) -> list[_Connection]:
        if self._process != os.getpid():
            self._loops = weakref.WeakKeyDictionary()
            self._process = os.getpid()
        return self._loops.setdefault(asyncio.get_running_loop(), [])


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.since = 0.0

    @classmethod
    async def open(cls, target: Target) -> _Connection:
        if target.socket is not None:
            return cls(*await asyncio.open_unix_connection(target.address))
        hostname = None if target.tls is None else target.host
        opened = await asyncio.open_connection(
            target.host, target.port, ssl=target.tls, server_hostname=hostname
        )
        raw = opened[1].get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(*opened)

    def usable(self) -> bool:
        """Return whether nobody closed it, and nothing was said that nobody asked."""
        buffered = getattr(self.reader, "_buffer", b"")
        fresh = time.monotonic() - self.since < IDLE_SECONDS
        return fresh and not buffered and not self.reader.at_eof() and not self.writer.is_closing()

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop it belongs to is closed
            self.writer.close()


__all__ = ["AsyncPool", "WireError"]
