"""One budget of buffered bytes for a whole process: over it requests are refused, and nobody dies."""

from __future__ import annotations


class Budget:
    """Count bytes held in memory for requests and answers under way, against one bound.

    What must be held whole is asked for (`take`) and may be refused. What streams is only noted
    (`note`): each stream is bounded by backpressure, and what it holds leaves less for whole bodies.
    """

    __slots__ = ("limit", "refused", "used")

    def __init__(self, limit: int) -> None:
        """Allow `limit` bytes."""
        self.limit = limit
        self.used = 0
        self.refused = 0

    def take(self, size: int) -> bool:
        """Count `size` bytes more if they fit; return whether they did."""
        if self.used + size > self.limit:
            self.refused += 1
            return False
        self.used += size
        return True

    def note(self, size: int) -> None:
        """Count `size` bytes more that are bounded otherwise."""
        self.used += size

    def give(self, size: int) -> None:
        """Count `size` bytes less."""
        self.used -= size


# For connections whose owner set no bound, as in tests of one part.
UNBOUNDED = 1 << 62
