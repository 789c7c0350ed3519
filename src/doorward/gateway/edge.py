"""The HTTP edge on aiohttp: sockets, TLS, bounds on slow and large clients; everything else is the flow's.

Replaceable: it turns bytes into `core.wire.Request` and an `Answer` into bytes, and knows nothing more.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import Protocol

import structlog
from aiohttp import web
from multidict import CIMultiDict

from doorward.core.errors import DoorwardError, InvalidConfigError, InvalidRequestError, PayloadTooLargeError
from doorward.core.ids import IdSource
from doorward.core.wire import Answer, Peer, Request
from doorward.gateway.body import AnswerCutError, has_body
from doorward.gateway.canonical import Head, read
from doorward.gateway.connection import GuardedServer
from doorward.gateway.faults import origin_of
from doorward.gateway.refusal import of_error, problem
from doorward.identity.tls import chain_of
from doorward.settings import GatewaySettings, is_loopback, split_listen

_log = structlog.get_logger()
# A body must keep coming at this rate on average once `body_timeout` is over; bytes per second.
_SLOWEST_BODY = 1024
# How long a caller may leave an answer unread before the connection is closed; seconds.
_WRITE_SECONDS = 60.0
_IDLE_SECONDS = 75.0
_TLS_CLOSE_SECONDS = 2.0
_LAST_SECONDS = 0.5
_NO_CONTENT = frozenset({204, 304})


class Handles(Protocol):
    """What the edge hands requests to (`gateway.flow.Flow`)."""

    async def handle(self, request: Request) -> Answer:
        """Return the answer to a canonical request."""

    async def malformed(self, error: DoorwardError, *, request_id: str, peer: Peer) -> Answer:
        """Return the answer to a request that has no canonical reading."""


class WireBody:
    """A request body as it arrives: asks for it if the caller waits, and does not wait for ever."""

    def __init__(self, request: web.BaseRequest, *, seconds: float) -> None:
        """Read from `request`; `seconds` bounds every pause, and the whole at a crawling rate."""
        self._request = request
        self._seconds = seconds
        self.started = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body; raise InvalidRequestError if it stalls or is framed wrongly."""
        if not self.started:
            self.started = True
            await self._invite()
        loop = asyncio.get_running_loop()
        begun, received = loop.time(), 0
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    chunk = await self._request.content.readany()
            except TimeoutError:
                raise _stalled() from None
            except web.RequestPayloadError:
                raise InvalidRequestError("the body is framed wrongly") from None
            if not chunk:
                return
            received += len(chunk)
            if received < (loop.time() - begun - self._seconds) * _SLOWEST_BODY:
                raise _stalled()
            yield chunk

    async def _invite(self) -> None:
        """Send 100 Continue to a caller that waits for it (RFC 9110 §10.1.1)."""
        transport = self._request.transport
        expects = self._request.headers.get("Expect", "").lower() == "100-continue"
        if expects and transport is not None and self._request.version >= (1, 1):
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _stalled() -> InvalidRequestError:
    return InvalidRequestError("the body arrives too slowly", code="request_timeout")


