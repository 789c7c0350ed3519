"""Exact sliding windows: at most N in any span, counting what was used and what is leased to a gateway."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

# A window with more uses than this keeps them in steps of a 10,000th of its span, all at the time of the
# step's last: it stays small, and no span ever holds more than the limit.
_FINE = 1000
_STEPS = 10_000


class Window:
    """One counter. Times are monotonic seconds of this machine, the same clock in every process."""

    __slots__ = ("_uses", "contended", "held", "leased", "seconds", "used")

    def __init__(self, seconds: int) -> None:
        """Count over any span of `seconds`."""
        self.seconds = seconds
        self.used = 0
        self.leased = 0
        self.held: dict[str, int] = {}
        # Until then leases are not larger than what is asked: several gateways want the last of it.
        self.contended = 0.0
        self._uses: deque[tuple[float, int]] = deque()

    def __len__(self) -> int:
        """Return how many entries are remembered."""
        return len(self._uses) + len(self.held)

    @property
    def idle(self) -> bool:
        """Return whether nothing counts any more."""
        return not self._uses and not self.held

    def left(self, now: float, capacity: int) -> int:
        """Return how much of `capacity` is neither used within the span nor leased; never negative."""
        self.forget(now)
        return max(0, capacity - self.used - self.leased)

    def wait(self, now: float, *, capacity: int, need: int) -> float:
        """Return the seconds until enough uses have left the span for `need`; all of the span if never."""
        over = self.used + self.leased + need - capacity
        if over <= 0:
            return 0.0
        for at, amount in self._uses:
            over -= amount
            if over <= 0:
                return max(0.0, at + self.seconds - now)
        return float(self.seconds)

    def forget(self, now: float) -> None:
        """Drop uses that left the span."""
        uses, begin = self._uses, now - self.seconds
        while uses and uses[0][0] <= begin:
            self.used -= uses.popleft()[1]

    def use(self, at: float, amount: int) -> None:
        """Count a use; reports of several gateways may come slightly out of order."""
        uses = self._uses
        self.used += amount
        if len(uses) >= _FINE and at >= uses[-1][0] and self._step(at) == self._step(uses[-1][0]):
            amount += uses.pop()[1]
        place = len(uses)
        while place and uses[place - 1][0] > at:
            place -= 1
        uses.insert(place, (at, amount))

    def _step(self, at: float) -> int:
        return int(at * _STEPS / self.seconds)

    def take_back(self, at: float, amount: int) -> None:
        """Uncount a use that did not happen; it stands at `at`, or in the step that swallowed it."""
        uses = self._uses
        place = len(uses)
        while place and uses[place - 1][0] >= at:
            place -= 1
        while amount and place < len(uses):
            when, counted = uses[place]
            less = min(amount, counted)
            amount -= less
            self.used -= less
            if less == counted:
                del uses[place]
            else:
                uses[place] = (when, counted - less)
            if when > at:
                break

    def lease(self, holder: str, amount: int) -> None:
        """Hand out `amount` to a holder."""
        self.held[holder] = self.held.get(holder, 0) + amount
        self.leased += amount

    def unlease(self, holder: str, amount: int | None = None) -> None:
        """Take back `amount` of what a holder has, or all; never more than that."""
        has = self.held.get(holder, 0)
        less = has if amount is None else min(has, amount)
        self.leased -= less
        if less == has:
            self.held.pop(holder, None)
        else:
            self.held[holder] = has - less

    def uses(self) -> list[tuple[float, int]]:
        """Return every (time, amount) that counts, oldest first."""
        return list(self._uses)

    def shift(self, seconds: float, latest: float) -> None:
        """Move all uses to another clock: by `seconds`, none of them later than `latest`."""
        self.replace((min(at + seconds, latest), amount) for at, amount in self._uses)

    def replace(self, uses: Iterable[tuple[float, int]]) -> None:
        """Take these uses for all there are."""
        self._uses = deque(sorted(uses))
        self.used = sum(amount for _, amount in self._uses)
