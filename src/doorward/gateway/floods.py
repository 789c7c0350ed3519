"""Refusals of unknown callers: the first per source, reason and second is a record, the rest a number."""

from __future__ import annotations

import msgspec

from doorward.core.clock import Clock

_MAX_KEYS = 256
_OTHERS = "others"


class Burst(msgspec.Struct, frozen=True):
    """State how often one source was refused for one reason beyond the record it got."""

    ip: str
    code: str
    count: int


class Floods:
    """Count refusals within the present second; memory is bounded, whatever the sources do."""

    def __init__(self, clock: Clock, *, max_keys: int = _MAX_KEYS) -> None:
        """Track at most `max_keys` pairs of source and reason; further sources share one."""
        self._clock = clock
        self._max_keys = max_keys
        self._second = -1
        self._counts: dict[tuple[str, str], int] = {}
        self._past: list[Burst] = []

    def note(self, ip: str, code: str) -> bool:
        """Count one refusal; return whether it is the first of its kind and gets its own record."""
        self._turn()
        key = (ip, code)
        if key not in self._counts and len(self._counts) >= self._max_keys:
            key = (_OTHERS, code)
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key] == 1

    def collect(self) -> tuple[Burst, ...]:
        """Return and forget the bursts of the seconds that are over."""
        self._turn()
        past, self._past = tuple(self._past), []
        return past

    def _turn(self) -> None:
        second = int(self._clock.monotonic())
        if second == self._second:
            return
        bursts = [Burst(ip, code, count - 1) for (ip, code), count in self._counts.items() if count > 1]
        self._past = (self._past + bursts)[-2 * self._max_keys :]
        self._second, self._counts = second, {}
