"""Take decisions for the shadow check: on the path of requests, so nothing here waits or encodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Final

from doorward.cedar.slices import NEVER, Answer, Slice
from doorward.core.decision import AccessRequest
from doorward.core.shadow import Measure, Sample
from doorward.core.values import to_json

CAPACITY: Final = 256
# With no room, a fresh function is looked at again this many decisions later.
_LATER: Final = 32

_Taken = tuple[Slice, AccessRequest, Answer, tuple[str, int], bool, Measure | None]


class Samples:
    """Keep about one decision in `every`, and the first of each generated function, until they are sent.

    At most `CAPACITY` wait; what finds no room is counted and forgotten. Callable from any thread.
    """

    def __init__(self, every: int, *, capacity: int = CAPACITY, chance: Random | None = None) -> None:
        """Take one in `every`; 0 takes none."""
        self.on = every > 0
        self._every, self._capacity = every, capacity
        self._chance = chance or SystemRandom()
        self._waiting: deque[_Taken] = deque()
        self.taken = self.dropped = 0
        self.on_more: Callable[[], None] | None = None

    def first(self) -> int:
        """Return how many decisions of a new slice pass before the first is taken."""
        return self._chance.randrange(self._every) if self.on else NEVER

    def take(self, slice_: Slice, request: AccessRequest, answer: Answer, stands_on: tuple[str, int]) -> int:
        """Keep one decision, if there is room; return how many pass before the next is taken."""
        if not self.on:
            return NEVER
        if len(self._waiting) >= self._capacity:
            self.dropped += 1
            return min(_LATER, self._every) if slice_.fresh else self._pause()
        self.taken += 1
        self._waiting.append((slice_, request, answer, stands_on, slice_.fast is not None, slice_.measure))
        if self.on_more is not None:
            self.on_more()
        slice_.fresh = max(0, slice_.fresh - 1)
        return 0 if slice_.fresh else self._pause()

    def drain(self, most: int) -> tuple[Sample, ...]:
        """Return the oldest that wait, as they are sent; they wait no longer."""
        found: list[Sample] = []
        while self._waiting and len(found) < most:
            found.append(_sample(self._waiting.popleft()))
        return tuple(found)

    def lose(self, count: int) -> None:
        """Count samples that were drained and could not be sent."""
        self.dropped += count

    def _pause(self) -> int:
        # Even on average, and nobody can tell which decisions are looked at.
        return self._chance.randrange(2 * self._every - 1)


def _sample(taken: _Taken) -> Sample:
    slice_, request, answer, stands_on, generated, measure = taken
    return Sample(
        bundle=stands_on[0],
        entities=stands_on[1],
        slice=slice_.name,
        principal=request.principal,
        action=request.action,
        resource=request.resource,
        context=to_json(request.context.to_record()),
        effect=answer.effect,
        determining=tuple(sorted(answer.determining)),
        erring=tuple(sorted(error.partition(":")[0] for error in answer.errors)),
        generated=generated,
        measure=measure,
    )
