"""What is odd about where a credential is used: each rule, its edges, its end, its bounds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from doorward.core.clock import ManualClock
from doorward.core.locations import Whereabouts
from doorward.core.sightings import Sighting, Signal
from doorward.ledger import sightings as rules
from doorward.ledger.lookout import Due, Watched
from doorward.ledger.sightings import Found, Sightings
from doorward.settings import NetworkSettings

AMSTERDAM, UTRECHT, NEW_YORK = (52.37, 4.90), (52.09, 5.12), (40.71, -74.0)
HOME = Whereabouts("192.0.2.7", "unknown")
NEXT_DOOR = Whereabouts("192.0.2.200", "unknown")
CAFE = Whereabouts("203.0.113.5", "unknown")
OFFICE, VPN = Whereabouts("10.1.1.1", "office"), Whereabouts("10.2.2.2", "vpn")


def seen(where: Whereabouts = HOME, *, client: str = "curl", **more: Any) -> Sighting:
    return Sighting(
        **{"credential": "key-1", "principal": 'User::"dana"', "where": where, "client": client, **more}
    )


class Watch:
    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock(datetime(2026, 11, 23, 12, tzinfo=UTC))
        self.sightings = Sightings(NetworkSettings(**settings), self.clock)

    def see(self, where: Whereabouts = HOME, *, after: float = 1, **more: Any) -> Found:
        self.clock.advance(after)
        return self.sightings.see(seen(where, **more))

    def begun(self, where: Whereabouts = HOME, *, after: float = 1, **more: Any) -> list[Signal]:
        return [one.signal for one in self.see(where, after=after, **more).begun]

    def active(self) -> set[Signal]:
        return {one.signal for one in self.sightings.active()}


# Shared


def test_use_that_goes_to_and_fro_between_two_networks_is_shared() -> None:
    watch = Watch()
    assert [watch.begun(HOME), watch.begun(CAFE)] == [[], []]
    found = watch.see(HOME)
    (oddity,) = found.begun
    assert oddity.signal is Signal.SHARED
    assert (oddity.before.sighting.where, oddity.now.sighting.where) == (CAFE, HOME)
    assert "network 203.0.113.0/24 and from network 192.0.2.0/24 at the same time" in oddity.odd


def test_who_moves_on_and_does_not_come_back_shares_nothing() -> None:
    watch = Watch()
    assert not watch.begun(HOME) + watch.begun(CAFE) + watch.begun(OFFICE) + watch.begun(VPN)


def test_coming_back_later_than_the_window_shares_nothing() -> None:
    watch = Watch(shared_within=300)
    watch.begun(HOME)
    assert watch.begun(CAFE, after=150) == []
    assert watch.begun(HOME, after=151) == []
    watch = Watch(shared_within=300)
    watch.begun(HOME)
    watch.begun(CAFE, after=150)
    assert watch.begun(HOME, after=149) == [Signal.SHARED]


def test_more_switches_may_be_asked_for() -> None:
    watch = Watch(shared_switches=3)
    assert [watch.begun(HOME), watch.begun(CAFE), watch.begun(HOME)] == [[], [], []]
    assert watch.begun(CAFE) == [Signal.SHARED]


def test_one_network_and_zones_listed_together_are_one_place() -> None:
    watch = Watch(together=[["office", "vpn"]])
    for where in (HOME, NEXT_DOOR, HOME):
        assert watch.begun(where) == []
    watch = Watch(together=[["office", "vpn"]])
    for where in (OFFICE, VPN, OFFICE, VPN):
        assert not watch.see(where).moved
    assert watch.active() == set()
    apart = Watch()
    apart.begun(OFFICE)
    apart.begun(VPN)
    assert apart.begun(OFFICE) == [Signal.SHARED]


def test_a_narrower_prefix_tells_neighbours_apart() -> None:
    watch = Watch(prefix_v4=32)
    watch.begun(HOME)
    watch.begun(NEXT_DOOR)
    assert watch.begun(HOME) == [Signal.SHARED]


def test_a_workload_may_be_at_many_places() -> None:
    watch = Watch()
    far = Whereabouts("203.0.113.5", "us", "US", NEW_YORK)
    near = Whereabouts("192.0.2.7", "nl", "NL", AMSTERDAM)
    for where in (near, far, near, far):
        found = watch.see(where, many=True)
        assert (found.begun, found.moved) == ((), "")


def test_credentials_are_apart() -> None:
    watch = Watch()
    watch.begun(HOME)
    watch.begun(CAFE, credential="key-2")
    assert watch.begun(HOME) == []


# Travel


def at(place: tuple[float, float], ip: str) -> Whereabouts:
    return Whereabouts(ip, "unknown", None, place)


def test_nobody_flies_to_new_york_in_an_hour() -> None:
    watch = Watch()
    watch.begun(at(AMSTERDAM, "192.0.2.7"))
    found = watch.see(at(NEW_YORK, "203.0.113.5"), after=3600)
    (oddity,) = found.begun
    assert oddity.signal is Signal.TRAVEL
    assert "5,86" in oddity.odd
    assert "60 minutes" in oddity.odd
    assert "900 km/h" in oddity.odd


def test_the_speed_is_the_edge() -> None:
    # 5,862 km at 900 km/h take 23,446 s.
    slow, fast = Watch(), Watch()
    for watch in (slow, fast):
        watch.begun(at(AMSTERDAM, "192.0.2.7"))
    assert slow.begun(at(NEW_YORK, "203.0.113.5"), after=23_500) == []
    assert fast.begun(at(NEW_YORK, "203.0.113.5"), after=23_400) == [Signal.TRAVEL]


def test_the_next_town_is_no_journey() -> None:
    watch = Watch()
    watch.begun(at(AMSTERDAM, "192.0.2.7"))
    assert watch.begun(at(UTRECHT, "203.0.113.5")) == []
    strict = Watch(travel_distance=10)
    strict.begun(at(AMSTERDAM, "192.0.2.7"))
    assert strict.begun(at(UTRECHT, "203.0.113.5")) == [Signal.TRAVEL]


def test_a_stop_nobody_can_locate_hides_no_journey() -> None:
    watch = Watch()
    watch.begun(at(AMSTERDAM, "192.0.2.7"))
    assert watch.begun(OFFICE) == []
    assert watch.begun(at(NEW_YORK, "203.0.113.5"), after=60) == [Signal.TRAVEL]


def test_without_coordinates_nobody_travels() -> None:
    watch = Watch()
    watch.begun(HOME)
    assert watch.begun(at(NEW_YORK, "203.0.113.5")) == []


# Clients


def test_another_program_than_ever_before_is_told_once() -> None:
    watch = Watch(client_learned=600, signals_last=900)
    assert watch.begun(client="openai") == []
    assert watch.begun(client="boto3", after=500) == []
    assert watch.begun(client="openai", after=200) == []
    (oddity,) = watch.see(client="curl").begun
    assert oddity.signal is Signal.CLIENT
    assert oddity.odd == "the program is `curl`; so far this credential was used by `boto3`, `openai` only"
    assert oddity.before.sighting.client == "openai"
    assert watch.begun(client="curl") == []
    # The episode ends by itself; from then on it is one of its programs.
    assert watch.begun(client="curl", after=900) == []
    assert watch.active() == set()
    assert watch.begun(client="wget") == [Signal.CLIENT]


def test_a_service_that_is_used_by_hand_is_odd_too() -> None:
    watch = Watch()
    watch.begun(client="python-requests", many=True)
    assert watch.begun(client="curl", many=True, after=601) == [Signal.CLIENT]


# Episodes


def test_one_episode_is_told_once_and_ends_after_its_time() -> None:
    watch = Watch(signals_last=900)
    watch.begun(HOME)
    watch.begun(CAFE)
    assert watch.begun(HOME) == [Signal.SHARED]
    going_on = watch.see(CAFE, after=200)
    assert not going_on.begun
    assert [one.signal for one in going_on.going_on] == [Signal.SHARED]
    watch.clock.advance(899)
    assert watch.active() == {Signal.SHARED}
    watch.clock.advance(1)
    assert watch.active() == set()
    watch.begun(HOME)
    watch.begun(CAFE)
    assert Signal.SHARED in watch.begun(HOME)


def test_a_new_owner_takes_over_what_goes_on_and_nothing_from_another_boot() -> None:
    before, after = Watch(), Watch()
    for where in (HOME, CAFE, HOME):
        odd = before.see(where).begun
    after.clock.advance(3)
    after.sightings.restore(odd)
    assert after.active() == {Signal.SHARED}
    other_boot = Watch()
    other_boot.sightings.restore(tuple(rules.msgspec.structs.replace(one, until=1e9) for one in odd))
    assert other_boot.active() == set()


def test_memory_is_bounded_and_forgets_whom_it_has_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MOST_CREDENTIALS", 3)
    watch = Watch(remember=1000)
    for number in range(10):
        watch.see(credential=f"key-{number}")
    assert len(watch.sightings) == 3
    for number in range(100):
        watch.see(Whereabouts(f"10.{number}.1.1", "unknown"), credential="key-9", client=f"c{number}")
    past = watch.sightings._known["key-9"]  # noqa: SLF001 -- what is bounded is inside
    assert len(past.stays) <= 16
    assert len(past.clients) <= 16
    watch.clock.advance(1001)
    watch.sightings.tidy()
    assert len(watch.sightings) == 0


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="twice as long"):
        NetworkSettings(shared_within=60, notice_every=60)
    with pytest.raises(ValidationError, match="listed twice"):
        NetworkSettings(together=(("office", "vpn"), ("vpn", "lab")))


# A gateway's side


class Side:
    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock(datetime(2026, 11, 23, 12, tzinfo=UTC))
        self.watched = Watched(NetworkSettings(**settings), self.clock)
        self.watched.connected()

    def due(self, where: Whereabouts = HOME, **more: Any) -> Due:
        sighting = seen(where, **more)
        due = self.watched.due(sighting)
        if due is not Due.NOTHING:
            self.watched.told(sighting)
        return due


def test_only_what_is_new_is_asked_and_the_rest_told_now_and_then() -> None:
    side = Side(notice_every=60)
    assert side.due() is Due.ASK
    assert [side.due() for _ in range(3)] == [Due.NOTHING] * 3
    assert side.due(client="boto3") is Due.ASK
    assert side.due(CAFE) is Due.ASK
    assert side.due(HOME) is Due.ASK
    side.clock.advance(60)
    assert side.due(HOME) is Due.TELL
    assert side.due(HOME) is Due.NOTHING


def test_use_seen_by_another_gateway_makes_ours_a_change_of_place() -> None:
    side = Side()
    side.due(HOME)
    side.watched.moved("key-1", "network 203.0.113.0/24")
    assert side.due(HOME) is Due.ASK


def test_a_workload_on_many_hosts_asks_once() -> None:
    side = Side()
    assert side.due(HOME, many=True) is Due.ASK
    assert side.due(CAFE, many=True) is Due.NOTHING


def test_signals_are_unknown_while_the_owner_missed_something() -> None:
    side = Side()
    side.watched.not_told(seen())
    assert side.watched.signals("key-1") == {"signals-unknown"}
    assert side.watched.signals("key-2") == frozenset()
    assert [message.sighting for message in side.watched.connected()] == [seen()]
    assert side.watched.signals("key-1") == frozenset()


def test_a_short_absence_of_the_owner_is_borne_and_a_long_one_told() -> None:
    side = Side()
    side.due()
    side.watched.disconnected()
    side.clock.advance(5)
    assert side.watched.signals("key-1") == frozenset()
    side.clock.advance(1)
    assert side.watched.signals("key-1") == {"signals-unknown"}


def test_what_is_odd_is_kept_until_its_end_and_told_to_a_new_owner() -> None:
    watch, side = Watch(), Side()
    for where in (HOME, CAFE, HOME):
        odd = watch.see(where).begun
    raised: list[Any] = []
    side.watched.on_raised(raised.append)
    before = side.watched.changed
    side.watched.odd(odd, ours=True)
    assert side.watched.changed > before
    assert raised == list(odd)
    side.watched.odd(odd, ours=False)
    assert raised == list(odd)
    assert side.watched.signals("key-1") == {"shared-credential"}
    (still,) = side.watched.connected()
    assert still.oddities == list(odd)
    side.clock.advance(1000)
    assert side.watched.signals("key-1") == frozenset()
    assert side.watched.connected() == []
