"""Ask a server for one small document: bounded in size and time, no redirects, no cookies, no proxies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from doorward.core.errors import UnavailableError
from doorward.http1.budget import UNBOUNDED, Budget
from doorward.http1.heads import lines
from doorward.http1.link import LinkLostError, UnsentError
from doorward.http1.pool import Origin, Pool, UnconnectedError
from doorward.http1.reply import Reply

_CONNECTIONS = 8
_PORTS = {"http": 80, "https": 443}


class Document(msgspec.Struct, frozen=True):
    """What a server answered: status, headers with lower-case names, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class DocumentClient:
    """Speak to a few servers over kept connections; made anywhere, used inside one running event loop."""

    def __init__(self, *, seconds: float, connect_seconds: float, max_bytes: int) -> None:
        """Bound each exchange as a whole, in seconds, and each answer, in bytes."""
        self._seconds, self._connect_seconds, self._max_bytes = seconds, connect_seconds, max_bytes
        self._pools: dict[str, Pool] = {}
        self._tls: ssl.SSLContext | None = None

    async def ask(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> Document:
        """Return the answer; raise UnavailableError when there is none, or it is larger than it may be.

        A `unix:PATH` and the target are written as `unix:PATH#/target`.
        """
        key, origin, host, target = self._parted(url)
        framing = {} if body is None else {"Content-Length": str(len(body))}
        try:
            head = lines(f"{method} {target} HTTP/1.1", [("Host", host), *headers.items(), *framing.items()])
        except ValueError as reason:
            raise UnavailableError(f"{url} cannot be asked for") from reason
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(
                origin,
                host,
                budget=Budget(UNBOUNDED),
                limit=_CONNECTIONS,
                connect_seconds=self._connect_seconds,
            )
        try:
            async with asyncio.timeout(self._seconds):
                reply = await self._exchanged(pool, method, head, body)
                return await self._whole(reply, url)
        except (UnconnectedError, TimeoutError) as reason:
            said = type(reason.__cause__ or reason).__name__
            raise UnavailableError(f"{url} cannot be reached ({said})") from reason

    async def _exchanged(self, pool: Pool, method: str, head: bytes, body: bytes | None) -> Reply:
        link, used = await pool.take()
        try:
            return await link.exchange(method, head, body, length=None, patience=self._seconds)
        except LinkLostError as lost:
            if not used or not (method == "GET" or isinstance(lost, UnsentError)):
                raise
        link, _ = await pool.take(fresh=True)
        return await link.exchange(method, head, body, length=None, patience=self._seconds)

    async def _whole(self, reply: Reply, url: str) -> Document:
        data = bytearray()
        try:
            async for chunk in reply.chunks():
                data += chunk
                if len(data) > self._max_bytes:
                    raise UnavailableError(f"{url} answered more than {self._max_bytes} bytes")
        finally:
            await reply.close()
        headers = {name.lower(): value for name, value in reply.headers}
        return Document(reply.status, headers, bytes(data))

    def _parted(self, url: str) -> tuple[str, Origin, str, str]:
        if url.startswith("unix:"):
            path, _, target = url.removeprefix("unix:").partition("#")
            return f"unix:{path}", Origin(unix=path), "localhost", target
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        if not parts.hostname or not port:
            raise UnavailableError(f"{url} is no http(s) address")
        if parts.scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()
        tls = self._tls if parts.scheme == "https" else None
        target = parts.path or "/"
        if parts.query:
            target = f"{target}?{parts.query}"
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        host = host if port == _PORTS[parts.scheme] else f"{host}:{port}"
        return f"{parts.scheme}://{host}", Origin(parts.hostname, port, tls=tls), host, target

    async def close(self) -> None:
        """Close the connections."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.close()
