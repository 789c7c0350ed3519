"""Open answers: each is decided again when something changes and every second; a deny cuts it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from doorward.core.model import EntityUid
from doorward.core.ports import Places

_log = structlog.get_logger()

# Bound on how late a change is noticed, and how often clocks and sessions are judged; seconds.
_NOTICE = 0.1
_PERIOD = 1.0
_BATCH = 100


class OpenAnswer:
    """One request whose answer is still under way, and the task that carries it.

    `judge` returns why it may not go on, or None. A cut cancels the carrying task; whoever catches
    that cancellation asks `is_cut` to tell it from a client that left.
    """

    __slots__ = ("_judge", "_task", "cut_reason")

    def __init__(self, judge: Callable[[], str | None]) -> None:
        """Start uncut, carried by the current task."""
        self._judge = judge
        self._task = asyncio.current_task()
        self.cut_reason: str | None = None

    @property
    def is_cut(self) -> bool:
        """Return whether this answer was ended by a decision."""
        return self.cut_reason is not None

    def carried(self) -> None:
        """Note that the current task carries the answer from now on."""
        self._task = asyncio.current_task()

    def judge(self) -> str | None:
        """Return why the answer may not go on; a judgement that fails is a reason too."""
        try:
            return self._judge()
        except Exception as error:  # noqa: BLE001 -- any failure to decide is a deny
            return f"could not be decided again: {type(error).__name__}"

    def cut(self, reason: str) -> None:
        """End the answer now; a second cut changes nothing."""
        if self.cut_reason is not None:
            return
        self.cut_reason = reason
        if self._task is not None:
            self._task.cancel()

    def absorb(self) -> bool:
        """Return whether a caught cancellation is this answer's cut, and take it off the task if so."""
        if not self.is_cut:
            return False
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        return True


class Place:
    """One request's place among those of its caller."""

    __slots__ = ("_crowd", "_who")

    def __init__(self, crowd: dict[EntityUid, int], who: EntityUid) -> None:
        """Count one more."""
        self._crowd, self._who = crowd, who
        crowd[who] = crowd.get(who, 0) + 1

    def leave(self) -> None:
        """Count one less."""
        left = self._crowd[self._who] - 1
        if left:
            self._crowd[self._who] = left
        else:
            del self._crowd[self._who]


class SharedPlace:
    """A place among those all gateways share."""

    __slots__ = ("leave",)

    def __init__(self, leave: Callable[[], None]) -> None:
        """Take what gives it up."""
        self.leave = leave


class Crowd:
    """Bound how many requests of one principal are under way in all gateways of the machine together.

    Half of the places are divided among the gateways and cost nothing; the rest are shared, so that a caller
    whose connections all lead to one gateway gets more than that gateway's part.
    """

    def __init__(self, most: int, *, gateways: int = 1, places: Places | None = None) -> None:
        """Allow `most` at a time; `places` are shared by this many gateways."""
        self._own = most if gateways == 1 or places is None else most // (2 * gateways)
        self._shared = most - self._own * gateways
        self._places = places
        self._under_way: dict[EntityUid, int] = {}

    async def enter(self, who: EntityUid) -> Place | SharedPlace | None:
        """Return a place for one more request, None if there is none; it must be left again.

        Raises UnavailableError if that cannot be known.
        """
        if self._under_way.get(who, 0) < self._own:
            return Place(self._under_way, who)
        if self._places is None or not self._shared:
            return None
        leave = await self._places.enter(f"requests|{who}", most=self._shared)
        return None if leave is None else SharedPlace(leave)

    def __len__(self) -> int:
        """Return how many principals have a request under way."""
        return len(self._under_way)


class OpenAnswers:
    """Every open answer of this process, and the loop that watches over them."""

    def __init__(self, changed: Callable[[], int]) -> None:
        """Take the generation of bundle and snapshot (`DecisionPoint.changed`)."""
        self._changed = changed
        self._open: set[OpenAnswer] = set()

    def __len__(self) -> int:
        """Return how many answers are open."""
        return len(self._open)

    def add(self, judge: Callable[[], str | None]) -> OpenAnswer:
        """Register an answer carried by the current task."""
        answer = OpenAnswer(judge)
        self._open.add(answer)
        return answer

    def remove(self, answer: OpenAnswer) -> None:
        """Forget an answer that ended."""
        self._open.discard(answer)

    async def sweep(self) -> int:
        """Decide every open answer again, cut the denied, return how many were cut."""
        count = 0
        for number, answer in enumerate(list(self._open), start=1):
            if answer.is_cut or answer not in self._open:
                continue
            reason = answer.judge()
            if reason is not None:
                answer.cut(reason)
                count += 1
            if number % _BATCH == 0:
                await asyncio.sleep(0)
        if count:
            _log.info("answers_cut", count=count)
        return count

    async def watch(self) -> None:
        """Sweep on every change and each second until cancelled."""
        loop = asyncio.get_running_loop()
        generation, due = self._changed(), loop.time() + _PERIOD
        while True:
            await asyncio.sleep(_NOTICE)
            now = self._changed()
            if now == generation and loop.time() < due:
                continue
            generation, due = now, loop.time() + _PERIOD
            await self.sweep()

    def cut_all(self, reason: str) -> None:
        """Cut every open answer: the grace of a shutdown is over."""
        for answer in list(self._open):
            answer.cut(reason)
