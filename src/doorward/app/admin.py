"""A role's admin socket: healthz, readyz and metrics for this account, in a few lines of HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from doorward import peer

Report = tuple[int, str, bytes]
_SECONDS = 5.0
_LONGEST_LINE = 8192
_REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
NOT_FOUND: Report = (404, TEXT, b"healthz, readyz and metrics are here\n")


class AdminServer:
    """Answer GET requests at `path` with what `answer` says of a URL path."""

    def __init__(self, path: Path, answer: Callable[[str], Awaitable[Report]]) -> None:
        """Listen once started."""
        self._path, self._answer = path, answer
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; raise ConflictError or UnavailableError when that cannot be."""
        self._server = await asyncio.start_unix_server(
            self._serve, sock=peer.listen(self._path), limit=_LONGEST_LINE
        )

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if peer.uid_of(writer.get_extra_info("socket")) not in {os.geteuid(), 0}:
                return
            async with asyncio.timeout(_SECONDS):
                status, kind, body = await self._answer(await _asked(reader))
                head = (
                    f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode("ascii") + body)
                await writer.drain()
        except (OSError, ValueError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()


async def _asked(reader: asyncio.StreamReader) -> str:
    """Return the path that is asked for; empty for what is not understood."""
    words = (await reader.readline()).decode("latin-1").split()
    while (await reader.readline()).strip():
        pass
    return words[1].partition("?")[0] if len(words) > 1 and words[0] in {"GET", "HEAD"} else ""


async def fetched(path: Path, url: str, *, seconds: float = 2.0) -> tuple[int, bytes]:
    """Return status and body of GET `url` at another role's admin socket; (0, b"") if nobody answers."""
    try:
        async with asyncio.timeout(seconds):
            with peer.socket_address(path) as address:
                reader, writer = await asyncio.open_unix_connection(address)
            try:
                writer.write(f"GET {url} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                return int(head.split(b" ", 2)[1]), body
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0, b""
