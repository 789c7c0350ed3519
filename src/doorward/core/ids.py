"""Identifiers: 26 characters, sortable by time (ULID), from an injected source of randomness."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.core.clock import Clock

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80
_POOLED = 320
# Two characters at a time: 13 look-ups write an id.
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_TAIL_BITS = 20
_HEAD_SHIFTS = range(120, _TAIL_BITS - 1, -10)


class _Pool:
    """Random bits of the operating system, asked for many at a time; a forked child asks for its own."""

    def __init__(self) -> None:
        self._held = b""
        self._process = 0

    def bits(self, count: int) -> int:
        size = (count + 7) // 8
        process = os.getpid()
        if len(self._held) < size or process != self._process:
            self._held, self._process = os.urandom(_POOLED), process
        taken, self._held = self._held[:size], self._held[size:]
        return int.from_bytes(taken, "big") >> (size * 8 - count)


class IdSource:
    """Make ids that sort by creation time, also within one millisecond."""

    def __init__(self, clock: Clock, random_bits: Callable[[int], int] | None = None) -> None:
        """Take time and randomness from the caller; without any, the operating system's."""
        self._clock = clock
        self._random_bits = random_bits or _Pool().bits
        self._last, self._head, self._written = 0, -1, ""

    def new(self) -> str:
        """Return the next id: 48 bits of milliseconds, 80 random bits, Crockford base 32.

        Within one millisecond (or with a clock that went back) it is the last one plus one.
        """
        now = int(self._clock.now().timestamp() * 1000)
        if now > self._last >> _RANDOM_BITS:
            self._last = now << _RANDOM_BITS | self._random_bits(_RANDOM_BITS)
        else:
            self._last += 1
        value = self._last
        if value >> _TAIL_BITS != self._head:
            self._head = value >> _TAIL_BITS
            self._written = "".join([_PAIRS[value >> shift & 1023] for shift in _HEAD_SHIFTS])
        # Ids of one millisecond follow each other: only their end is written anew.
        return f"{self._written}{_PAIRS[value >> 10 & 1023]}{_PAIRS[value & 1023]}"
