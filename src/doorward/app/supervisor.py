"""`doorward up`: start the roles as child processes, keep them running, stop them together."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from doorward.app.admin import fetched
from doorward.core.errors import InvalidConfigError, UnavailableError

# What the others need first; they end in the opposite order.
ROLES = ("ledger", "control", "gateway")
# Nobody waits for it: decisions are made without it, and it starts again like the others.
SHADOW = "shadow"
_READY_DEADLINE = 60.0
_GRACE = 20.0
_PRIVATE_DIRECTORY = 0o700
_LOCK = "up.lock"
_OK = 200
_FIRST_BACKOFF = 0.2
_LONGEST_BACKOFF = 5.0
_log = structlog.get_logger()


@dataclass(slots=True)
class _Child:
    """One role's process; `lifeline` is our end of a pipe whose closing tells the child to stop."""

    role: str
    process: asyncio.subprocess.Process
    lifeline: int
    started: float = field(default=0.0)


class RoleExitedError(UnavailableError):
    """A role ended before it was ready; `status` is its exit code, already explained on stderr."""

    def __init__(self, role: str, status: int) -> None:
        """Keep the role and its exit status."""
        super().__init__(f"the {role} process ended before it was ready (exit {status})")
        self.status = status


async def supervise(
    *, arguments: list[str], data: Path, roles: tuple[str, ...] = ROLES, on_ready: Callable[[], None]
) -> int:
    """Run the roles until SIGINT or SIGTERM; restart one that dies; return the exit code.

    `arguments` are handed to each child after `up --role ROLE`. A role that ends before it was
    ever ready ends everything with its own exit code: a broken start is not retried.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    with held(data):
        return await _run(arguments, data, roles, stopping, on_ready)


async def _run(
    arguments: list[str],
    data: Path,
    roles: tuple[str, ...],
    stopping: asyncio.Event,
    on_ready: Callable[[], None],
) -> int:
    children: list[_Child] = []
    try:
        # All start at once: the gateway waits by itself for what the control role tells it.
        children += [await _start(role, arguments) for role in roles]
        for child in children:
            if child.role != SHADOW:
                await _ready(child, data, stopping)
        if not stopping.is_set():
            on_ready()
        keepers = [asyncio.create_task(_keep(child, arguments, data, stopping)) for child in children]
        await stopping.wait()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
    except RoleExitedError as ended:
        return ended.status or 1
    except asyncio.CancelledError:
        pass
    finally:
        # The gateway first: the control role then signs the clean end of its log, and the ledger hears
        # of every use.
        for child in reversed(children):
            await _stop(child)
    return 0


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


async def _start(role: str, arguments: list[str]) -> _Child:
    theirs, ours = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "doorward.cli", "up", "--role", role, "--lifeline", str(theirs), *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(theirs,),
        start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops the roles in order
    )  # fmt: skip
    os.close(theirs)
    return _Child(role, process, ours, asyncio.get_running_loop().time())


async def _ready(child: _Child, data: Path, stopping: asyncio.Event) -> None:
    """Wait until the role's admin socket says ready; raise RoleExitedError if it ends first."""
    socket = data / f"{child.role}.sock"
    deadline = asyncio.get_running_loop().time() + _READY_DEADLINE
    while not stopping.is_set():
        if child.process.returncode is not None:
            raise RoleExitedError(child.role, child.process.returncode)
        if await says_ready(socket):
            return
        if asyncio.get_running_loop().time() > deadline:
            raise UnavailableError(
                f"the {child.role} process was not ready within {_READY_DEADLINE:.0f} s",
                hint="Its log above says what it waits for.",
            )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.process.wait(), 0.05)


async def says_ready(socket: Path) -> bool:
    """Ask a role's admin socket for /readyz; a socket that does not answer is not ready."""
    return (await fetched(socket, "/readyz"))[0] == _OK


async def _keep(child: _Child, arguments: list[str], data: Path, stopping: asyncio.Event) -> None:
    """Restart a role whenever it ends, a little later each time it ends soon again."""
    backoff = _FIRST_BACKOFF
    loop = asyncio.get_running_loop()
    while not stopping.is_set():
        status = await child.process.wait()
        if loop.time() - child.started > _READY_DEADLINE:
            backoff = _FIRST_BACKOFF
        _log.error("role_ended", ended=child.role, status=status, restart_in_s=backoff)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), backoff)
            return
        backoff = min(backoff * 2, _LONGEST_BACKOFF)
        fresh = await _start(child.role, arguments)
        os.close(child.lifeline)
        child.process, child.lifeline, child.started = fresh.process, fresh.lifeline, fresh.started
        with contextlib.suppress(RoleExitedError, UnavailableError):
            await _ready(child, data, stopping)


async def _stop(child: _Child) -> None:
    """Ask the role to finish; end it when it does not within the grace."""
    with contextlib.suppress(OSError):
        os.close(child.lifeline)
    if child.process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.process.terminate()
    try:
        await asyncio.wait_for(child.process.wait(), _GRACE)
    except TimeoutError:
        child.process.kill()
        await child.process.wait()


async def set_when_asked(stop: asyncio.Event, lifeline: int | None) -> None:
    """Set `stop` when SIGTERM or SIGINT arrives, or when the supervisor is gone (its pipe end closes)."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if lifeline is not None:
        loop.add_reader(lifeline, stop.set)
    await stop.wait()
    if lifeline is not None:
        loop.remove_reader(lifeline)
