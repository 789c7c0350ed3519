"""The HTTP edge: sockets, TLS, bounds on slow and large clients; everything else is the flow's.

It turns bytes into `core.wire.Request` and an `Answer` into bytes (`http1`), and knows nothing more.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from doorward.core.errors import DoorwardError, InvalidConfigError, PayloadTooLargeError
from doorward.core.ids import IdSource
from doorward.core.wire import Answer, Peer, Request
from doorward.gateway.body import AnswerCutError
from doorward.gateway.canonical import Head, read
from doorward.gateway.faults import origin_of
from doorward.gateway.proxies import Proxies
from doorward.gateway.refusal import of_error, problem
from doorward.http1.budget import Budget
from doorward.http1.heads import RequestHead
from doorward.http1.incoming import IncomingBody
from doorward.http1.listener import Bounds, Listener
from doorward.identity.tls import chain_of
from doorward.settings import GatewaySettings, is_loopback, split_listen

_log = structlog.get_logger()
_TLS_CLOSE_SECONDS = 2.0
_LAST_SECONDS = 0.5


class Handles(Protocol):
    """What the edge hands requests to (`gateway.flow.Flow`)."""

    async def handle(self, request: Request) -> Answer:
        """Return the answer to a canonical request."""

    async def malformed(self, error: DoorwardError, *, request_id: str, peer: Peer) -> Answer:
        """Return the answer to a request that has no canonical reading."""


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
        idle_seconds: float | None = None,
        budget: Budget | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        """Take the flow; `opaque` maps an upstream's name to its strict path segments (`canonical`).

        `budget` bounds the bytes held for all requests. `listener` is a bound socket to listen on, shared
        with the process that takes over from us; else one is made.
        Raises InvalidConfigError for plain HTTP on an address that others can reach.
        """
        self._host, self._port = split_listen(settings.listen)
        if tls is None and not is_loopback(self._host):
            raise InvalidConfigError(
                f"[gateway] listen = `{settings.listen}` would serve credentials in the clear",
                hint='Set tls = "auto" or tls = { cert, key }, or listen on 127.0.0.1.',
            )
        self._flow, self._settings, self._ids = flow, settings, ids
        self._opaque, self._tls, self._inherited = opaque, tls, listener
        self._proxies = Proxies(settings.proxies)
        self._bounds = bounds_of(settings, idle_seconds=idle_seconds)
        self._budget = budget or Budget(settings.max_buffered)
        self._http: Listener | None = None
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Return the port that is listened on, also when port 0 was asked for."""
        if self._listener is None or not self._listener.sockets:
            return self._port
        return int(self._listener.sockets[0].getsockname()[1])

    def numbers(self) -> tuple[tuple[str, str, Callable[[], float]], ...]:
        """Return live numbers for operators: name, text, and how to read it."""
        return (
            ("doorward_connections", "Connections of callers that are open.", lambda: self._count(len)),
            ("doorward_connections_shed", "Connections refused for their number.", self._shed),
            ("doorward_buffered_bytes", "Bytes of bodies held in memory.", lambda: self._budget.used),
            ("doorward_bodies_shed", "Bodies refused for want of memory.", lambda: self._budget.refused),
        )

    def _count(self, of: Callable[[Listener], int]) -> int:
        return of(self._http) if self._http is not None else 0

    def _shed(self) -> int:
        return self._count(lambda http: http.shed)

    async def start(self) -> None:
        """Listen; raise InvalidConfigError when the address cannot be had."""
        self._http = Listener(self, self._bounds, self._budget, chain_of=chain_of)
        where: dict[str, Any] = {"host": self._host, "port": self._port}
        if self._inherited is not None:
            where = {"sock": self._inherited}
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                self._http,
                **where,
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
            await self._http.drain(grace)

    async def close(self) -> None:
        """Close every connection that is left."""
        if self._listener is not None:
            self._listener.close()
        if self._http is not None:
            await self._http.close(_LAST_SECONDS)
        self._listener = self._http = None

    # One request

    async def serve(self, head: RequestHead, body: IncomingBody, peer: Peer) -> tuple[Answer, bool]:
        """Return the answer to a request, and whether its connection can go on."""
        request_id = self._ids.new()
        try:
            self._check_size(head)
            request = read(_head(head), id=request_id, peer=peer, body=body, opaque=self._opaque)
            return await self._flow.handle(self._proxies.seen(request)), True
        except DoorwardError as error:
            # After this nothing on the connection can be trusted to start where it seems to.
            return await self._flow.malformed(error, request_id=request_id, peer=peer), False
        except Exception as error:  # noqa: BLE001 -- the last line: a fault is answered without its words
            _log.error("request_failed", request_id=request_id, error=origin_of(error))
            answer = problem(of_error(error, request_id))
            answer.headers.append(("Doorward-Request-Id", request_id))
            return answer, False

    async def refuse(self, error: DoorwardError, peer: Peer) -> Answer:
        """Return the answer to bytes that are no request."""
        return await self._flow.malformed(error, request_id=self._ids.new(), peer=peer)

    def broken(self, error: Exception) -> None:
        """Log a fault of our own that ended an answer; other endings are on record already."""
        if not isinstance(error, (AnswerCutError, DoorwardError, OSError)):
            _log.error("answer_broken_off", error=origin_of(error))

    def _check_size(self, head: RequestHead) -> None:
        if len(head.headers) > self._settings.max_headers:
            raise PayloadTooLargeError(
                "the header section is too large",
                hint=f"At most {self._settings.max_headers} lines.",
                code="headers_too_large",
            )


def _head(head: RequestHead) -> Head:
    return Head(
        method=head.method,
        target=head.target.decode("ascii"),
        version=head.version,
        headers=tuple(head.headers),
    )


def bounds_of(settings: GatewaySettings, *, idle_seconds: float | None = None) -> Bounds:
    """Return the bounds of every connection as the configuration has them."""
    return Bounds(
        max_header_bytes=settings.max_header_bytes,
        header_timeout=settings.header_timeout,
        body_pause=min(settings.body_pause, settings.body_timeout),
        idle_timeout=settings.idle_timeout if idle_seconds is None else idle_seconds,
        write_timeout=settings.write_timeout,
        half_close=settings.half_close,
        max_connections=settings.max_connections,
        max_connections_per_address=settings.max_connections_per_address,
    )
