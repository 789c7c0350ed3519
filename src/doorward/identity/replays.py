"""Remember signed writes for as long as their signature could be used again."""

from __future__ import annotations

import hashlib

from doorward.core.errors import UnauthenticatedError, UnavailableError

# Dates in signatures have whole seconds, so two equal calls of one client within a second are signed alike.
# Stock SDKs tell them apart by an invocation id that they do not sign: it counts for this long, in seconds.
_ALIKE_SECONDS = 2.0
_MARK_BYTES = 16


class ReplayStore:
    """Accept each signed write once within its window; bounded, and full means refuse.

    Memory: about 200 bytes per remembered write, so 250,000 writes are 50 MB.
    """

    def __init__(self, capacity: int = 500_000) -> None:
        """Bound the number of marks remembered at once; a write leaves two."""
        self._capacity = capacity
        self._slots: dict[int, dict[bytes, float]] = {}
        self._size = 0

    def __len__(self) -> int:
        """Return how many marks are remembered."""
        return self._size

    def spend(self, signature: str, *, invocation: str = "", until: float, now: float) -> None:
        """Take note of a signature valid until `until` (Unix seconds); `invocation` is the SDK's own id.

        Raise UnauthenticatedError if it was used, UnavailableError if there is no room to know.
        """
        self._forget(now)
        slot = self._slots.setdefault(int(until) + 1, {})
        signed, called = _mark(signature), _mark(signature, invocation)
        first = slot.get(signed)
        if called in slot or (first is not None and now - first > _ALIKE_SECONDS):
            raise UnauthenticatedError(
                "this signed write was carried out already", hint="Sign the request again and send it once."
            )
        if self._size + 2 > self._capacity:
            raise UnavailableError(
                "too many signed writes within five minutes", hint="Try again in a minute, or slow down."
            )
        before = len(slot)
        slot[called] = now
        slot.setdefault(signed, now)
        self._size += len(slot) - before

    def _forget(self, now: float) -> None:
        for end in [end for end in self._slots if end < now]:
            self._size -= len(self._slots.pop(end))


def _mark(*parts: str) -> bytes:
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "replace"), digest_size=_MARK_BYTES).digest()
