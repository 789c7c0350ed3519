"""Child processes of the supervisor: started with a lifeline, waited for, kept running, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from doorward.app.admin import fetched
from doorward.core.errors import UnavailableError

READY_SECONDS = 60.0
_OK = 200
_FIRST_BACKOFF = 0.2
_LONGEST_BACKOFF = 5.0
_LOOK_SECONDS = 0.05
_log = structlog.get_logger()


class RoleExitedError(UnavailableError):
    """A role ended before it was ready; `status` is its exit code, already explained on stderr."""

    def __init__(self, role: str, status: int) -> None:
        """Keep the role and its exit status."""
        super().__init__(f"the {role} process ended before it was ready (exit {status})")
        self.status = status


@dataclass(frozen=True, slots=True)
class Job:
    """One process to run: its name, which names its admin socket, and its words after `up`.

    `inherited` are descriptors it gets; the rest is closed.
    """

    name: str
    words: tuple[str, ...]
    inherited: tuple[int, ...] = ()


class Child:
    """A running job; the lifeline is our end of a pipe whose closing tells it to stop, however we end."""

    def __init__(self, job: Job, process: asyncio.subprocess.Process, lifeline: int) -> None:
        """Take what `start` made."""
        self.job, self.process, self._lifeline = job, process, lifeline
        self.started = asyncio.get_running_loop().time()
        self.lived = float("inf")

    @classmethod
    async def start(cls, job: Job) -> Child:
        """Start a process."""
        theirs, ours = os.pipe()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "doorward.cli", "up", "--lifeline", str(theirs), *job.words,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs, *job.inherited),
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops the roles in order
        )  # fmt: skip
        os.close(theirs)
        return cls(job, process, ours)

    @property
    def ended(self) -> bool:
        """Return whether the process is over."""
        return self.process.returncode is not None

    async def ready(self, data: Path, stopping: asyncio.Event) -> None:
        """Wait until its admin socket says ready; raise RoleExitedError if it ends first."""
        socket = data / f"{self.job.name}.sock"
        while not stopping.is_set():
            if self.process.returncode is not None:
                raise RoleExitedError(self.job.name, self.process.returncode)
            if await says_ready(socket):
                return
            if asyncio.get_running_loop().time() - self.started > READY_SECONDS:
                raise UnavailableError(
                    f"the {self.job.name} process was not ready within {READY_SECONDS:.0f} s",
                    hint="Its log above says what it waits for.",
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), _LOOK_SECONDS)

    async def stop(self, grace: float) -> None:
        """Ask it to finish; end it when it does not within `grace` seconds."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), grace)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        self.let_go()

    def let_go(self) -> None:
        """Close our end of the lifeline; twice is no error."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


async def says_ready(socket: Path) -> bool:
    """Ask a role's admin socket for /readyz; a socket that does not answer is not ready."""
    return (await fetched(socket, "/readyz"))[0] == _OK


class Kept:
    """A job that is started again whenever it ends, a little later each time it ends soon again."""

    def __init__(self, make: Callable[[], Job], data: Path, stopping: asyncio.Event) -> None:
        """Take what makes the job anew each time."""
        self._make, self._data, self._stopping = make, data, stopping
        self.child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._backoff = _FIRST_BACKOFF
        # Held while a process is being started or exchanged, so that none is ever lost sight of.
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Start it for the first time."""
        self.child = await Child.start(self._make())

    async def ready(self) -> None:
        """Wait until it is ready for the first time; raise RoleExitedError if it ends first."""
        if self.child is not None:
            await self.child.ready(self._data, self._stopping)

    def keep(self) -> None:
        """Restart it from now on."""
        self._keeper = asyncio.create_task(self._keep())

    async def replace(self, grace: float) -> None:
        """Start another beside it, and end the old one once the new one is ready.

        Raises UnavailableError if the new one does not become ready: the old one stays.
        """
        async with self._changing:
            fresh = await Child.start(self._make())
            try:
                await fresh.ready(self._data, self._stopping)
            except UnavailableError:
                await fresh.stop(grace)
                raise
            old, self.child = self.child, fresh
            # The old one's end is meant: the keeper looks at the new one from now on.
            self._unkeep()
            self.keep()
        if old is not None:
            await old.stop(grace)

    async def stop(self, grace: float) -> None:
        """End it, and keep it no longer."""
        async with self._changing:
            self._unkeep()
        if self.child is not None:
            await self.child.stop(grace)

    def _unkeep(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while self.child is not None and not self._stopping.is_set():
            status = await self.child.process.wait()
            self.child.let_go()
            self.child.lived = loop.time() - self.child.started
            if self.child.lived > READY_SECONDS:
                self._backoff = _FIRST_BACKOFF
            _log.error("role_ended", ended=self.child.job.name, status=status, restart_in_s=self._backoff)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._backoff)
                return
            self._backoff = min(self._backoff * 2, _LONGEST_BACKOFF)
            async with self._changing:
                self.child = await Child.start(self._make())
            with contextlib.suppress(UnavailableError):
                await self.child.ready(self._data, self._stopping)


async def stop_all(kept: Sequence[Kept], grace: float) -> None:
    """End several at the same time."""
    await asyncio.gather(*(each.stop(grace) for each in kept))
