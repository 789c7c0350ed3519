"""Wait until a decision point stands on what a caller demands: by event, for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from doorward.core.errors import BehindError, UnavailableError
from doorward.core.versions import PATIENCE, AtLeast

if TYPE_CHECKING:
    from doorward.decisions.point import DecisionPoint

# So many may wait at once; nobody can fill a process with waiting.
_MOST = 256


class Arrivals:
    """Wake whoever waits whenever bundle or entities move. Callable from any thread."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._wakers: set[Callable[[], None]] = set()

    @property
    def full(self) -> bool:
        """Return whether nobody else may wait."""
        return len(self._wakers) >= _MOST

    def moved(self) -> None:
        """Wake everybody who waits."""
        for wake in tuple(self._wakers):
            wake()

    @contextlib.contextmanager
    def _waking(self, wake: Callable[[], None]) -> Iterator[None]:
        self._wakers.add(wake)
        try:
            yield
        finally:
            self._wakers.discard(wake)

    async def until(self, met: Callable[[], bool], seconds: float) -> bool:
        """Return whether `met` held before the time was up; it is asked anew after each move."""
        loop, moved = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(moved.set)

        with self._waking(wake), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not met():
                    await moved.wait()
                    moved.clear()
        return met()

    def until_blocking(self, met: Callable[[], bool], seconds: float) -> bool:
        """Return the same for a thread of its own."""
        moved, deadline = threading.Event(), time.monotonic() + seconds
        with self._waking(moved.set):
            while not met() and (left := deadline - time.monotonic()) > 0:
                moved.wait(left)
                moved.clear()
        return met()


def meets(point: DecisionPoint, demand: AtLeast) -> bool:
    """Return whether a decision made now rests on what is demanded."""
    try:
        standpoint = point.pin()
    except UnavailableError:
        return False
    return standpoint.snapshot.version >= demand.entities and demand.bundle in {"", standpoint.bundle_digest}


async def at_least(point: DecisionPoint, demand: AtLeast, seconds: float = PATIENCE) -> None:
    """Return once decisions rest on what is demanded; raise BehindError if that takes too long."""
    if meets(point, demand):
        return
    if point.arrivals.full or not await point.arrivals.until(lambda: meets(point, demand), seconds):
        raise BehindError(demand)


def at_least_blocking(point: DecisionPoint, demand: AtLeast, seconds: float = PATIENCE) -> None:
    """Do the same in a thread of its own."""
    if meets(point, demand):
        return
    if point.arrivals.full or not point.arrivals.until_blocking(lambda: meets(point, demand), seconds):
        raise BehindError(demand)
