"""What is odd about where a credential is used: deterministic rules over its recent sightings.

Each rule looks at two sightings and says in a sentence what does not fit. Memory is bounded; what is
forgotten shows nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import lru_cache
from ipaddress import ip_network
from typing import Final

import msgspec

from doorward.core.clock import Clock
from doorward.core.locations import Whereabouts, kilometres
from doorward.core.sightings import Oddity, Seen, Sighting, Signal
from doorward.settings import NetworkSettings

MOST_CREDENTIALS: Final = 50_000
_MOST_PLACES, _MOST_CLIENTS, _MOST_MOVES = 16, 16, 256
# No two places on earth are further apart; kilometres.
_FURTHEST_KM: Final = 20_038.0
_HOUR: Final = 3600.0


class Found(msgspec.Struct, frozen=True):
    """What one sighting showed: oddities that began, those that go on, and the new place if it changed."""

    begun: tuple[Oddity, ...] = ()
    going_on: tuple[Oddity, ...] = ()
    moved: str = ""


class Places:
    """Tell which whereabouts count as one place."""

    def __init__(self, settings: NetworkSettings) -> None:
        """Take what the operator calls one place."""
        self._together = {zone: " and ".join(zones) for zones in settings.together for zone in zones}
        self._prefixes = {4: settings.prefix_v4, 6: settings.prefix_v6}

    def of(self, where: Whereabouts) -> str:
        """Return the place's name."""
        if where.zone != "unknown":
            return f"zone {self._together.get(where.zone, where.zone)}"
        return f"network {_network(where.ip, self._prefixes[6 if ':' in where.ip else 4])}"


@lru_cache(maxsize=4096)
def _network(ip: str, prefix: int) -> str:
    return str(ip_network(f"{ip}/{prefix}", strict=False))


class _Stay:
    """The last sighting at one place."""

    __slots__ = ("at", "seen")

    def __init__(self, at: float, seen: Seen) -> None:
        self.at, self.seen = at, seen


class _Past:
    """What is remembered of one credential. `moves` holds (left at, place left, its last sighting)."""

    __slots__ = ("active", "clients", "first", "last", "moves", "place", "stays")

    def __init__(self, now: float) -> None:
        self.first = self.last = now
        self.place = ""
        self.stays: OrderedDict[str, _Stay] = OrderedDict()
        self.moves: deque[tuple[str, float, Seen]] = deque(maxlen=_MOST_MOVES)
        self.clients: dict[str, Seen] = {}
        self.active: dict[Signal, Oddity] = {}