class Edge:
    """Listen, read requests, write answers."""

    def __init__(  # noqa: PLR0913 -- the composition root names every part once
        self,
        flow: Handles,
        *,
        settings: GatewaySettings,
        ids: IdSource,
        opaque: Mapping[str, int],
        tls: ssl.SSLContext | None = None,
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        """Take the flow; `opaque` maps an upstream's name to its strict path segments (`canonical`).

        Raises InvalidConfigError for plain HTTP on an address that others can reach.
        """
        self._host, self._port = split_listen(settings.listen)
        if tls is None and not is_loopback(self._host):
            raise InvalidConfigError(
                f"[gateway] listen = `{settings.listen}` would serve credentials in the clear",
                hint='Set tls = "auto" or tls = { cert, key }, or listen on 127.0.0.1.',
            )
        self._flow, self._settings, self._ids = flow, settings, ids
        self._opaque, self._tls, self._idle = opaque, tls, idle_seconds
        self._http: GuardedServer | None = None
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Return the port that is listened on, also when port 0 was asked for."""
        if self._listener is None or not self._listener.sockets:
            return self._port
        return int(self._listener.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen; raise InvalidConfigError when the address cannot be had."""
        self._http = GuardedServer(
            self._serve,
            refuse=self._unparsed,
            header_timeout=self._settings.header_timeout,
            max_header_bytes=self._settings.max_header_bytes,
            max_headers=self._settings.max_headers,
            idle_seconds=self._idle,
        )
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                self._http,
                self._host,
                self._port,
                ssl=self._tls,
                ssl_handshake_timeout=self._settings.header_timeout if self._tls is not None else None,
                ssl_shutdown_timeout=_TLS_CLOSE_SECONDS if self._tls is not None else None,
                backlog=1024,
            )
        except OSError as reason:
            taken = reason.errno == errno.EADDRINUSE
            raise InvalidConfigError(
                f"cannot listen on {self._settings.listen}: "
                + ("the port is taken" if taken else str(reason.strerror or reason)),
                hint="Stop what listens there (`ss -ltnp` names it), or set [gateway] listen.",
            ) from reason

    async def drain(self, grace: float) -> None:
        """Stop accepting, and wait at most `grace` seconds for the requests under way."""
        if self._listener is not None:
            self._listener.close()
        if self._http is not None:
            self._http.close_idle()
            await self._http.finished(grace)

    async def close(self) -> None:
        """Close every connection that is left."""
        if self._listener is not None:
            self._listener.close()
        if self._http is not None:
            await self._http.shutdown(_LAST_SECONDS)
        self._listener = self._http = None

    # One request

    async def _serve(self, wire: web.BaseRequest) -> web.StreamResponse:
        request_id, peer = self._ids.new(), _peer(wire)
        body = WireBody(wire, seconds=self._settings.body_timeout)
        answer, ambiguous, unread = None, False, False
        try:
            head = _head(wire)
            self._check_size(head)
            request = read(head, id=request_id, peer=peer, body=body, opaque=self._opaque)
            answer = await self._flow.handle(request)
            unread = has_body(request) and not wire.content.is_eof()
        except DoorwardError as error:
            ambiguous = True
            answer = await self._flow.malformed(error, request_id=request_id, peer=peer)
        except Exception as error:  # noqa: BLE001 -- the last line: a fault is answered without its words
            _log.error("request_failed", request_id=request_id, error=origin_of(error))
            ambiguous = True
            answer = problem(of_error(error, request_id))
            answer.headers.append(("Doorward-Request-Id", request_id))
        # After a refusal for framing nothing on this connection can be trusted to start where it seems to.
        return await self._write(wire, answer, close=ambiguous or unread)

    def _check_size(self, head: Head) -> None:
        size = len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)
        if size > self._settings.max_header_bytes or len(head.headers) > self._settings.max_headers:
            raise PayloadTooLargeError(
                "the header section is too large",
                hint=f"At most {self._settings.max_headers} lines, {self._settings.max_header_bytes} bytes.",
                code="headers_too_large",
            )

    async def _unparsed(self, error: DoorwardError, wire: web.BaseRequest) -> web.StreamResponse:
        """Answer bytes that the parser refused."""
        request_id = self._ids.new()
        answer = await self._flow.malformed(error, request_id=request_id, peer=_peer(wire))
        response = web.Response(status=answer.status, headers=_headers(answer), body=_bytes(answer))
        response.force_close()
        return response

    async def _write(self, wire: web.BaseRequest, answer: Answer, *, close: bool) -> web.StreamResponse:
        # A HEAD keeps the length that a GET would have; 204 and 304 have none of their own.
        empty = wire.method == "HEAD" or answer.status in _NO_CONTENT
        headers = _headers(answer, empty=empty)
        if isinstance(answer.body, bytes):
            response: web.StreamResponse = web.Response(
                status=answer.status, headers=headers, body=b"" if empty else answer.body
            )
            if close:
                response.force_close()
            return response
        response = web.StreamResponse(status=answer.status, headers=headers)
        if close:
            response.force_close()
        await self._stream(wire, response, answer.body)
        return response

    async def _stream(
        self, wire: web.BaseRequest, response: web.StreamResponse, body: AsyncIterator[bytes]
    ) -> None:
        """Write a streamed answer with backpressure; one that breaks off ends the connection abruptly."""
        declared = response.content_length
        empty = wire.method == "HEAD" or response.status in _NO_CONTENT
        transport, whole = wire.transport, False
        try:
            await response.prepare(wire)
            sent = 0
            async for chunk in body:
                if empty or not chunk:
                    continue
                sent += len(chunk)
                async with asyncio.timeout(_WRITE_SECONDS):
                    await response.write(chunk)
            whole = empty or declared is None or sent == declared
            if whole:
                await response.write_eof()
        except AnswerCutError:
            pass
        except (DoorwardError, OSError) as error:
            _log.info("answer_broken_off", error=type(error).__name__)
        finally:
            if not whole and transport is not None:
                # Without the last chunk, or short of Content-Length: the caller sees that it is not all.
                transport.abort()
            await _closed(body)
        if not whole:
            raise ConnectionResetError("the answer was broken off")


def _head(wire: web.BaseRequest) -> Head:
    return Head(
        method=wire.method,
        target=wire.raw_path,
        version=(wire.version.major, wire.version.minor),
        headers=tuple((bytes(name), bytes(value)) for name, value in wire.raw_headers),
    )


def _peer(wire: web.BaseRequest) -> Peer:
    transport = wire.transport
    if transport is None:
        raise ConnectionResetError("the caller left")
    name = transport.get_extra_info("peername")
    address = ip_address(str(name[0]).partition("%")[0]) if name else ip_address("127.0.0.1")
    mapped = getattr(address, "ipv4_mapped", None)
    session: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    certificate = session.getpeercert(binary_form=True) if session is not None else None
    chain = chain_of(session) if session is not None and certificate is not None else ()
    return Peer(ip=str(mapped or address), tls=session is not None, certificate=certificate, chain=chain)


def _headers(answer: Answer, *, empty: bool = False) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict(
        (name, value) for name, value in answer.headers if name.lower() != "transfer-encoding"
    )
    # Otherwise the library would write its own name and version.
    headers["Server"] = "doorward"
    if isinstance(answer.body, bytes) and not empty:
        headers["Content-Length"] = str(len(answer.body))
    return headers


def _bytes(answer: Answer) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b""


async def _closed(body: AsyncIterator[bytes]) -> None:
    close: Callable[[], Awaitable[None]] | None = getattr(body, "aclose", None)
    if close is not None:
        await close()
