"""The owner's server: answers clients from the book, durably, over a private Unix socket.

An answer that hands something out leaves only when its entry is on disk. What one client leased and
does not use is recalled when another is short of it, so that a budget of N passes exactly N.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from doorward import peer
from doorward.core.clock import Clock
from doorward.core.errors import DoorwardError, UnavailableError
from doorward.core.sightings import Oddity
from doorward.ledger import entries as kept
from doorward.ledger import messages as said
from doorward.ledger.book import Book, Nothing, Short
from doorward.ledger.journal import Journal
from doorward.ledger.messages import Frames, framed
from doorward.ledger.sightings import Sightings
from doorward.settings import NetworkSettings

# For how long a lease may be used after the owner was last heard; seconds.
LEASE: Final = 1.0
# What the journal is told, so that it need not be told each time: a crash counts leases as used this late.
_JOURNALLED: Final = 5.0
# A gateway may be busy for a while before it answers; one that hangs must not hold up the others for ever.
_RECALL_SECONDS: Final = 4.0
_ASSURE_SECONDS: Final = 0.4
_ROUNDS: Final = 3
_HOUSEKEEPING: Final = 5.0
_MOST_UNSENT: Final = 16 << 20
_decoder = msgspec.msgpack.Decoder(said.FromClient)
_log = structlog.get_logger()


def boot_id() -> str:
    """Return what names this run of the machine: the monotonic clock belongs to it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