class Sightings:
    """Judge each sighting against those before it."""

    def __init__(self, settings: NetworkSettings, clock: Clock) -> None:
        """Take the rules."""
        self._settings, self._clock = settings, clock
        self._places = Places(settings)
        self._travel_memory = max(settings.shared_within, _FURTHEST_KM / settings.travel_speed * _HOUR)
        self._known: OrderedDict[str, _Past] = OrderedDict()

    def __len__(self) -> int:
        """Return how many credentials are remembered."""
        return len(self._known)

    def see(self, sighting: Sighting) -> Found:
        """Return what a sighting shows."""
        now = self._clock.monotonic()
        seen = Seen(sighting, self._clock.now().timestamp())
        past = self._past(sighting.credential, now)
        self._end(past, now)
        fresh = [self._client_changed(past, seen, now)]
        moved = ""
        if not sighting.many:
            place = self._places.of(sighting.where)
            moved = place if past.place and place != past.place else ""
            fresh += [self._travelled(past, seen, place, now), self._shared(past, seen, place, now)]
            self._stay(past, place, seen, now)
        past.last = now
        odd = [one for one in fresh if one is not None]
        begun = tuple(one for one in odd if one.signal not in past.active)
        going_on = tuple(one for one in odd if one.signal in past.active)
        past.active.update((one.signal, one) for one in odd)
        return Found(begun, going_on, moved)

    def active(self) -> tuple[Oddity, ...]:
        """Return every episode that has not ended."""
        now = self._clock.monotonic()
        return tuple(o for past in self._known.values() for o in past.active.values() if o.until > now)

    def restore(self, oddities: tuple[Oddity, ...]) -> None:
        """Take over episodes that a process before us began."""
        now = self._clock.monotonic()
        for one in oddities:
            # A process of another boot counts its seconds from elsewhere.
            if now < one.until <= now + self._settings.signals_last:
                self._past(one.credential, now).active.setdefault(one.signal, one)

    def tidy(self) -> None:
        """Forget credentials that were not used for long."""
        horizon = self._clock.monotonic() - self._settings.remember
        while self._known and next(iter(self._known.values())).last < horizon:
            self._known.popitem(last=False)

    def _past(self, credential: str, now: float) -> _Past:
        past = self._known.get(credential)
        if past is None:
            past = self._known[credential] = _Past(now)
            if len(self._known) > MOST_CREDENTIALS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(credential)
        return past

    def _end(self, past: _Past, now: float) -> None:
        for signal, oddity in tuple(past.active.items()):
            if oddity.until <= now:
                del past.active[signal]
                if signal is Signal.CLIENT:
                    # Told once; from here on it is one of its clients.
                    self._learn(past, oddity.now)

    def _stay(self, past: _Past, place: str, seen: Seen, now: float) -> None:
        if past.place and past.place != place and (left := past.stays.get(past.place)) is not None:
            past.moves.append((past.place, left.at, left.seen))
        past.place = place
        past.stays[place] = _Stay(now, seen)
        past.stays.move_to_end(place)
        while (
            len(past.stays) > _MOST_PLACES or next(iter(past.stays.values())).at < now - self._travel_memory
        ):
            past.stays.popitem(last=False)

    # The rules

    def _shared(self, past: _Past, seen: Seen, place: str, now: float) -> Oddity | None:
        """Find a return: it was here, then elsewhere, and is here again, all within the window."""
        if not past.place or place == past.place:
            return None
        begin = now - self._settings.shared_within
        recent = [move for move in past.moves if move[1] >= begin]
        # The move that this sighting makes is one of them.
        if len(recent) + 1 < self._settings.shared_switches or place not in {name for name, _, _ in recent}:
            return None
        elsewhere = past.stays[past.place].seen
        return self._odd(
            Signal.SHARED,
            elsewhere,
            seen,
            f"one credential is in use from {past.place} and from {place} at the same time: it changed its"
            f" place {len(recent) + 1} times within {_span(now - min(at for _, at, _ in recent))}",
            now,
        )

    def _travelled(self, past: _Past, seen: Seen, place: str, now: float) -> Oddity | None:
        here, rules = seen.sighting.where.at, self._settings
        if here is None:
            return None
        for name, stay in reversed(past.stays.items()):
            there = stay.seen.sighting.where.at
            if there is None or name == place:
                continue
            distance, took = kilometres(there, here), now - stay.at
            if distance > rules.travel_distance and distance * _HOUR > rules.travel_speed * took:
                return self._odd(
                    Signal.TRAVEL,
                    stay.seen,
                    seen,
                    f"{distance:,.0f} km lie between the two places, {_span(took)} between the two requests:"
                    f" nobody travels faster than {rules.travel_speed:g} km/h",
                    now,
                )
        return None

    def _client_changed(self, past: _Past, seen: Seen, now: float) -> Oddity | None:
        client = seen.sighting.client
        if client in past.clients:
            past.clients[client] = seen
            return None
        if now < past.first + self._settings.client_learned or not past.clients:
            self._learn(past, seen)
            return None
        if Signal.CLIENT in past.active:
            return None
        known = ", ".join(f"`{name}`" for name in sorted(past.clients))
        before = max(past.clients.values(), key=lambda one: one.time)
        odd = f"the program is `{client}`; so far this credential was used by {known} only"
        return self._odd(Signal.CLIENT, before, seen, odd, now)

    def _learn(self, past: _Past, seen: Seen) -> None:
        if len(past.clients) < _MOST_CLIENTS:
            past.clients[seen.sighting.client] = seen

    def _odd(self, signal: Signal, before: Seen, seen: Seen, odd: str, now: float) -> Oddity:
        until = now + self._settings.signals_last
        return Oddity(signal=signal, before=before, now=seen, odd=odd, until=until)


def _span(seconds: float) -> str:
    if seconds >= 2 * _HOUR:
        return f"{seconds / _HOUR:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"  # noqa: PLR2004 -- minutes
