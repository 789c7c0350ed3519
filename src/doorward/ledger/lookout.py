"""A gateway's side of sightings: what to tell the owner and when, and what it said is odd.

The owner is asked, and waited for, when a credential is new here, at another place than last, or used by
another program; use at the same place is told now and then, without waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import Any, Final

import structlog

from doorward.core.clock import Clock
from doorward.core.errors import UnavailableError
from doorward.core.sightings import Oddity, Sighting, Signal
from doorward.ledger.messages import Moved, Odd, See, Still
from doorward.ledger.sightings import MOST_CREDENTIALS, Places
from doorward.settings import NetworkSettings

_MOST_USES: Final = 32
_MOST_UNTOLD: Final = 10_000
# While the owner restarts, what it said before is believed for so long; seconds.
_GRACE: Final = 5.0
_EVEN_SO: Final = 1.0
_UNKNOWN: Final = frozenset({str(Signal.UNKNOWN)})
_NONE: Final = frozenset[str]()
_log = structlog.get_logger()


class Due(Enum):
    """Say what a sighting calls for."""

    NOTHING = "nothing"
    TELL = "tell"
    ASK = "ask"


class _Uses:
    """Where one credential was last, as far as is known here, and when each use was told."""

    __slots__ = ("place", "told")

    def __init__(self) -> None:
        self.place = ""
        self.told: OrderedDict[tuple[str, str], float] = OrderedDict()


class Watched:
    """Keep what this process told and heard; who sends it is the ledger's client."""

    def __init__(self, settings: NetworkSettings, clock: Clock) -> None:
        """Know nothing yet."""
        self._settings, self._clock = settings, clock
        self._places = Places(settings)
        self._uses: OrderedDict[str, _Uses] = OrderedDict()
        self._odd: dict[str, dict[Signal, Oddity]] = {}
        self._untold: OrderedDict[str, Sighting] = OrderedDict()
        self._lost: float | None = clock.monotonic()
        self._raised: Callable[[Oddity], None] = lambda _: None
        self.changed = 0

    def on_raised(self, tell: Callable[[Oddity], None]) -> None:
        """Call `tell` for each episode that a sighting of this process began."""
        self._raised = tell

    @property
    def wanted(self) -> bool:
        """Return whether anybody wants to know."""
        return self._settings.signals

    # Telling

    def due(self, sighting: Sighting) -> Due:
        """Return what a sighting calls for."""
        uses = self._uses.get(sighting.credential)
        if uses is None or sighting.credential in self._untold:
            return Due.ASK
        place = "" if sighting.many else self._places.of(sighting.where)
        told = uses.told.get((place, sighting.client))
        if told is None:
            return Due.ASK
        age = self._clock.monotonic() - told
        if place != uses.place:
            # Known to be odd: it is enough to see that it goes on.
            return Due.NOTHING if age < _EVEN_SO and sighting.credential in self._odd else Due.ASK
        return Due.TELL if age >= self._settings.notice_every else Due.NOTHING

    def told(self, sighting: Sighting) -> None:
        """Note that the owner knows of a sighting."""
        uses = self._uses.setdefault(sighting.credential, _Uses())
        self._uses.move_to_end(sighting.credential)
        uses.place = "" if sighting.many else self._places.of(sighting.where)
        uses.told[uses.place, sighting.client] = self._clock.monotonic()
        uses.told.move_to_end((uses.place, sighting.client))
        if len(uses.told) > _MOST_USES:
            uses.told.popitem(last=False)
        if len(self._uses) > MOST_CREDENTIALS:
            self._uses.popitem(last=False)
        self._untold.pop(sighting.credential, None)

    def not_told(self, sighting: Sighting) -> None:
        """Note that the owner could not be told: until it is, nobody can tell what is odd."""
        self._untold[sighting.credential] = sighting
        if len(self._untold) > _MOST_UNTOLD:
            self._untold.popitem(last=False)
        self.changed += 1

    # Hearing

    def connected(self) -> list[Still | See]:
        """Return what a new owner must hear: the episodes that go on, and what nobody was told of."""
        self._lost = None
        # It may know nothing of what was told to the one before.
        self._uses.clear()
        missed = [See(0, sighting) for sighting in self._untold.values()]
        for one in missed:
            self.told(one.sighting)
        self.forget()
        odd = [one for each in self._odd.values() for one in each.values()]
        return [Still(odd), *missed] if odd else [*missed]

    def disconnected(self) -> None:
        """Count from now."""
        if self._lost is None:
            self._lost = self._clock.monotonic()

    def moved(self, credential: str, place: str) -> None:
        """Hear that another gateway saw a credential elsewhere: its next use here is a change of place."""
        uses = self._uses.get(credential)
        if uses is not None:
            uses.place = place

    def odd(self, oddities: Iterable[Oddity], *, ours: bool) -> None:
        """Hear what is odd; `ours` began by what we saw."""
        for one in oddities:
            self._odd.setdefault(one.credential, {})[one.signal] = one
            self.changed += 1
            if ours:
                self._raised(one)

    def forget(self) -> None:
        """Drop the episodes that ended."""
        now = self._clock.monotonic()
        for credential, odd in tuple(self._odd.items()):
            for signal in [signal for signal, one in odd.items() if one.until <= now]:
                del odd[signal]
            if not odd:
                del self._odd[credential]

    def signals(self, credential: str) -> frozenset[str]:
        """Return what is odd about a credential now, or that it cannot be told."""
        now = self._clock.monotonic()
        lost = self._lost is not None and now - self._lost > _GRACE
        unknown = _UNKNOWN if lost or credential in self._untold else _NONE
        odd = self._odd.get(credential)
        if odd is None:
            return unknown
        return unknown.union(str(signal) for signal, one in odd.items() if one.until > now)


class SharedLookout:
    """Implements core.sightings.Lookout over the connection of the ledger's client."""

    def __init__(
        self,
        settings: NetworkSettings,
        clock: Clock,
        *,
        ask: Callable[[Callable[[int], Any], str], Awaitable[Any]],
        tell: Callable[[Any], None],
    ) -> None:
        """Take how to ask the owner (raises UnavailableError), and how to tell it without an answer."""
        self.watched = Watched(settings, clock)
        self._ask, self._tell = ask, tell

    @property
    def changed(self) -> int:
        """Return a number that grows whenever a signal appears; see the port."""
        return self.watched.changed

    async def see(self, sighting: Sighting) -> None:
        """Take note of a use of a credential; see the port."""
        due = self.watched.due(sighting)
        if due is Due.NOTHING:
            return
        try:
            if due is Due.ASK:
                await self._ask(lambda number: See(number, sighting), "sightings")
            else:
                self._tell(See(0, sighting))
        except UnavailableError:
            self.watched.not_told(sighting)
        else:
            self.watched.told(sighting)

    def signals(self, credential: str) -> frozenset[str]:
        """Return what is odd about a credential now; see the port."""
        return self.watched.signals(credential)

    def heard(self, message: Odd | Moved) -> None:
        """Act on what the owner says."""
        if isinstance(message, Odd):
            self.watched.odd(message.oddities, ours=message.ours)
        else:
            self.watched.moved(message.credential, message.place)
