"""Connections that cannot be held open for nothing: a deadline and a bound on every header section.

aiohttp bounds single header lines and idle connections, not the time or the sum of a header section.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestHandler

from doorward.core.errors import DoorwardError, InvalidRequestError, PayloadTooLargeError

_log = structlog.get_logger()
_MAX_LINE = 16 * 1024
# How long the rest of a refused body is read and dropped, so that the caller sees the refusal; seconds.
_LINGER_SECONDS = 5.0

Refuse = Callable[[DoorwardError, web.BaseRequest], Awaitable[web.StreamResponse]]


class GuardedHandler(RequestHandler):
    """One connection: its header sections arrive within the deadline and the bound, or it is closed."""

    __slots__ = ("_body", "_deadline", "_guard", "_head_bytes", "_head_due", "busy")

    def __init__(self, guard: GuardedServer, **kwargs: Any) -> None:
        """Start waiting for the first header section."""
        super().__init__(guard, **kwargs)
        self._guard = guard
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._body: StreamReader | None = None
        self.busy = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the deadline of the first header section."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the deadline."""
        self._head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count and time the bytes of a header section that is not complete yet."""
        before = self._request_count
        # Also while nobody reads it yet, or no longer: a body is no header section.
        in_body = self._body is not None and not self._body.is_eof()
        super().data_received(data)
        if self._request_count > before:
            self._body = self._messages[-1][1]
            self._head_arrived()
        elif in_body:
            return
        elif not self.busy and not self._messages:
            self._await_head()
            self._head_bytes += len(data)
            if self._head_bytes > self._guard.max_header_bytes:
                self._cut()

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._guard.header_timeout, self._cut)

    def _head_arrived(self) -> None:
        self._head_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut(self) -> None:
        self._deadline = None
        if self.transport is not None and not self.busy:
            self.force_close()

    def handle_error(self, request: web.BaseRequest, *_args: Any, **_kwargs: Any) -> web.StreamResponse:
        """Say nothing of the library's own: the guard answers instead (see `_make_error_handler`)."""
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer was broken off")
        response = web.Response(status=500)
        response.force_close()
        return response

    def _make_error_handler(
        self, err_info: Any
    ) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        """Answer bytes the parser refused, in our words."""
        name = type(err_info.exc).__name__
        too_large = name in {"LineTooLong", "TooManyHeaders"} or "too long" in str(err_info.message).lower()
        error: DoorwardError = InvalidRequestError("the request is not well-formed HTTP/1.1")
        if too_large:
            error = PayloadTooLargeError("the header section is too large", code="headers_too_large")

        async def refuse(request: web.BaseRequest) -> web.StreamResponse:
            return await self._guard.refuse(error, request)

        return refuse


class GuardedServer(web.Server):
    """Make guarded connections, and know which of them are busy."""

    def __init__(  # noqa: PLR0913 -- the edge passes its bounds by name
        self,
        serve: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        refuse: Refuse,
        header_timeout: float,
        max_header_bytes: int,
        max_headers: int,
        idle_seconds: float,
    ) -> None:
        """Serve requests with `serve`; answer unparsable ones with `refuse`. Bounds: bytes and seconds."""
        super().__init__(self._counted, handler_cancellation=True)
        self._serve = serve
        self._busy, self._quiet = 0, asyncio.Event()
        self._quiet.set()
        self.refuse = refuse
        self.header_timeout, self.max_header_bytes = header_timeout, max_header_bytes
        line = min(_MAX_LINE, max_header_bytes)
        self._bounds: dict[str, Any] = {
            "keepalive_timeout": idle_seconds,
            "max_line_size": line,
            "max_field_size": max(line, max_header_bytes // 2),
            "max_headers": max_headers,
            "lingering_time": _LINGER_SECONDS,
            "auto_decompress": False,
            "access_log": None,
            "logger": _Quiet(),
        }

    def __call__(self) -> RequestHandler:
        """Return the protocol of one new connection."""
        return GuardedHandler(self, loop=self._loop, **self._bounds)

    async def _counted(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        if not isinstance(connection, GuardedHandler):
            raise TypeError("a connection this server did not make")
        connection.busy += 1
        self._busy += 1
        self._quiet.clear()
        try:
            return await self._serve(request)
        finally:
            connection.busy -= 1
            self._busy -= 1
            if not self._busy:
                self._quiet.set()

    def close_idle(self) -> None:
        """Close connections that carry no request; the others close after their answer."""
        for connection in self.connections:
            if isinstance(connection, GuardedHandler) and not connection.busy:
                connection.force_close()
            else:
                connection.close()

    async def finished(self, grace: float) -> None:
        """Wait until no connection is busy, at most `grace` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._quiet.wait()


class _Quiet:
    """Stand for aiohttp's logger: what it would print quotes requests; we log in our own words."""

    def debug(self, *_args: object, **_kwargs: object) -> None:
        """Say nothing."""

    def exception(self, message: object, *_args: object, exc_info: object = None, **_kwargs: object) -> None:
        """Note that a connection failed, with the kind of error only."""
        kind = exc_info if isinstance(exc_info, BaseException) else None
        _log.warning(
            "connection_failed", error=type(kind).__name__ if kind is not None else str(message)[:40]
        )

    info = warning = error = debug