class Keeper:
    """Keep the book for the clients of one installation. `fail` hears why it cannot go on."""

    def __init__(  # noqa: PLR0913 -- the composition root names every part once
        self,
        socket_path: Path,
        journal: Journal,
        *,
        clock: Clock,
        fail: Callable[[Exception], None],
        boot: str | None = None,
        network: NetworkSettings | None = None,
    ) -> None:
        """Name the socket; `boot` is what `boot_id` says; `network` has the rules of odd credentials."""
        self._path, self._journal, self._clock, self._fail = socket_path, journal, clock, fail
        self._boot = boot_id() if boot is None else boot
        self.book = Book()
        self._sightings = Sightings(network or NetworkSettings(), clock)
        self._links: dict[str, _Link] = {}
        self._open: set[_Link] = set()
        self._recalls: dict[tuple[str, str], list[_Waiter]] = {}
        self._server: asyncio.Server | None = None
        self._house: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Recover from the journal, then listen; raise ConflictError or UnavailableError if not."""
        self._journal.lock()
        self._recover()
        self._journal.start(self._state(), self._fail)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Link(self), sock=peer.listen(self._path))
        self._house = loop.call_later(_HOUSEKEEPING, self._keep_house)
        _log.info("counters_recovered", windows=len(self.book.windows), once=len(self.book.one_time))

    async def stop(self) -> None:
        """Stop listening and make everything durable."""
        if self._house is not None:
            self._house.cancel()
        if self._server is not None:
            self._server.close()
            for link in tuple(self._open):
                link.drop()
            self._path.unlink(missing_ok=True)
        await self._journal.close()

    def numbers(self) -> dict[str, float]:
        """Return what operators watch."""
        return {
            "windows": len(self.book.windows),
            "remembered_once": len(self.book.one_time),
            "clients": len(self._links),
            "credentials_seen": len(self._sightings),
            "journal_bytes": self._journal.size,
        }

    def _recover(self) -> None:
        now, wall = self._clock.monotonic(), self._clock.now().timestamp()
        for entry in self._journal.read():
            self.book.apply(entry, now=0.0)
        anchor = self.book.anchor
        if anchor is not None and anchor.boot != self._boot:
            # What lay in the past by the wall clock lies there still; a clock set back makes it more recent.
            self.book.shift((now - wall) - (anchor.monotonic - anchor.wall), now)
        self.book.part_all(now)

    def _state(self) -> list[kept.Entry]:
        now = self._clock.monotonic()
        return [self._anchor(), *self.book.state(now)]

    def _anchor(self) -> kept.Anchor:
        return kept.Anchor(self._boot, self._clock.monotonic(), self._clock.now().timestamp())

    def _keep_house(self) -> None:
        self._house = asyncio.get_running_loop().call_later(_HOUSEKEEPING, self._keep_house)
        self.book.tidy(self._clock.monotonic())
        self._sightings.tidy()
        if self._journal.grown:
            self._journal.rewrite(self._state())
        else:
            self._journal.append(self._anchor(), durable=False)

    def _change(
        self, *entries: kept.Entry, then: Callable[[], None] | None = None, durable: bool = True
    ) -> None:
        now = self._clock.monotonic()
        for entry in entries:
            self.book.apply(entry, now)
        self._journal.append(*entries, then=then, durable=durable)

    # What a client said

    def opened(self, link: _Link) -> None:
        """Take note of a connection."""
        self._open.add(link)

    def heard(self, link: _Link, message: said.FromClient) -> None:  # noqa: C901, PLR0912 -- a case per message
        """Act on one message; the first one of a connection is Hello."""
        if isinstance(message, said.Hello):
            self._hello(link, message)
            return
        if not link.session:
            link.drop()
            return
        match message:
            case said.Report():
                acked = framed(said.Acked(message.seq))
                self._change(
                    kept.Reported(link.session, message), then=lambda: link.send(acked), durable=False
                )
            case said.Acquire():
                self._acquire(_Waiter(link, message), round_=1)
            case said.Claim():
                self._claim(link, message)
            case said.Enter():
                self._enter(link, message)
            case said.See():
                self._see(link, message)
            case said.Still(oddities):
                self._sightings.restore(tuple(oddities))
            case said.Leave(place):
                self._change(kept.Placed(link.session, place, -1), durable=False)
            case said.Beat():
                self._extend(link, lambda until: link.send(framed(said.Valid(until))))
            case said.Recalled(counters):
                for counter in counters:
                    self._recalled((counter, link.session))
            case said.Bye():
                session, link.session = link.session, ""
                self._links.pop(session, None)
                self._change(kept.Ended(session), durable=False)
                self._gone(session)

    def lost(self, link: _Link) -> None:
        """Count what a client held as used, unless it comes back and accounts for it."""
        self._open.discard(link)
        session = link.session
        if session and self._links.get(session) is link:
            del self._links[session]
            self._change(kept.Parted(session, self._clock.monotonic(), link.told), durable=False)
            self._gone(session)

    def _hello(self, link: _Link, hello: said.Hello) -> None:
        before = self._links.get(hello.session)
        link.session = hello.session
        self._links[hello.session] = link
        if before is not None and before is not link:
            before.session = ""
            before.drop()
        reports = [kept.Reported(hello.session, report) for report in hello.reports]
        self._change(*reports, kept.Resumed(hello.session, hello.slots), durable=False)
        self._gone(hello.session)
        seq = self.book.sessions[hello.session].seq
        # Its places and reports must be kept before it is told so.
        self._journal.append(then=lambda: link.send(framed(said.Welcome(seq))), durable=True)
        _tell([link], self._sightings.active())

    # Leases

    def _acquire(self, waiter: _Waiter, round_: int) -> None:
        link, asked, now = waiter.link, waiter.asked, self._clock.monotonic()
        if self._links.get(link.session) is not link:
            return
        try:
            found = self.book.consider(link.session, asked.wanted, now, last=round_ > _ROUNDS)
        except UnavailableError as error:
            link.send(framed(said.Failed(asked.id, error.message, error.hint)))
            return
        match found:
            case Short(recalls):
                self._recall(waiter, recalls, round_)
            case Nothing(index, wait):
                link.send(framed(said.Refused(asked.id, index, wait)))
            case kept.Leased(parts=parts):
                extras = [got - each.amount for (_, _, got), each in zip(parts, asked.wanted, strict=True)]
                more = (found,) if any(got for _, _, got in parts) else ()
                self._extend(
                    link, lambda until: link.send(framed(said.Granted(asked.id, until, extras))), *more
                )

    def _extend(self, link: _Link, tell: Callable[[float], None], *more: kept.Entry) -> None:
        """Let a session use its leases for a while from now, and tell it when that is on disk."""
        session = self.book.sessions[link.session]
        if session.until < self._clock.monotonic() + 2 * LEASE:
            more = (kept.Extended(link.session, self._clock.monotonic() + _JOURNALLED), *more)

        def told() -> None:
            # Counted from the moment it is told: a slow disk does not use it up.
            link.told = min(self._clock.monotonic() + LEASE, session.until)
            tell(link.told)

        if more:
            self._change(*more, then=told)
        else:
            told()

    def _recall(self, waiter: _Waiter, recalls: tuple[tuple[str, str], ...], round_: int) -> None:
        waiter.round = round_
        waiter.pending = set(recalls)
        waiter.until = self._clock.monotonic() + _RECALL_SECONDS
        self._assure(waiter)
        asked: dict[str, list[str]] = {}
        for counter, session in recalls:
            waiting = self._recalls.setdefault((counter, session), [])
            # One recall serves all who wait for it; a client that is asked answers for that moment.
            if not waiting:
                asked.setdefault(session, []).append(counter)
            waiting.append(waiter)
        for session, counters in asked.items():
            link = self._links.get(session)
            if link is None:
                self._gone(session)
            else:
                # Behind the leases that wait for the disk: what is recalled must have arrived.
                recall = framed(said.Recall(counters))
                self._journal.append(then=partial(link.send, recall), durable=False)

    def _recalled(self, key: tuple[str, str]) -> None:
        for waiter in self._recalls.pop(key, ()):
            waiter.pending.discard(key)
            if not waiter.pending and waiter.timer is not None:
                waiter.timer.cancel()
                waiter.timer = None
                self._acquire(waiter, waiter.round + 1)

    def _assure(self, waiter: _Waiter) -> None:
        """Tell a client now and then that we are there, until those who are asked must have answered."""
        if self._clock.monotonic() >= waiter.until:
            self._unanswered(waiter)
            return
        waiter.link.send(framed(said.Working(waiter.asked.id)))
        waiter.timer = asyncio.get_running_loop().call_later(_ASSURE_SECONDS, self._assure, waiter)

    def _unanswered(self, waiter: _Waiter) -> None:
        """Decide without those who do not answer: what they hold counts as used for now."""
        waiter.timer = None
        for key in waiter.pending:
            waiting = self._recalls.get(key, [])
            if waiter in waiting:
                waiting.remove(waiter)
            if not waiting:
                self._recalls.pop(key, None)
        self._acquire(waiter, _ROUNDS + 1)

    def _gone(self, session: str) -> None:
        """Wait no longer for a session that ended or began anew: it holds nothing to give back."""
        for key in [key for key in self._recalls if key[1] == session]:
            self._recalled(key)

    # Sightings: nothing of them is on disk

    def _see(self, link: _Link, asked: said.See) -> None:
        found = self._sightings.see(asked.sighting)
        others = [other for other in self._links.values() if other is not link]
        _tell(others, [*found.begun, *found.going_on])
        _tell([link], found.going_on)
        _tell([link], found.begun, ours=True)
        for other in others if found.moved else ():
            other.send(framed(said.Moved(asked.sighting.credential, found.moved)))
        if asked.id:
            # Behind what it showed.
            link.send(framed(said.Answered(asked.id, yes=True)))

    # Once, and places

    def _claim(self, link: _Link, asked: said.Claim) -> None:
        try:
            entry = self.book.claim(asked, self._clock.now().timestamp())
        except UnavailableError as error:
            link.send(framed(said.Failed(asked.id, error.message, error.hint)))
            return
        answer = framed(said.Answered(asked.id, entry is not None))
        if entry is None:
            link.send(answer)
        else:
            self._journal.append(entry, then=lambda: link.send(answer))

    def _enter(self, link: _Link, asked: said.Enter) -> None:
        free = self.book.has_place(asked.place, asked.most, self._clock.monotonic())
        answer = framed(said.Answered(asked.id, free))
        if not free:
            link.send(answer)
            return
        # A machine that stops ends all streams: this need survive a crash of processes only.
        entry = kept.Placed(link.session, asked.place, 1)
        self._change(entry, then=lambda: link.send(answer), durable=False)


def _tell(links: Iterable[_Link], oddities: Sequence[Oddity], *, ours: bool = False) -> None:
    for link in links if oddities else ():
        link.send(framed(said.Odd(list(oddities), ours)))


class _Waiter:
    """An Acquire that waits for recalls."""

    __slots__ = ("asked", "link", "pending", "round", "timer", "until")

    def __init__(self, link: _Link, asked: said.Acquire) -> None:
        self.link, self.asked = link, asked
        self.round = 0
        self.pending: set[tuple[str, str]] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.until = 0.0


class _Link(asyncio.Protocol):
    """One connection: bytes to messages; only our own uid is heard."""

    def __init__(self, keeper: Keeper) -> None:
        self.session = ""
        self.told = 0.0
        self._keeper = keeper
        self._frames = Frames()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        uid = peer.uid_of(transport.get_extra_info("socket"))
        if uid != os.geteuid():
            _log.warning("counter_client_refused", uid=uid)
            self.drop()
            return
        self._keeper.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._keeper.heard(self, _decoder.decode(body))
        except (msgspec.MsgspecError, DoorwardError) as error:
            _log.warning("counter_client_dropped", reason=str(error))
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._keeper.lost(self)
        self._transport = None

    def send(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > _MOST_UNSENT:
            self.drop()
            return
        self._transport.write(data)

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()
