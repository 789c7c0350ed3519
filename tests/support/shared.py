"""Counters and one-time things without sockets: the owner's own book, asked directly and at once."""

from __future__ import annotations

from doorward.core.clock import Clock
from doorward.core.onetime import MemoryOneTime
from doorward.core.ports import LimitExceeded
from doorward.ledger.account import Account
from doorward.ledger.book import Book, Nothing
from doorward.ledger.entries import Leased, Reported
from doorward.ledger.messages import Wanted
from doorward.ledger.reservation import Held

ME = "test"


class Shared(MemoryOneTime):
    """A Ledger whose owner answers within the call. Implements LimitStore, OneTimeStore."""

    def __init__(self, clock: Clock, *, max_windows: int = 100_000) -> None:
        super().__init__(clock)
        self._wall = clock
        self._account = Account()
        self.book = Book(max_windows=max_windows)

    async def reserve(self, keys, *, amount=1):
        now = self._wall.monotonic()
        leases = self._account.leases_of(keys)
        wanted = [
            Wanted(each.counter, each.seconds, each.capacity, amount if each.is_budget else 1, 0)
            for each in leases
        ]
        found = self.book.consider(ME, wanted, now, last=True)
        if isinstance(found, Nothing):
            raise LimitExceeded(keys[found.index][1], found.wait)
        assert isinstance(found, Leased)
        self.book.apply(found, now)
        parts = [(lease, each.amount) for lease, each in zip(leases, wanted, strict=True)]
        for lease, need in parts:
            self._account.note(lease, now, need)
        self._tell()
        return Held(self, parts, now)

    def undo(self, parts, at):
        for lease, amount in parts:
            self._account.undo(lease, at, amount)
        self._tell()

    def correct(self, parts, at, used):
        for lease, amount in parts:
            if lease.is_budget:
                self._account.correct(lease, at, used - amount)
        self._tell()

    def _tell(self):
        report = self._account.report()
        if report is not None:
            self.book.apply(Reported(ME, report), self._wall.monotonic())
