"""What waits, waits for a while and for one; failures are counted by whoever fails."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from doorward.console.oauth.pending import Waiting
from doorward.console.oauth.refusal import OAuthError
from doorward.console.oauth.throttle import Throttle
from doorward.core.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 23, tzinfo=UTC))


def test_what_waits_is_taken_once(clock: ManualClock) -> None:
    waiting: Waiting[str] = Waiting(clock, 60)
    secret = waiting.put("x")
    assert (waiting.get(secret), waiting.take(secret), waiting.take(secret)) == ("x", "x", None)
    assert waiting.get("guess") is None


def test_what_waits_is_over_at_its_time(clock: ManualClock) -> None:
    waiting: Waiting[str] = Waiting(clock, 60)
    first, second = waiting.put("x"), waiting.put("y")
    clock.advance(59.9)
    assert waiting.get(first) == "x"
    clock.advance(0.1)
    assert (waiting.get(first), waiting.take(second)) == (None, None)


def test_so_many_wait_and_no_more_and_room_comes_back(clock: ManualClock) -> None:
    waiting: Waiting[int] = Waiting(clock, 60)
    for number in range(2000):
        waiting.put(number)
    with pytest.raises(OAuthError) as busy:
        waiting.put(0)
    assert (busy.value.error, busy.value.status) == ("temporarily_unavailable", 503)
    clock.advance(60)
    assert waiting.put(1)


def test_failures_are_counted_for_a_minute_each_for_itself(clock: ManualClock) -> None:
    throttle = Throttle(clock, most=2)
    throttle.failed("a")
    throttle.require("a")
    throttle.failed("a")
    with pytest.raises(OAuthError) as refused:
        throttle.require("a")
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "61"})
    throttle.require("b")
    clock.advance(60)
    throttle.require("a")
    throttle.failed("a")
    throttle.require("a")
