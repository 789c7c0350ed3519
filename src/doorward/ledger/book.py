"""The state of everything shared: changed only by entries, so that a journal of them rebuilds it exactly.

A session is one run of one client. What it holds is leased: while it lives only it can use that; when
its connection ends without an account, all it held counts as used at the moment its lease ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from doorward.core.errors import UnavailableError
from doorward.core.onetime import OneTimeTable
from doorward.ledger import entries as kept
from doorward.ledger.messages import Claim, Report, Use, Wanted
from doorward.ledger.windows import Window

MAX_WINDOWS = 100_000
MAX_ENTRIES = 2_000_000
# A client that does not come back within this has ended, and so have the streams it carried; seconds.
_PLACES_SURVIVE = 5.0
_LARGEST_LEASE = 1 << 20
# How long the number of its last report is kept, so that one sent again never counts twice; seconds.
_SESSIONS_SURVIVE = 60.0
_TIDY_SECONDS = 1.0
# One lease takes at most this part of what is left, shared among the sessions.
_SHARE = 4
_CONTENDED_SECONDS = 1.0


@dataclass(slots=True)
class Session:
    """What is known of one client: until when it may use its leases, its last report, what it holds."""

    id: str
    until: float = 0.0
    seq: int = 0
    parted: float | None = None
    counters: set[str] = field(default_factory=set)
    slots: dict[str, int] = field(default_factory=dict)


class Short(msgspec.Struct, frozen=True):
    """Say that enough may be left once these (counter, session) give back what they do not use."""

    recalls: tuple[tuple[str, str], ...]


class Nothing(msgspec.Struct, frozen=True):
    """Say that the wanted counter at `index` is exhausted for `wait` seconds."""

    index: int
    wait: float


class Book:
    """Decide on the present state and change it by entries; it reads no clock and does no I/O."""

    def __init__(self, *, max_windows: int = MAX_WINDOWS, max_entries: int = MAX_ENTRIES) -> None:
        """Bound the counters and the uses remembered in them."""
        self.sessions: dict[str, Session] = {}
        self.windows: dict[str, Window] = {}
        self.one_time = OneTimeTable()
        self.anchor: kept.Anchor | None = None
        self._max_windows, self._max_entries = max_windows, max_entries
        self._places: dict[str, int] = {}
        self._uses = 0
        self._tidied = -_TIDY_SECONDS

    # Deciding

    def consider(
        self, session: str, wanted: Sequence[Wanted], now: float, *, last: bool = False
    ) -> kept.Leased | Short | Nothing:
        """Return the lease that gives all that is wanted, what to recall first, or what is exhausted.

        `last` says that recalling was tried. Raises UnavailableError when there is no room to count.
        """
        self._make_room(now, len(wanted))
        recalls: list[tuple[str, str]] = []
        worst: Nothing | None = None
        taken: dict[str, int] = {}
        for index, each in enumerate(wanted):
            window = self._window(each.counter, each.seconds, now)
            need = taken[each.counter] = taken.get(each.counter, 0) + each.amount
            if window.left(now, each.capacity) >= need:
                continue
            window.contended = now + _CONTENDED_SECONDS
            holders = [] if last else [holder for holder in window.held if self._lives(holder)]
            recalls += [(each.counter, holder) for holder in holders]
            wait = self._wait(window, each, now)
            if not holders and (worst is None or wait > worst.wait):
                worst = Nothing(index, wait)
        if worst is not None:
            return worst
        if recalls:
            return Short(tuple(recalls))
        parts = ((each.counter, each.seconds, each.amount + self._extra(each, now)) for each in wanted)
        return kept.Leased(session, tuple(parts))

    def claim(self, asked: Claim, wall: float) -> kept.Claimed | None:
        """Return the entry of a claim that succeeds, else None. Raises UnavailableError when full."""
        yes = self.one_time.claim(
            asked.kind, asked.mark, expires=asked.expires, now=wall, again_within=asked.again_within
        )
        return kept.Claimed(asked.kind, asked.mark, asked.expires, wall) if yes else None

    def has_place(self, place: str, most: int, now: float) -> bool:
        """Return whether fewer than `most` places are taken."""
        self._forget_sessions(now)
        return self._places.get(place, 0) < most

    # Changing

    def apply(self, entry: kept.Entry, now: float) -> None:  # noqa: C901 -- one case per kind of entry
        """Change the book as the entry says."""
        match entry:
            case kept.Leased(session, parts):
                for counter, seconds, amount in parts:
                    self._window(counter, seconds, now).lease(session, amount)
                    self._session(session).counters.add(counter)
            case kept.Extended(session, until):
                self._session(session).until = until
            case kept.Reported(session, report):
                self._report(self._session(session), report)
            case kept.Resumed(session, slots):
                self._resume(self._session(session), slots)
            case kept.Parted(session, at, until):
                self._session(session).parted = at
                self._session(session).until = until
            case kept.Ended(session):
                self._end(session)
            case kept.Claimed():
                self._claimed(entry)
            case kept.Placed(session, place, change):
                self._place(self._session(session), place, change)
            case kept.Anchor():
                self.anchor = entry
            case kept.Counted(counter, seconds, uses):
                self._window(counter, seconds, now).replace(uses)
            case kept.Held():
                self._hold(entry, now)

    def state(self, now: float) -> Iterator[kept.Entry]:
        """Yield entries that rebuild what counts now."""
        self.tidy(now)
        for counter, window in self.windows.items():
            yield kept.Counted(counter, window.seconds, window.uses())
        for session in self.sessions.values():
            parts = tuple(
                (counter, self.windows[counter].seconds, self.windows[counter].held[session.id])
                for counter in sorted(session.counters)
                if session.id in self.windows[counter].held
            )
            yield kept.Held(
                session.id, session.until, session.seq, session.parted, parts, dict(session.slots)
            )
        for kind, mark, expires, at in self.one_time.remembered():
            yield kept.Claimed(kind, mark, expires, at)

    def shift(self, seconds: float, latest: float) -> None:
        """Move everything to the clock of another boot; nothing may lie after `latest`."""
        for window in self.windows.values():
            window.shift(seconds, latest)
        for session in self.sessions.values():
            session.until = min(session.until + seconds, latest)
            session.parted = min((session.parted or session.until) + seconds, latest)

    def part_all(self, now: float) -> None:
        """Take every session for one whose connection ended: the owner itself was away."""
        for session in self.sessions.values():
            if session.parted is None:
                session.parted = now

    def tidy(self, now: float) -> None:
        """Drop windows in which nothing counts any more, and sessions that hold nothing."""
        self._forget_sessions(now)
        for counter, window in list(self.windows.items()):
            window.forget(now)
            if window.idle:
                del self.windows[counter]
        self._uses = sum(map(len, self.windows.values()))
        self._tidied = now

    # Parts of both

    def _window(self, counter: str, seconds: int, now: float) -> Window:
        window = self.windows.get(counter)
        if window is None:
            window = self.windows[counter] = Window(seconds)
        elif window.held:
            self._lapse(window, now)
        return window

    def _lapse(self, window: Window, now: float) -> None:
        """Drop leases of clients that are gone, once a use at their last moment has left the span."""
        for holder in list(window.held):
            session = self.sessions.get(holder)
            if session is None or (session.parted is not None and session.until + window.seconds <= now):
                window.unlease(holder)

    def _wait(self, window: Window, each: Wanted, now: float) -> float:
        wait = window.wait(now, capacity=each.capacity, need=each.amount)
        gone = [self.sessions[h].until + window.seconds - now for h in window.held if not self._lives(h)]
        return max(0.0, min([wait, *gone]))

    def _extra(self, each: Wanted, now: float) -> int:
        window = self.windows[each.counter]
        if now < window.contended:
            return 0
        living = sum(1 for session in self.sessions.values() if session.parted is None)
        share = (window.left(now, each.capacity) - each.amount) // (_SHARE * max(1, living))
        return max(0, min(each.extra, share, _LARGEST_LEASE))

    def _lives(self, session: str) -> bool:
        found = self.sessions.get(session)
        return found is not None and found.parted is None

    def _session(self, session: str) -> Session:
        return self.sessions.setdefault(session, Session(session))

    def _report(self, session: Session, report: Report) -> None:
        if report.seq <= session.seq:
            return
        session.seq = report.seq
        for counter, uses in report.used.items():
            self._use(session, counter, uses, leased=True)
        for counter, uses in report.over.items():
            self._use(session, counter, uses, leased=False)
        for counter, uses in report.undone.items():
            if (window := self.windows.get(counter)) is not None:
                for at, amount in uses:
                    window.take_back(at, amount)
        for counter, amount in report.returned.items():
            self._unlease(session, counter, amount)

    def _use(self, session: Session, counter: str, uses: Iterable[Use], *, leased: bool) -> None:
        window = self.windows.get(counter)
        if window is None:
            # Nothing counted there any more, so neither do uses of then.
            return
        for at, amount in uses:
            if leased:
                window.unlease(session.id, amount)
            window.use(at, amount)
            self._uses += 1

    def _unlease(self, session: Session, counter: str, amount: int | None) -> None:
        window = self.windows.get(counter)
        if window is None:
            session.counters.discard(counter)
            return
        window.unlease(session.id, amount)
        if session.id not in window.held:
            session.counters.discard(counter)

    def _resume(self, session: Session, slots: dict[str, int]) -> None:
        session.parted = None
        for counter in list(session.counters):
            self._unlease(session, counter, None)
        for place, count in list(session.slots.items()):
            self._place(session, place, -count)
        for place, count in slots.items():
            self._place(session, place, count)

    def _end(self, session: str) -> None:
        ended = self.sessions.pop(session, None)
        if ended is not None:
            self._resume(ended, {})

    def _place(self, session: Session, place: str, change: int) -> None:
        for table in (session.slots, self._places):
            table[place] = table.get(place, 0) + change
            if table[place] <= 0:
                del table[place]

    def _claimed(self, entry: kept.Claimed) -> None:
        self.one_time.claim(entry.kind, entry.mark, expires=entry.expires, now=entry.at)

    def _hold(self, entry: kept.Held, now: float) -> None:
        session = self._session(entry.session)
        session.until, session.seq, session.parted = entry.until, entry.seq, entry.parted
        for counter, seconds, amount in entry.parts:
            self._window(counter, seconds, now).lease(entry.session, amount)
            session.counters.add(counter)
        for place, count in entry.slots.items():
            self._place(session, place, count)

    def _forget_sessions(self, now: float) -> None:
        for session in list(self.sessions.values()):
            if session.parted is None:
                continue
            if now - session.parted > _PLACES_SURVIVE:
                for place, count in list(session.slots.items()):
                    self._place(session, place, -count)
            for counter in list(session.counters):
                window = self.windows.get(counter)
                if window is not None:
                    self._lapse(window, now)
                if window is None or session.id not in window.held:
                    session.counters.discard(counter)
            if now - session.parted > _SESSIONS_SURVIVE and not session.counters:
                del self.sessions[session.id]

    def _make_room(self, now: float, wanted: int) -> None:
        if len(self.windows) + wanted <= self._max_windows and self._uses + wanted <= self._max_entries:
            return
        if now - self._tidied >= _TIDY_SECONDS:
            self.tidy(now)
        if len(self.windows) + wanted > self._max_windows or self._uses + wanted > self._max_entries:
            raise UnavailableError(
                "there is no room for another usage counter", hint="Shorten the spans of the limits."
            )
