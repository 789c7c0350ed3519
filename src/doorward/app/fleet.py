"""The gateway processes of one machine: one port, one socket each, replaced one by one without a gap.

Each slot's listening socket (SO_REUSEPORT: the kernel spreads connections over them) belongs to the
supervisor and is inherited, so a connection that waits while its gateway is replaced is served by the next.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from pathlib import Path

import structlog

from doorward.app.admin import AdminServer
from doorward.app.aggregate import Workers
from doorward.app.children import Job, Kept, stop_all
from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.settings import GatewaySettings, split_listen

# A gateway may need this much longer than its streams to write its last records; seconds.
_LAST_SECONDS = 10.0
_CRASH_SECONDS = 10.0
_log = structlog.get_logger()


def bound(listen: str) -> socket.socket:
    """Return a socket bound to `HOST:PORT` that shares its port with our others; it does not listen yet.

    Raises InvalidConfigError when the address cannot be had.
    """
    return _bound(listen, shared=True)


def _bound(listen: str, *, shared: bool) -> socket.socket:
    host, port = split_listen(listen)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as reason:
        why = "the port is taken" if reason.errno == errno.EADDRINUSE else reason.strerror or str(reason)
        raise InvalidConfigError(
            f"cannot listen on {listen}: {why}",
            hint="Stop what listens there (`ss -ltnp` names it), or set [gateway] listen.",
        ) from reason
    return made


class Fleet:
    """Run `settings.workers` gateways."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        data: Path,
        arguments: tuple[str, ...],
        inherited: tuple[int, ...],
        stopping: asyncio.Event,
    ) -> None:
        """Bind the port; raise InvalidConfigError when it cannot be had."""
        self._data, self._arguments, self._inherited = data, arguments, inherited
        self._stopping = stopping
        self._grace = settings.drain + _LAST_SECONDS
        # A port that is shared would also be shared with another installation: first it must be free.
        _bound(settings.listen, shared=False).close()
        first = bound(settings.listen)
        # A port chosen by the kernel is everybody's.
        host = settings.listen.rpartition(":")[0]
        self._listen = f"{host}:{first.getsockname()[1]}"
        self._sockets = [first, *(bound(self._listen) for _ in range(settings.workers - 1))]
        self._slots = [Kept(self._maker(slot), data, stopping) for slot in range(settings.workers)]
        self._rolling = asyncio.Lock()
        self._admin = AdminServer(data / "gateway.sock", Workers(data, self.names).answer)

    def names(self) -> tuple[str, ...]:
        """Return the names of the gateways that run."""
        running = (slot.child for slot in self._slots)
        return tuple(child.job.name for child in running if child is not None and not child.ended)

    async def start(self) -> None:
        """Start all gateways, and the admin socket that speaks for them."""
        for slot in self._slots:
            await slot.start()
        await self._admin.start()

    async def ready(self) -> None:
        """Wait until all are ready; raise RoleExitedError if one ends first."""
        await asyncio.gather(*(slot.ready() for slot in self._slots))

    def keep(self) -> None:
        """Restart those that end, from now on."""
        for slot in self._slots:
            slot.keep()

    async def roll(self) -> None:
        """Replace one gateway after the other; stop at the first whose replacement does not become ready."""
        async with self._rolling:
            for slot in self._slots:
                if self._stopping.is_set():
                    return
                try:
                    await slot.replace(self._grace)
                except UnavailableError as reason:
                    _log.error("reload_failed", reason=reason.message)
                    return
            _log.info("gateways_replaced", names=list(self.names()))

    async def stop(self) -> None:
        """End all at the same time; their connections wait no longer."""
        await stop_all(self._slots, self._grace)
        await self._admin.stop()
        for each in self._sockets:
            each.close()

    def _maker(self, slot: int) -> Callable[[], Job]:
        def make() -> Job:
            listener = self._socket(slot).fileno()
            name = self._free_name()
            own = ("--role", "gateway", "--worker", name, "--listener", str(listener))
            words = (*own, "--workers", str(len(self._sockets)), *self._arguments)
            return Job(name, words, (listener, *self._inherited))

        return make

    def _socket(self, slot: int) -> socket.socket:
        """Return a slot's socket; a new one after a start that failed, so that nobody waits at the old."""
        child = self._slots[slot].child
        if child is not None and child.ended and child.lived < _CRASH_SECONDS:
            self._sockets[slot].close()
            self._sockets[slot] = bound(self._listen)
        return self._sockets[slot]

    def _free_name(self) -> str:
        """Return the first name no running gateway has: each name is one writer of the log."""
        taken = set(self.names())
        return next(name for n in range(1, len(taken) + 2) if (name := f"gateway-{n}") not in taken)
