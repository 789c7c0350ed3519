"""A gateway's side of what is shared: uses what it leased without asking, and asks when that is used up.

Implements core.ports.LimitStore, OneTimeStore and Places. Owner gone or silent: UnavailableError within
a second, nothing is used; it heals by itself, and accounts then for everything used before.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog

from doorward import peer
from doorward.core.clock import Clock, SystemClock
from doorward.core.errors import DoorwardError, UnavailableError
from doorward.core.obligation import Budget, Limit
from doorward.core.onetime import mark_of
from doorward.core.ports import LimitExceeded
from doorward.ledger import messages as said
from doorward.ledger.account import LARGEST_WANT, Account, Lease, Part
from doorward.ledger.link import Link
from doorward.ledger.lookout import SharedLookout
from doorward.ledger.messages import framed
from doorward.ledger.reservation import Held, Leaving
from doorward.settings import NetworkSettings

Key: TypeAlias = "tuple[str, Limit | Budget]"
# How long one question may take; with the request's own work it stays under a second.
_PATIENCE: Final = 0.8
# A sighting is asked before all else: so long, and what the same request asks next of a silent owner.
_PATIENCE_FIRST, _PATIENCE_SILENT = 0.5, 0.1
_BEAT: Final = 0.3
_FLUSH: Final = 0.01
_IDLE: Final = 0.5
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 0.5
_log = structlog.get_logger()


class Ledger:
    """Share counters, places and one-time things with every other process of the installation."""

    def __init__(
        self,
        socket_path: Path,
        name: str,
        *,
        clock: Clock | None = None,
        network: NetworkSettings | None = None,
    ) -> None:
        """Name the owner's socket and this client (for logs); `run` connects."""
        self._path, self._name = socket_path, name
        self._clock = clock or SystemClock()
        self._session = secrets.token_hex(8)
        self._account = Account()
        self.lookout = SharedLookout(
            network or NetworkSettings(), self._clock, ask=self._ask, tell=self._send
        )
        self._link: Link | None = None
        self._welcomed = self._silent = False
        self._until = 0.0
        self._last_id = 0
        self._asked: dict[int, _Question] = {}
        self._flushing: asyncio.TimerHandle | None = None
        self._told = ""

    @property
    def connected(self) -> bool:
        """Return whether the owner answers."""
        return self._welcomed

    async def run(self) -> None:
        """Stay connected until cancelled; then account for everything and leave in order."""
        wait = _FIRST_WAIT
        ticking = asyncio.create_task(self._tick())
        try:
            while True:
                try:
                    await self._follow()
                except (OSError, DoorwardError) as error:
                    self._tell(error)
                wait = _FIRST_WAIT if self._welcomed else min(wait * 2, _LONGEST_WAIT)
                self._detach()
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads reconnects
        finally:
            ticking.cancel()
            self._leave()

    # The ports

    async def reserve(self, keys: tuple[Key, ...], *, amount: int = 1) -> Held:
        """Reserve one use of every limit and `amount` of every budget, all or none; see the port."""
        now = self._clock.monotonic()
        if now < self._until:
            parts = self._account.take(keys, amount, now)
            if parts is not None:
                self._flush_soon()
                self._refill(parts)
                return Held(self, parts, now)
        return await self._acquire(keys, amount)

    async def claim(self, kind: str, key: str, *, expires: float, again_within: float = 0.0) -> bool:
        """Return whether nobody claimed this key before; see the port."""
        mark = mark_of(kind, key)
        return bool(
            await self._ask(lambda number: said.Claim(number, kind, mark, expires, again_within), kind)
        )

    async def enter(self, place: str, *, most: int) -> Callable[[], None] | None:
        """Take one of `most` concurrent places and return what gives it up, None if all are taken."""
        taken = await self._ask(lambda number: said.Enter(number, place, most), "places")
        if not taken:
            return None
        slots = self._account.slots
        slots[place] = slots.get(place, 0) + 1
        return Leaving(self, place)

    # What a reservation does later

    def undo(self, parts: Sequence[Part], at: float) -> None:
        """Take back uses that did not happen."""
        for lease, amount in parts:
            self._account.undo(lease, at, amount)
        self._flush_soon()

    def correct(self, parts: Sequence[Part], at: float, used: int) -> None:
        """Correct what a budget was reserved for to what was used."""
        for lease, amount in parts:
            if lease.is_budget:
                self._account.correct(lease, at, used - amount)
        self._flush_soon()

    def leave(self, place: str) -> None:
        """Give up one place."""
        slots = self._account.slots
        slots[place] -= 1
        if not slots[place]:
            del slots[place]
        if self._welcomed and self._link is not None:
            self._link.send(framed(said.Leave(place)))

    # Asking

    async def _acquire(self, keys: tuple[Key, ...], amount: int) -> Held:
        leases = self._account.leases_of(keys)
        wanted = [
            said.Wanted(
                lease.counter,
                lease.seconds,
                lease.capacity,
                amount if lease.is_budget else 1,
                lease.ask(),
            )
            for lease in leases
        ]
        answer = await self._ask(lambda number: said.Acquire(number, wanted), "limits", leases=leases)
        if isinstance(answer, said.Refused):
            raise LimitExceeded(keys[answer.index][1], answer.wait)
        return Held(self, *answer)

    async def _ask(self, message: Callable[[int], Any], what: str, *, leases: Sequence[Lease] = ()) -> Any:
        link = self._link
        if link is None or not self._welcomed or link.clogged:
            raise gone(what)
        loop = asyncio.get_running_loop()
        self._last_id += 1
        number, answer = self._last_id, loop.create_future()
        asked = message(number)
        question = self._asked[number] = _Question(answer, leases, asked)
        patience = _PATIENCE_FIRST if isinstance(asked, said.See) else _PATIENCE
        question.timer = loop.call_later(
            _PATIENCE_SILENT if self._silent else patience, _give_up, answer, what
        )
        link.send(framed(asked))
        try:
            return await answer
        except UnavailableError:
            # A sighting is answered at once, by memory: an owner that does not do even that is not there.
            self._silent = self._silent or (isinstance(asked, said.See) and link is self._link)
            raise
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._unwanted(asked, answer.result())
            raise
        finally:
            if question.timer is not None:
                question.timer.cancel()
            # A lease or a place that comes after all is dealt with when it is heard of.
            if isinstance(asked, said.Claim | said.See):
                self._asked.pop(number, None)

    def _unwanted(self, asked: said.Acquire | said.Claim | said.Enter | said.See, answer: Any) -> None:
        """Give back what was granted in the very moment its caller left."""
        if isinstance(asked, said.Acquire) and isinstance(answer, tuple):
            self.undo(*answer)
        elif isinstance(asked, said.Enter) and answer:
            self._send(said.Leave(asked.place))

    def _refill(self, parts: Sequence[Part]) -> None:
        low = [
            lease for lease, _ in parts if lease.want and not lease.asked and lease.free <= lease.want // 4
        ]
        if not low or self._link is None or not self._welcomed:
            return
        self._last_id += 1
        for lease in low:
            lease.want = min(lease.want * 2, LARGEST_WANT)
        wanted = [said.Wanted(x.counter, x.seconds, x.capacity, 0, x.ask()) for x in low]
        asked = said.Acquire(self._last_id, wanted)
        self._asked[self._last_id] = _Question(None, low, asked)
        self._link.send(framed(asked))

    # Hearing

    def heard(self, message: said.FromOwner) -> None:
        """Act on one message of the owner."""
        self._silent = False
        match message:
            case said.Welcome(seq):
                self._account.kept(seq)
                self._welcomed, self._told = True, ""
                for missed in self.lookout.watched.connected():
                    self._send(missed)
            case said.Granted():
                self._granted(message)
            case said.Refused() | said.Answered() | said.Failed():
                self._answered(message)
            case said.Valid(until):
                self._until = max(self._until, until)
            case said.Recall(counters):
                self._account.give_back(counters)
                self._flush()
                self._send(said.Recalled(counters))
            case said.Acked(seq):
                self._account.kept(seq)
            case said.Working(number):
                self._wait_on(number)
            case said.Odd() | said.Moved():
                self.lookout.heard(message)

    def _granted(self, message: said.Granted) -> None:
        asked = self._asked.pop(message.id, None)
        if asked is None:
            return
        now = self._clock.monotonic()
        self._until = max(self._until, message.until)
        parts: list[Part] = []
        for lease, wanted, extra in zip(asked.leases, asked.message.wanted, message.extras, strict=True):
            self._account.put(lease, extra)
            if wanted.extra:
                lease.answered(extra)
            parts.append((lease, wanted.amount))
        answer = asked.answer
        if answer is None or answer.done() or now >= self._until:
            # Nobody waits any more, or it came too late to be used.
            for lease, amount in parts:
                self._account.put(lease, amount)
            if answer is not None and not answer.done():
                answer.set_exception(gone("limits"))
            return
        for lease, amount in parts:
            self._account.note(lease, now, amount)
        answer.set_result((parts, now))
        self._flush_soon()

    def _answered(self, message: said.Refused | said.Answered | said.Failed) -> None:
        asked = self._asked.pop(message.id, None)
        if asked is None:
            return
        for lease, wanted in zip(asked.leases, asked.message.wanted if asked.leases else (), strict=True):
            if wanted.extra:
                lease.answered(0)
        if asked.answer is None or asked.answer.done():
            if isinstance(message, said.Answered) and isinstance(asked.message, said.Enter):
                self._send(said.Leave(asked.message.place))
            return
        match message:
            case said.Failed(_, text, hint):
                asked.answer.set_exception(UnavailableError(text, hint=hint))
            case said.Answered(_, yes):
                asked.answer.set_result(yes)
            case said.Refused():
                asked.answer.set_result(message)

    def _wait_on(self, number: int) -> None:
        """Give a question more time: the owner is there, and waits for another client."""
        question = self._asked.get(number)
        if question is None or question.answer is None or question.answer.done() or question.timer is None:
            return
        question.timer.cancel()
        question.timer = asyncio.get_running_loop().call_later(_PATIENCE, _give_up, question.answer, "limits")

    # The connection

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        lost = loop.create_future()
        with peer.socket_address(self._path) as address:
            _, link = await loop.create_unix_connection(lambda: Link(self.heard, lost), address)
        self._link = link
        hello = said.Hello(self._session, self._name, self._account.reports(), dict(self._account.slots))
        link.send(framed(hello))
        await lost

    def _detach(self) -> None:
        """Use nothing any more; what was used is told when the owner is back."""
        if self._link is not None:
            self._link.drop()
        self._link, self._welcomed, self._until = None, False, 0.0
        self._account.forget_leases()
        self.lookout.watched.disconnected()
        asked, self._asked = self._asked, {}
        for question in asked.values():
            if question.answer is not None and not question.answer.done():
                question.answer.set_exception(gone("limits"))

    def _leave(self) -> None:
        if self._welcomed:
            self._account.give_back(None)
            self._flush()
            self._send(said.Bye())
        if self._link is not None:
            self._link.close()
            self._link = None
        self._detach()

    async def _tick(self) -> None:
        """Keep leases valid while there are any, and give back those that nobody uses."""
        idle = 0.0
        while True:
            await asyncio.sleep(_BEAT)
            idle += _BEAT
            if not self._welcomed:
                continue
            if idle >= _IDLE:
                idle = 0.0
                self._account.give_back_unused()
                self.lookout.watched.forget()
            self._flush()
            if self._account.leased:
                self._send(said.Beat())

    def _flush_soon(self) -> None:
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(_FLUSH, self._flush)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        # While the owner is away everything waits for the next Hello, in one report.
        if self._welcomed and (report := self._account.report()) is not None:
            self._send(report)

    def _send(self, message: Any) -> None:
        if self._link is not None:
            self._link.send(framed(message))

    def _tell(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if reason != self._told:
            self._told = reason
            _log.warning("counters_unreachable", reason=reason)


class _Question:
    """What was asked, and who waits for the answer (nobody, for a refill)."""

    __slots__ = ("answer", "leases", "message", "timer")

    def __init__(self, answer: asyncio.Future[Any] | None, leases: Sequence[Lease], message: Any) -> None:
        self.answer, self.leases, self.message = answer, leases, message
        self.timer: asyncio.TimerHandle | None = None


def gone(what: str) -> UnavailableError:
    """Return the error of a question nobody answers."""
    return UnavailableError(
        f"the process that counts {what} does not answer, so nothing that depends on it is allowed",
        hint="It is restarted by itself; try again in a few seconds.",
    )


def _give_up(answer: asyncio.Future[Any], what: str) -> None:
    if not answer.done():
        with suppress(asyncio.InvalidStateError):
            answer.set_exception(gone(what))
