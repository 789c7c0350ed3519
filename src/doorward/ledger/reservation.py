"""What a client holds until it is known whether a request happened: uses of counters, places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from doorward.ledger.account import Part


class Correctable(Protocol):
    """What uses can be given back to, or corrected at (`client.Ledger`)."""

    def undo(self, parts: Sequence[Part], at: float) -> None:
        """Take back uses that did not happen."""

    def correct(self, parts: Sequence[Part], at: float, used: int) -> None:
        """Correct what a budget was reserved for to what was used."""


class Leavable(Protocol):
    """Where places can be given up (`client.Ledger`)."""

    def leave(self, place: str) -> None:
        """Give up one place."""


class Held:
    """A reservation of uses; implements core.ports.Reservation."""

    __slots__ = ("_at", "_ledger", "_open", "_parts")

    def __init__(self, ledger: Correctable, parts: Sequence[Part], at: float) -> None:
        """Hold `parts`, used at `at`."""
        self._ledger, self._parts, self._at = ledger, parts, at
        self._open = True

    async def release(self) -> None:
        """Give every use back; twice does nothing more."""
        if self._open:
            self._open = False
            self._ledger.undo(self._parts, self._at)

    async def settle(self, used: int) -> None:
        """Keep the uses; a budget's becomes what was really used."""
        if self._open:
            self._open = False
            self._ledger.correct(self._parts, self._at, used)


class Leaving:
    """Give up a place when called; twice does nothing more."""

    __slots__ = ("_ledger", "_place")

    def __init__(self, ledger: Leavable, place: str) -> None:
        """Hold one place."""
        self._ledger: Leavable | None = ledger
        self._place = place

    def __call__(self) -> None:
        """Leave."""
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.leave(self._place)
