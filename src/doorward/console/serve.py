"""Serve one application on two listeners: TCP for browsers, a Unix socket for the local operator.

On the Unix socket the kernel says who is at the other end (SO_PEERCRED). Only our own uid and root
get past the handshake, and the uid stands in the request's state as `peer_uid`: a key that a TCP
connection never has, whatever it sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.peer import socket_address
from doorward.settings import split_listen

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_UCRED = struct.Struct("3i")
_BACKLOG = 128
_HEADER_SECONDS = 10.0
_KEEP_ALIVE_SECONDS = 15
_GRACE_SECONDS = 2
_MAX_HEADER_BYTES = 32 * 1024
_CONCURRENCY = 256
_PRIVATE = 0o600
_log = structlog.get_logger()


def peer_uid_of(descriptor: int) -> int:
    """Return the uid of the process at the other end of a connected Unix socket."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(raw)
    return int(uid)


class TcpProtocol(H11Protocol):
    """Speak HTTP/1.1, and hang up on a peer that connects and says nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base
        """Start the clock for the first request's headers, and keep the verified client certificate."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = None if tls is None else tls.getpeercert(binary_form=True)
        if certificate is not None:
            self.app_state = {**self.app_state, "client_certificate": certificate}
        self._silence = self.loop.call_later(_HEADER_SECONDS, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._silence.cancel()
        super().connection_lost(exc)

    def _hang_up(self) -> None:
        if self.scope is None:
            self.transport.close()


class OperatorProtocol(TcpProtocol):
    """Speak HTTP/1.1 with our own uid or root only, and say which in the request's state."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base
        """Ask the kernel who is there; anyone else is hung up on."""
        uid = peer_uid_of(transport.get_extra_info("socket").fileno())
        super().connection_made(transport)
        if uid not in {os.getuid(), 0}:
            _log.warning("socket_peer_refused", uid=uid)
            transport.abort()
            return
        self.app_state = {**self.app_state, "peer_uid": uid}


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: two servers share this loop."""
        yield


def _server(app: ASGIApp, protocol: type[H11Protocol], tls: ssl.SSLContext | None) -> _Server:
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        limit_concurrency=_CONCURRENCY,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
    )
    config.load()
    config.ssl = tls
    return _Server(config)


def bind_tcp(listen: str) -> socket.socket:
    """Bind `HOST:PORT`; raise InvalidConfigError when the port is taken or the address is not ours."""
    host, port = split_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or the event loop leaves Nagle's algorithm on: 40 ms for each answer kept alive.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as reason:
        sock.close()
        raise InvalidConfigError(
            f"the control plane cannot listen on {listen} ({reason.strerror or reason})",
            hint="Stop what listens there, or choose another port with `[control] listen`.",
        ) from reason
    sock.settimeout(0)
    return sock


def bind_unix(path: Path) -> socket.socket:
    """Bind a socket only we may open (0600); raise UnavailableError when another process answers there."""
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with socket_address(path) as address:
            sock.bind(address)
    except OSError as reason:
        sock.close()
        raise InvalidConfigError(
            f"the control socket {path} cannot be made ({reason.strerror or reason})",
            hint="Choose a --data directory that you may write.",
        ) from reason
    finally:
        os.umask(before)
    path.chmod(_PRIVATE)
    sock.listen(_BACKLOG)
    sock.settimeout(0)
    return sock


def _clear(path: Path) -> None:
    """Remove the socket a dead process left; never a file, never a living process's."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise InvalidConfigError(f"{path} is not a socket", hint="Move it away; Doorward makes its own.")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1.0)
        try:
            with socket_address(path) as address:
                probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise UnavailableError(
        f"a control process already answers at {path}",
        hint="Stop it first, or use another --data directory.",
    )


async def serve(  # noqa: PLR0913 -- two listeners and how they begin and end
    app: ASGIApp,
    *,
    listen: str,
    socket_path: Path,
    stop: asyncio.Event,
    tls: ssl.SSLContext | None = None,
    on_ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until `stop` is set; `on_ready` is told the TCP port once both listeners accept.

    Raises InvalidConfigError or UnavailableError when a listener cannot be bound.
    """
    tcp = bind_tcp(listen)
    try:
        unix = bind_unix(socket_path)
    except Exception:
        tcp.close()
        raise
    port = int(tcp.getsockname()[1])
    servers = (_server(app, TcpProtocol, tls), _server(app, OperatorProtocol, None))
    running = [
        asyncio.create_task(server.serve(sockets=[sock]))
        for server, sock in zip(servers, (tcp, unix), strict=True)
    ]
    try:
        await _started(servers, running)
        _log.info("control_plane_listening", listen=listen, port=port, socket=str(socket_path))
        if on_ready is not None:
            on_ready(port)
        await _until(stop, running)
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running)
        socket_path.unlink(missing_ok=True)


async def _started(servers: tuple[_Server, ...], running: list[asyncio.Task[None]]) -> None:
    while not all(server.started for server in servers):
        if any(task.done() for task in running):
            raise UnavailableError("the control plane stopped while it started")
        await asyncio.sleep(0.01)


async def _until(stop: asyncio.Event, running: list[asyncio.Task[None]]) -> None:
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, *running}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
