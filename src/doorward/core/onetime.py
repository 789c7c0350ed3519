"""Things that may be used once: remembered until they could not be used again anyway, in bounded memory."""

from __future__ import annotations

import hashlib

from doorward.core.clock import Clock
from doorward.core.errors import UnavailableError

_MARK_BYTES = 16
# About 150 bytes each: a kind may fill 75 MB before its next claim is refused.
CAPACITY = 500_000


def mark_of(kind: str, key: str) -> bytes:
    """Return what stands for a key: short, and the key (a code, a proof) cannot be read from it."""
    text = f"{kind}\n{key}".encode("utf-8", "replace")
    return hashlib.blake2b(text, digest_size=_MARK_BYTES).digest()


class OneTimeTable:
    """Remember marks of each kind until they expire; a full kind refuses, and the others go on."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Bound how many marks of one kind are remembered at once."""
        self._capacity = capacity
        self._kinds: dict[str, _Marks] = {}

    def __len__(self) -> int:
        """Return how many marks are remembered."""
        return sum(marks.size for marks in self._kinds.values())

    def claim(self, kind: str, mark: bytes, *, expires: float, now: float, again_within: float = 0.0) -> bool:
        """Return whether this is the first claim of a mark, or comes `again_within` seconds of the first.

        Times are Unix seconds. What has expired is never first. Raises UnavailableError when full.
        """
        if expires <= now:
            return False
        marks = self._kinds.setdefault(kind, _Marks())
        marks.forget(now)
        first = marks.first(mark)
        if first is not None:
            return 0 <= now - first < again_within
        if marks.size >= self._capacity:
            raise UnavailableError(
                f"too many {kind} uses are remembered at once", hint="Try again in a minute, or slow down."
            )
        marks.keep(mark, expires=expires, now=now)
        return True

    def remembered(self) -> list[tuple[str, bytes, float, float]]:
        """Return every (kind, mark, expiry, first claim): what a journal must keep."""
        return [
            (kind, mark, marks.expiry[mark], first)
            for kind, marks in self._kinds.items()
            for slot in marks.slots.values()
            for mark, first in slot.items()
        ]


class _Marks:
    """The marks of one kind, in slots of one second by expiry, so that forgetting costs nothing."""

    __slots__ = ("expiry", "slots")

    def __init__(self) -> None:
        self.slots: dict[int, dict[bytes, float]] = {}
        self.expiry: dict[bytes, float] = {}

    @property
    def size(self) -> int:
        return len(self.expiry)

    def first(self, mark: bytes) -> float | None:
        expiry = self.expiry.get(mark)
        return None if expiry is None else self.slots[_slot(expiry)][mark]

    def keep(self, mark: bytes, *, expires: float, now: float) -> None:
        self.expiry[mark] = expires
        self.slots.setdefault(_slot(expires), {})[mark] = now

    def forget(self, now: float) -> None:
        for end in [end for end in self.slots if end <= now]:
            for mark in self.slots.pop(end):
                del self.expiry[mark]


def _slot(expires: float) -> int:
    return int(expires) + 1


class MemoryOneTime:
    """Keep one-time things in this process alone: for tests and commands without a running Doorward.

    Implements core.ports.OneTimeStore; several gateways share one keeper instead.
    """

    def __init__(self, clock: Clock, *, capacity: int = CAPACITY) -> None:
        """Take the clock that expiry is measured by."""
        self._clock = clock
        self._table = OneTimeTable(capacity)

    def __len__(self) -> int:
        """Return how many marks are remembered."""
        return len(self._table)

    async def claim(self, kind: str, key: str, *, expires: float, again_within: float = 0.0) -> bool:
        """Return whether nobody claimed this key before; see the port."""
        return self._table.claim(
            kind,
            mark_of(kind, key),
            expires=expires,
            now=self._clock.now().timestamp(),
            again_within=again_within,
        )
