"""Remember signed writes for as long as their signature could be used again."""

from __future__ import annotations

from doorward.core.errors import UnauthenticatedError, UnavailableError


class ReplayStore:
    """Accept each signature once within its window; bounded, and full means refuse.

    Memory: about 100 bytes per remembered write, so 500,000 writes are 50 MB.
    """

    def __init__(self, capacity: int = 500_000) -> None:
        """Bound the number of signatures remembered at once."""
        self._capacity = capacity
        self._slots: dict[int, set[bytes]] = {}
        self._size = 0

    def __len__(self) -> int:
        """Return how many signatures are remembered."""
        return self._size

    def spend(self, signature: str, *, until: float, now: float) -> None:
        """Take note of a signature valid until `until` (both Unix seconds).

        Raise UnauthenticatedError if it was used, UnavailableError if there is no room to know.
        """
        self._forget(now)
        mark = bytes.fromhex(signature)[:16]
        slot = self._slots.get(int(until) + 1, set())
        if mark in slot:
            raise UnauthenticatedError(
                "this signed write was carried out already", hint="Sign the request again and send it once."
            )
        if self._size >= self._capacity:
            raise UnavailableError(
                "too many signed writes within five minutes", hint="Try again in a minute, or slow down."
            )
        self._slots.setdefault(int(until) + 1, slot).add(mark)
        self._size += 1

    def _forget(self, now: float) -> None:
        for end in [end for end in self._slots if end < now]:
            self._size -= len(self._slots.pop(end))
