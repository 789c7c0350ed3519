"""What one client leased, used and has to tell: no I/O, so that every order of events can be tried."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from doorward.core.obligation import Budget, Limit
from doorward.ledger.messages import Report, Use

_FIRST_WANT = 4
LARGEST_WANT = 4096


class Lease:
    """What this client may still use of one counter, and how much it asks for next time."""

    __slots__ = ("asked", "capacity", "counter", "free", "is_budget", "seconds", "touched", "valid", "want")

    def __init__(self, name: str, obligation: Limit | Budget) -> None:
        """Start with nothing."""
        self.is_budget = isinstance(obligation, Budget)
        unit = obligation.unit if isinstance(obligation, Budget) else ""
        self.capacity = obligation.amount if isinstance(obligation, Budget) else obligation.count
        self.seconds = obligation.seconds
        # A policy that changes its span or unit starts a counter of that; one that changes N keeps it.
        self.counter = f"{name}|{self.seconds}|{unit}"
        self.free = 0
        self.want = _FIRST_WANT
        self.asked = False
        self.touched = True
        self.valid = True

    def ask(self) -> int:
        """Return how much to ask for beyond what is needed now; one question at a time asks for more."""
        if self.asked:
            return 0
        self.asked = True
        return max(self.want, _FIRST_WANT)

    def answered(self, extra: int) -> None:
        """Note what came: when little is left, nothing is kept in stock and each use is asked for."""
        self.asked = False
        self.want = max(self.want, _FIRST_WANT) if extra else 0


Part = tuple[Lease, int]


class Account:
    """Leases by (counter name, obligation), and reports until the owner has kept them."""

    def __init__(self) -> None:
        """Hold nothing."""
        self.slots: dict[str, int] = {}
        self._leases: dict[tuple[str, Limit | Budget], Lease] = {}
        self._seq = 0
        self._unkept: deque[Report] = deque()
        self._begin()

    @property
    def leased(self) -> bool:
        """Return whether anything is leased."""
        return bool(self._leases)

    def take(self, keys: Sequence[tuple[str, Limit | Budget]], amount: int, now: float) -> list[Part] | None:
        """Use what is leased for all keys, or nothing and return None."""
        parts: list[Part] = []
        for key in keys:
            lease = self._leases.get(key)
            if lease is None:
                return None
            need = amount if lease.is_budget else 1
            if lease.free < need:
                return None
            parts.append((lease, need))
        for lease, need in parts:
            lease.free -= need
            lease.touched = True
            self.note(lease, now, need)
        return parts

    def leases_of(self, keys: Iterable[tuple[str, Limit | Budget]]) -> list[Lease]:
        """Return the lease of each key, new ones empty."""
        leases = []
        for key in keys:
            lease = self._leases.get(key)
            if lease is None:
                lease = self._leases[key] = Lease(*key)
            leases.append(lease)
        return leases

    def note(self, lease: Lease, at: float, amount: int) -> None:
        """Note a use of what was leased."""
        self._used.setdefault(lease.counter, []).append((at, amount))

    def put(self, lease: Lease, amount: int) -> None:
        """Add what the owner gave; a lease that was dropped meanwhile gives it back."""
        if not lease.valid:
            self._return(lease, amount)
        else:
            lease.free += amount

    def undo(self, lease: Lease, at: float, amount: int) -> None:
        """Take back a use: from what was not told yet, else by telling."""
        uses = self._used.get(lease.counter)
        if uses is not None and (at, amount) in uses:
            uses.remove((at, amount))
            if lease.valid:
                lease.free += amount
            else:
                self._return(lease, amount)
            return
        self._undone.setdefault(lease.counter, []).append((at, amount))

    def correct(self, lease: Lease, at: float, more: int) -> None:
        """Count `more` (or less, if negative) for a budget's use at `at`."""
        if more > 0:
            self._over.setdefault(lease.counter, []).append((at, more))
        elif more < 0:
            self._undone.setdefault(lease.counter, []).append((at, -more))

    def give_back(self, counters: Sequence[str] | None) -> None:
        """Return everything unused of these counters, or of all."""
        for key, lease in list(self._leases.items()):
            if counters is None or lease.counter in counters:
                self._return(lease, lease.free)
                lease.free, lease.valid = 0, lease.asked
                if not lease.asked:
                    del self._leases[key]

    def give_back_unused(self) -> None:
        """Return what was not used since the last call."""
        for key, lease in list(self._leases.items()):
            if lease.touched or lease.asked:
                lease.touched = False
                continue
            self._return(lease, lease.free)
            lease.free, lease.valid = 0, False
            del self._leases[key]

    def forget_leases(self) -> None:
        """Hold nothing any more: a Hello will say so."""
        for lease in self._leases.values():
            lease.free, lease.valid = 0, False
        self._leases.clear()
        self._returned.clear()

    def report(self) -> Report | None:
        """Return what is to be told now, None if nothing; it is kept until the owner has."""
        if not (self._used or self._over or self._undone or self._returned):
            return None
        self._seq += 1
        report = Report(self._seq, self._used, self._over, self._undone, self._returned)
        self._unkept.append(report)
        self._begin()
        return report

    def reports(self) -> list[Report]:
        """Return everything the owner may not have kept, for a Hello."""
        self.report()
        return list(self._unkept)

    def kept(self, seq: int) -> None:
        """Forget reports the owner has on record."""
        while self._unkept and self._unkept[0].seq <= seq:
            self._unkept.popleft()

    def _return(self, lease: Lease, amount: int) -> None:
        if amount:
            self._returned[lease.counter] = self._returned.get(lease.counter, 0) + amount

    def _begin(self) -> None:
        self._used: dict[str, list[Use]] = {}
        self._over: dict[str, list[Use]] = {}
        self._undone: dict[str, list[Use]] = {}
        self._returned: dict[str, int] = {}
