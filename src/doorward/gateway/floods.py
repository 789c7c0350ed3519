"""Refusals of unknown callers: a bounded number of records of their own, the rest as numbers.

The first of a source and reason in a second is a record, as long as there are not many of them; all
others are counted. A flood that goes on is one record every few seconds, whatever its size.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from doorward.core.clock import Clock

_MAX_KEYS = 256
_OTHERS = "others"
# Records of their own: so many at once, then one every few seconds.
_SINGLE = 60.0
_SINGLE_PER_SECOND = 0.2
# A flood that goes on is written down this often; seconds.
_AGAIN = 5


class Burst(msgspec.Struct, frozen=True):
    """State how often one source was refused for one reason beyond the records it got."""

    ip: str
    code: str
    count: int


class Bursts(msgspec.Struct, frozen=True):
    """State what was only counted: by source and reason, and how many in each second, oldest first."""

    sources: tuple[Burst, ...] = ()
    seconds: tuple[int, ...] = ()


class Floods:
    """Count refusals; memory and what is written are bounded, whatever the sources do."""

    def __init__(self, clock: Clock, *, max_keys: int = _MAX_KEYS) -> None:
        """Track at most `max_keys` pairs of source and reason; further sources share one."""
        self._clock = clock
        self._max_keys = max_keys
        self._second = -1
        self._single, self._filled = _SINGLE, clock.monotonic()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._own: set[tuple[str, str]] = set()
        self._past: Counter[tuple[str, str]] = Counter()
        self._seconds: list[int] = []
        self._written = float("-inf")

    def note(self, ip: str, code: str) -> bool:
        """Count one refusal; return whether it gets a record of its own."""
        self._turn()
        key = (ip, code)
        if key not in self._counts and len(self._counts) >= self._max_keys:
            key = (_OTHERS, code)
        self._counts[key] += 1
        if self._counts[key] > 1 or not self._may_be_single():
            return False
        self._own.add(key)
        return True

    def collect(self, *, last: bool = False) -> Bursts | None:
        """Return and forget what was counted in the seconds that are over, None if it is not due.

        `last` returns everything at once: nobody will ask again.
        """
        self._turn(now=last)
        moment = self._clock.monotonic()
        if not self._past or (not last and moment - self._written < _AGAIN):
            return None
        self._written = moment
        sources = tuple(Burst(ip, code, count) for (ip, code), count in self._past.items())
        bursts = Bursts(sources, tuple(self._seconds))
        self._past, self._seconds = Counter(), []
        return bursts

    def _may_be_single(self) -> bool:
        now = self._clock.monotonic()
        self._single = min(_SINGLE, self._single + (now - self._filled) * _SINGLE_PER_SECOND)
        self._filled = now
        if self._single < 1:
            return False
        self._single -= 1
        return True

    def _turn(self, *, now: bool = False) -> None:
        second = int(self._clock.monotonic())
        if second == self._second and not now:
            return
        counted = self._counts - Counter(self._own)
        for (ip, code), count in counted.items():
            known = (ip, code) in self._past or len(self._past) < self._max_keys
            self._past[(ip if known else _OTHERS, code)] += count
        if counted:
            self._seconds.append(counted.total())
        self._second, self._counts, self._own = second, Counter(), set()
