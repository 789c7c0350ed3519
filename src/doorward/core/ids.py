"""Identifiers: 26 characters, sortable by time (ULID), from an injected source of randomness."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.core.clock import Clock

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80
_LENGTH = 26


class IdSource:
    """Make ids that sort by creation time, also within one millisecond."""

    def __init__(self, clock: Clock, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        """Take time and randomness from the caller."""
        self._clock = clock
        self._random_bits = random_bits
        self._last = 0

    def new(self) -> str:
        """Return the next id: 48 bits of milliseconds, 80 random bits, Crockford base 32."""
        value = int(self._clock.now().timestamp() * 1000) << _RANDOM_BITS
        value |= self._random_bits(_RANDOM_BITS)
        if value <= self._last:
            value = self._last + 1
        self._last = value
        return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))
