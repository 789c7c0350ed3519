"""One timer for all deadlines of a process: setting, moving and clearing one is an attribute write.

A hashed wheel: an entry stands in one slot, at or before its due time; when the slot comes up it is
either due, or moved on. Deadlines of busy connections that never fire so cost next to nothing.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from math import inf

# How late a deadline may be noticed, in seconds.
TICK = 0.05
# No entry stands further ahead than this: what was cleared meanwhile is let go of by then; slots.
_HORIZON = int(4.0 / TICK)


class Deadline:
    """One thing that must happen in time; `expired` is called when it did not."""

    __slots__ = ("_slot", "_wheel", "due", "expired")

    def __init__(self, wheel: Wheel, expired: Callable[[], None]) -> None:
        """Start unset."""
        self._wheel = wheel
        self._slot = 0
        self.due = inf
        self.expired = expired

    @property
    def is_set(self) -> bool:
        """Return whether the deadline runs."""
        return self.due != inf

    def set(self, seconds: float) -> None:
        """Expire in so many seconds, instead of whatever was set before."""
        self.due = self._wheel.time() + seconds
        slot = int(min(self.due / TICK, self._wheel.time() / TICK + _HORIZON)) + 1
        # A later slot is found when the earlier one comes up; only an earlier one must be entered now.
        if not self._slot or slot < self._slot:
            self._slot = slot
            self._wheel.enter(self, slot)

    def clear(self) -> None:
        """Do not expire."""
        self.due = inf

    def turn(self, slot: int, now: float) -> None:
        """Be looked at because a slot came up."""
        if slot != self._slot:
            return
        self._slot = 0
        if self.due <= now:
            self.due = inf
            self.expired()
        elif self.due != inf:
            self._slot = min(max(int(self.due / TICK) + 1, slot + 1), slot + _HORIZON)
            self._wheel.enter(self, self._slot)


class Wheel:
    """All deadlines of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tick on `loop` while any deadline is entered."""
        self._loop = loop
        self._slots: dict[int, list[Deadline]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0
        self.time = loop.time

    def __len__(self) -> int:
        """Return how many entries are held, cleared ones that were not looked at yet among them."""
        return sum(map(len, self._slots.values()))

    def enter(self, deadline: Deadline, slot: int) -> None:
        """Look at a deadline when this slot comes up."""
        standing = self._slots.get(slot)
        if standing is None:
            self._slots[slot] = [deadline]
            heapq.heappush(self._order, slot)
        else:
            standing.append(deadline)
        if self._timer is None or slot < self._next:
            self._wait(slot)

    def _wait(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = slot
        # In the middle of the slot: rounding must not make it come up before its time, again and again.
        self._timer = self._loop.call_at((slot + 0.5) * TICK, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = self.time()
        last = int(now / TICK)
        while self._order and self._order[0] <= last:
            slot = heapq.heappop(self._order)
            for deadline in self._slots.pop(slot):
                deadline.turn(slot, now)
        if self._order and (self._timer is None or self._order[0] < self._next):
            self._wait(self._order[0])


_WHEELS: dict[int, tuple[asyncio.AbstractEventLoop, Wheel]] = {}


def wheel_of(loop: asyncio.AbstractEventLoop) -> Wheel:
    """Return the one wheel of an event loop."""
    found = _WHEELS.get(id(loop))
    if found is None or found[0] is not loop:
        for key in [key for key, (other, _) in _WHEELS.items() if other.is_closed()]:
            del _WHEELS[key]
        found = _WHEELS[id(loop)] = (loop, Wheel(loop))
    return found[1]
