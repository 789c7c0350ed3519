"""Generate the functions of hot slices beside deciding: nobody waits for one, and none changes an answer.

One thread for the whole process takes orders from a bounded queue, makes a function in small steps and
rests after each, so that deciding threads get the interpreter in between. A function is given to its
slice whole. What cannot be generated stays on tier 0 and is counted.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from typing import Any, Protocol

import structlog

from doorward.cedar.generated import Fast
from doorward.cedar.world import Node, World

log = structlog.get_logger()

# Orders that may wait; one more is refused, and its slice asks again when it has been asked as often.
_MAX_WAITING = 1024
# Policies written into functions that are kept, all together: about 1 kB each.
_MAX_WRITTEN = 65_536
# Seconds without an order after which the thread ends; the next order starts another.
_IDLE = 5.0
# The thread rests this many times as long as a step took, but no longer than `_LONGEST_REST` seconds.
_REST = 4.0
_LONGEST_REST = 0.05

Steps = Iterator[None]


class Lane(Protocol):
    """Where a function goes: one reading of one slice."""

    fast: Fast | None
    asked: int

    def given(self, fast: Fast) -> None:
        """Use a function from now on."""


class Forge:
    """The thread and its queue."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Wait for the first order before there is a thread."""
        self._orders: deque[Steps] = deque()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._sleep = sleep

    def put(self, order: Steps) -> bool:
        """Queue an order; return False if too many wait."""
        with self._change:
            if len(self._orders) >= _MAX_WAITING:
                return False
            self._orders.append(order)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="doorward-forge", daemon=True)
                self._thread.start()
            self._change.notify_all()
            return True

    def settle(self, timeout: float) -> bool:
        """Wait until nothing is queued or being made; return whether that came in time (seconds)."""
        with self._change:
            return self._change.wait_for(lambda: not self._orders and not self._busy, timeout)

    def _run(self) -> None:
        while True:
            with self._change:
                self._busy = False
                self._change.notify_all()
                if not self._change.wait_for(lambda: self._orders, _IDLE):
                    self._thread = None
                    return
                order, self._busy = self._orders.popleft(), True
            self._work(order)

    def _work(self, order: Steps) -> None:
        before = time.perf_counter()
        try:
            for _ in order:
                self._sleep(min((time.perf_counter() - before) * _REST, _LONGEST_REST))
                before = time.perf_counter()
        except Exception:  # an order counts its own failures; the thread must outlive any other
            log.exception("slice_order_failed")


class Functions:
    """The functions of one engine: each made once for equal policies and types, within a bound."""

    def __init__(self, forge: Forge | None) -> None:
        """Make functions in `forge`, or at once where there is none."""
        self._forge = forge
        self._lock = threading.Lock()
        self._made: dict[Hashable, tuple[Fast, int] | None] = {}
        self._waiting: dict[Hashable, list[Lane]] = {}
        self._given: list[Lane] = []
        self._written = 0
        self._distrusted: set[Hashable] = set()
        self.counts: Counter[str] = Counter()

    def order(self, lane: Lane, key: Hashable, parts: Callable[[], Iterator[Fast]], *, size: int) -> bool:
        """Have a lane given its function of `size` policies; return False if it must ask again later."""
        with self._lock:
            if key in self._distrusted or size > _MAX_WRITTEN:
                return True
            if key in self._made:
                self._give(lane, key)
                return True
            if key in self._waiting:
                self._waiting[key].append(lane)
                return True
            self._waiting[key] = [lane]
        steps = self._steps(key, parts, size)
        if self._forge is None:
            for _ in steps:
                pass
            return True
        if self._forge.put(steps):
            return True
        with self._lock:
            for other in self._waiting.pop(key):
                other.asked = 0
            self.counts["refused"] += 1
        return False

    def distrust(self, key: Hashable, lane: Lane) -> None:
        """Take a function away from everyone who has it, for as long as the engine lives."""
        with self._lock:
            self._distrusted.add(key)
            self.counts["distrusted"] += 1
            found = self._made.pop(key, None)
            lane.fast = None
            for other in self._given if found is not None else ():
                if found is not None and other.fast is found[0]:
                    other.fast = None

    def _steps(
        self, key: Hashable, parts: Callable[[], Iterator[Fast]], size: int
    ) -> Generator[None, None, None]:
        made: list[Fast] = []
        try:
            for part in parts():
                made.append(part)
                yield
        except Exception as reason:  # noqa: BLE001 -- whatever the policies are made of, tier 0 can evaluate them
            log.warning("slice_not_generated", policies=size, reason=f"{type(reason).__name__}: {reason}")
            self._done(key, None, size)
        else:
            self._done(key, joined(made), size)

    def _done(self, key: Hashable, made: Fast | None, size: int) -> None:
        with self._lock:
            lanes = self._waiting.pop(key, [])
            self.counts["failed" if made is None else "generated"] += 1
            if made is not None and self._written + size > _MAX_WRITTEN:
                self._forget()
            if key in self._distrusted:
                return
            self._made[key] = None if made is None else (made, size)
            self._written += size + 1
            for lane in lanes:
                self._give(lane, key)

    def _give(self, lane: Lane, key: Hashable) -> None:
        found = self._made[key]
        if found is not None:
            lane.given(found[0])
            self._given.append(lane)

    def _forget(self) -> None:
        """Take all functions back; slices that are still hot will order theirs again."""
        for lane in self._given:
            lane.fast, lane.asked = None, 0
        self._made.clear()
        self._given.clear()
        self._written = 0
        self.counts["forgotten"] += 1


def joined(made: Sequence[Fast]) -> Fast:
    """Return one function of several."""
    if len(made) == 1:
        return made[0]
    kept = tuple(made)

    def fast(p: Node, r: Node, c: Any, world: World) -> int:
        found = 0
        for part in kept:
            found |= part(p, r, c, world)
        return found

    return fast
