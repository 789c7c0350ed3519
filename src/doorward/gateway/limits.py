"""Exact sliding windows in memory: at most N in any span, reserved all or none, never raced.

On failure: memory for counters used up -> UnavailableError, the limited request is 503.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from doorward.core.clock import Clock
from doorward.core.errors import UnavailableError
from doorward.core.obligation import Budget, Limit
from doorward.core.ports import LimitExceeded

Key: TypeAlias = tuple[str, "Limit | Budget"]

_MAX_WINDOWS = 100_000
_MAX_ENTRIES = 2_000_000


class _Use:
    """One use: when, and how much (requests, or a budget's unit once settled)."""

    __slots__ = ("amount", "at")

    def __init__(self, at: float, amount: int) -> None:
        self.at = at
        self.amount = amount


class _Window:
    __slots__ = ("seconds", "total", "uses")

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.uses: deque[_Use] = deque()
        self.total = 0

    def forget_before(self, now: float) -> int:
        gone = 0
        while self.uses and self.uses[0].at <= now - self.seconds:
            self.total -= self.uses.popleft().amount
            gone += 1
        return gone

    def room_in(self, now: float, capacity: int) -> float:
        """Return the seconds until one more use fits; 0 when it fits now."""
        if self.total < capacity:
            return 0.0
        left = self.total
        for use in self.uses:
            left -= use.amount
            if left < capacity:
                return max(0.0, use.at + self.seconds - now)
        return float(self.seconds)


class _Held:
    """A reservation of one use in each of several windows."""

    __slots__ = ("_open", "_parts", "_store")

    def __init__(self, store: MemoryLimits, parts: Sequence[tuple[_Window, _Use, bool]]) -> None:
        self._store = store
        self._parts = parts
        self._open = True

    async def release(self) -> None:
        """Give every use back; twice does nothing more."""
        if self._open:
            self._open = False
            self._store.give_back(self._parts)

    async def settle(self, used: int) -> None:
        """Keep the uses; a budget's becomes what was really used."""
        if not self._open:
            return
        self._open = False
        for window, use, is_budget in self._parts:
            if is_budget and use in window.uses:
                window.total += used - use.amount
                use.amount = used


class MemoryLimits:
    """Count in this process; nothing awaits between check and use, so no race can pass the limit."""

    def __init__(
        self, clock: Clock, *, max_windows: int = _MAX_WINDOWS, max_entries: int = _MAX_ENTRIES
    ) -> None:
        """Bound the number of counters and of remembered uses."""
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._entries = 0
        self._max_windows = max_windows
        self._max_entries = max_entries

    async def reserve(self, keys: tuple[Key, ...]) -> _Held:
        """Reserve one use of every counter, all or none.

        Raises LimitExceeded with the longest wait, or UnavailableError when counters find no memory.
        """
        now = self._clock.monotonic()
        self._make_room(now, len(keys))
        parts: list[tuple[_Window, _Use, bool]] = []
        worst: LimitExceeded | None = None
        for name, obligation in keys:
            window = self._window(name, obligation.seconds)
            self._entries -= window.forget_before(now)
            is_budget = isinstance(obligation, Budget)
            capacity = obligation.amount if isinstance(obligation, Budget) else obligation.count
            wait = window.room_in(now, capacity)
            if window.total >= capacity and (worst is None or wait > worst.retry_after):
                worst = LimitExceeded(obligation, wait)
            parts.append((window, _Use(now, 0 if is_budget else 1), is_budget))
        if worst is not None:
            raise worst
        for window, use, _ in parts:
            window.uses.append(use)
            window.total += use.amount
            self._entries += 1
        return _Held(self, parts)

    def give_back(self, parts: Sequence[tuple[_Window, _Use, bool]]) -> None:
        """Remove the uses of one reservation, if time has not removed them already."""
        for window, use, _ in parts:
            if use in window.uses:
                window.uses.remove(use)
                window.total -= use.amount
                self._entries -= 1

    def _window(self, name: str, seconds: int) -> _Window:
        # A policy that changes its span starts a counter of that span.
        key = f"{name}|{seconds}"
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(seconds)
        return window

    def _make_room(self, now: float, wanted: int) -> None:
        if len(self._windows) + wanted <= self._max_windows and self._entries + wanted <= self._max_entries:
            return
        for name, window in list(self._windows.items()):
            self._entries -= window.forget_before(now)
            if not window.uses:
                del self._windows[name]
        if len(self._windows) + wanted > self._max_windows or self._entries + wanted > self._max_entries:
            raise UnavailableError(
                "there is no room for another usage counter", hint="Shorten the spans of the limits."
            )
