"""`doorward up`: start the roles as child processes, keep them running, stop them together."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import structlog

from doorward.app.children import Job, Kept, RoleExitedError
from doorward.app.fleet import Fleet
from doorward.core.errors import InvalidConfigError
from doorward.settings import Settings

# What the others need first; they end in the opposite order.
GATEWAY = "gateway"
ROLES = ("ledger", "control", GATEWAY)
# `--role gateway`: everything that traffic needs. The control role runs apart, or not at the moment.
DATA_ROLES = ("ledger", GATEWAY)
# Nobody waits for it: decisions are made without it, and it starts again like the others.
SHADOW = "shadow"
_GRACE = 20.0
_PRIVATE_DIRECTORY = 0o700
_LOCK = "up.lock"
_CHILDREN_LOCK = "children.lock"
_ORPHANS_SECONDS = 40.0
_LOOK_SECONDS = 0.1
_log = structlog.get_logger()


async def supervise(
    settings: Settings,
    *,
    arguments: tuple[str, ...],
    roles: tuple[str, ...] = ROLES,
    on_ready: Callable[[], None],
) -> int:
    """Run the roles until SIGINT or SIGTERM; restart what dies; return the exit code.

    `arguments` are handed to each child. SIGHUP replaces the gateways one by one, with the
    configuration as it is then; where it comes from a closed terminal it stops. A role that ends before
    it was ever ready ends everything with its own exit code: a broken start is not retried.
    """
    stopping, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, stopping.set if sys.stdin.isatty() else reload.set)
    with held(settings.data):
        async with alone(settings.data, stopping) as lock:
            house = _House(settings, arguments=arguments, roles=roles, lock=lock, stopping=stopping)
            return await house.run(reload, on_ready)


class _House:
    """Everything that runs, in the order it starts; it ends in the opposite order."""

    def __init__(
        self,
        settings: Settings,
        *,
        arguments: tuple[str, ...],
        roles: tuple[str, ...],
        lock: int,
        stopping: asyncio.Event,
    ) -> None:
        """Bind the gateways' port first: if it is taken nothing starts."""
        self._stopping = stopping
        self._fleet = (
            Fleet(
                settings.gateway,
                data=settings.data,
                arguments=arguments,
                inherited=(lock,),
                stopping=stopping,
            )
            if GATEWAY in roles
            else None
        )
        jobs = [Job(role, ("--role", role, *arguments), (lock,)) for role in roles if role != GATEWAY]
        self._roles = {job.name: Kept(partial(_same, job), settings.data, stopping) for job in jobs}

    async def run(self, reload: asyncio.Event, on_ready: Callable[[], None]) -> int:
        """Start, keep and stop everything; return the exit code."""
        try:
            await self._start()
            if not self._stopping.is_set():
                on_ready()
            for role in self._roles.values():
                role.keep()
            if self._fleet is not None:
                self._fleet.keep()
            await self._reload_until_stopped(reload)
        except RoleExitedError as ended:
            return ended.status or 1
        except asyncio.CancelledError:
            pass
        finally:
            await self._stop()
        return 0

    async def _start(self) -> None:
        # All start at once: gateways wait by themselves for what the others tell them.
        for role in self._roles.values():
            await role.start()
        if self._fleet is not None:
            await self._fleet.start()
        for name, role in self._roles.items():
            if name != SHADOW:
                await role.ready()
        if self._fleet is not None:
            await self._fleet.ready()

    async def _reload_until_stopped(self, reload: asyncio.Event) -> None:
        stop = asyncio.create_task(self._stopping.wait())
        while not stop.done():
            again = asyncio.create_task(reload.wait())
            await asyncio.wait({stop, again}, return_when=asyncio.FIRST_COMPLETED)
            if again.done() and not stop.done():
                reload.clear()
                if self._fleet is not None:
                    # When we are stopped meanwhile it ends by itself, at the next gateway.
                    await self._fleet.roll()
            again.cancel()

    async def _stop(self) -> None:
        # The gateways first: the control role then signs the clean end of their logs, and the ledger
        # hears of every use.
        if self._fleet is not None:
            await self._fleet.stop()
        for role in reversed(self._roles.values()):
            await role.stop(_GRACE)


def _same(job: Job) -> Job:
    return job


def prepare_data(data: Path) -> None:
    """Make the data directory, for this account only; raise InvalidConfigError if it cannot be used."""
    try:
        data.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    except OSError as reason:
        raise InvalidConfigError(
            f"the data directory {data} cannot be made: {reason.strerror or reason}",
            hint="Name a directory that you may write with --data.",
        ) from reason


@contextlib.contextmanager
def held(data: Path) -> Iterator[None]:
    """Make the data directory ours until the block ends; raise InvalidConfigError if another `up` runs on it.

    The kernel gives the lock back when this process ends, however it ends.
    """
    prepare_data(data)
    try:
        lock = os.open(data / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as reason:
        raise InvalidConfigError(
            f"the data directory {data} cannot be written: {reason.strerror or reason}",
            hint="Name a directory that you may write with --data.",
        ) from reason
    try:
        _lock(lock, data)
        # Whom to send a signal to; it says nothing once the lock is free.
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(lock)


def _lock(file: int, data: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InvalidConfigError(
            f"another `doorward up` runs on {data}",
            hint="Stop it first, or choose another data directory with --data.",
        ) from None


@contextlib.asynccontextmanager
async def alone(data: Path, stopping: asyncio.Event) -> AsyncIterator[int]:
    """Wait until the processes of a run whose supervisor was killed are gone; yield a lock to hand down.

    Every child inherits the lock's descriptor, so it is free when the last of them has ended. Raises
    InvalidConfigError if they do not end.
    """
    lock = os.open(data / _CHILDREN_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _ORPHANS_SECONDS
        told = False
        while not stopping.is_set():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    told = True
                    _log.warning("former_processes_awaited", seconds=_ORPHANS_SECONDS)
            if time.monotonic() > deadline:
                raise InvalidConfigError(
                    f"processes of a former `doorward up` on {data} do not end",
                    hint=f"Find them with `fuser {data / _CHILDREN_LOCK}` and end them.",
                )
            await asyncio.sleep(_LOOK_SECONDS)
        yield lock
    finally:
        os.close(lock)


async def set_when_asked(stop: asyncio.Event, lifeline: int | None) -> bool:
    """Set `stop` when SIGTERM or SIGINT arrives, or when the supervisor is gone (its pipe end closes).

    Return whether the supervisor is gone: then nobody waits, and the next one waits for us to end.
    """
    loop = asyncio.get_running_loop()
    orphaned = False

    def left() -> None:
        nonlocal orphaned
        orphaned = True
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if lifeline is not None:
        loop.add_reader(lifeline, left)
    await stop.wait()
    if lifeline is not None:
        loop.remove_reader(lifeline)
    return orphaned
