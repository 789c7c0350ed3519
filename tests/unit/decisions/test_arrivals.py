"""Waiting for versions: woken by events, bounded in time and number, never satisfied by anything older."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from doorward.core.errors import BehindError
from doorward.core.feed import Bundle, Delta
from doorward.core.versions import AtLeast
from doorward.decisions import arrivals
from doorward.decisions.arrivals import at_least, at_least_blocking, meets
from doorward.decisions.point import DecisionPoint
from doorward.directory.snapshot import Snapshot

LONG = 60.0


@pytest.fixture
def point(starter: Bundle, story: Snapshot) -> DecisionPoint:
    made = DecisionPoint()
    made.publish(starter)
    made.advance(story)
    return made


def next_of(snapshot: Snapshot) -> Snapshot:
    return snapshot.with_delta(Delta(version=snapshot.version + 1))


def test_met_is_that_version_or_a_later_one_and_that_very_bundle(
    point: DecisionPoint, story: Snapshot
) -> None:
    now, bundle = story.version, point.pin().bundle_digest
    assert meets(point, AtLeast(now))
    assert meets(point, AtLeast(now, bundle))
    assert meets(point, AtLeast())
    assert not meets(point, AtLeast(now + 1))
    assert not meets(point, AtLeast(now, "sha256:00"))
    assert not meets(DecisionPoint(), AtLeast())


async def test_it_ends_as_soon_as_the_version_is_there(point: DecisionPoint, story: Snapshot) -> None:
    waiting = asyncio.create_task(at_least(point, AtLeast(story.version + 2), LONG))
    await asyncio.sleep(0)
    first = next_of(story)
    point.advance(first)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    # From another thread, as in the control process.
    thread = threading.Thread(target=point.advance, args=(next_of(first),))
    thread.start()
    async with asyncio.timeout(LONG):
        await waiting
    thread.join()
    assert point.arrivals._wakers == set()  # noqa: SLF001 -- nobody is left behind


async def test_what_does_not_come_in_time_is_an_error_that_says_so(
    point: DecisionPoint, story: Snapshot
) -> None:
    before = time.monotonic()
    with pytest.raises(BehindError, match=f"v{story.version + 1}") as raised:
        await at_least(point, AtLeast(story.version + 1), 0.05)
    assert time.monotonic() - before < LONG
    assert raised.value.retry_after == 1
    assert point.arrivals._wakers == set()  # noqa: SLF001


async def test_one_who_leaves_waits_no_longer(point: DecisionPoint, story: Snapshot) -> None:
    waiting = asyncio.create_task(at_least(point, AtLeast(story.version + 1), LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert point.arrivals._wakers == set()  # noqa: SLF001


async def test_no_more_than_a_bound_may_wait(
    point: DecisionPoint, story: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "_MOST", 2)
    demand = AtLeast(story.version + 1)
    tasks = [asyncio.create_task(at_least(point, demand, LONG)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(BehindError):
        await at_least(point, demand, LONG)
    point.advance(next_of(story))
    async with asyncio.timeout(LONG):
        await asyncio.gather(*tasks)


def test_a_thread_may_wait_too(point: DecisionPoint, story: Snapshot) -> None:
    with pytest.raises(BehindError):
        at_least_blocking(point, AtLeast(story.version + 1), 0.01)
    thread = threading.Thread(target=at_least_blocking, args=(point, AtLeast(story.version + 1), LONG))
    thread.start()
    point.advance(next_of(story))
    thread.join(LONG)
    assert not thread.is_alive()
