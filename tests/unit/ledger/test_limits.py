from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from doorward.core.clock import ManualClock
from doorward.core.errors import UnavailableError
from doorward.core.obligation import Budget, Limit
from doorward.core.ports import LimitExceeded
from support.shared import Shared

FIVE = Limit("p", 5, 60)


@pytest.fixture
def clock():
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def limits(clock):
    return Shared(clock)


async def use(limits, key="a", obligation=FIVE):
    return await limits.reserve(((key, obligation),))


async def test_no_span_of_the_unit_ever_holds_more_than_the_limit(limits, clock):
    passed = []
    for _ in range(1000):
        try:
            await use(limits)
            passed.append(clock.monotonic())
        except LimitExceeded:
            pass
        clock.advance(1.7)
    for start in passed:
        assert sum(1 for at in passed if start <= at < start + 60) <= 5
    assert len(passed) > 100


async def test_the_wait_is_until_the_oldest_use_leaves(limits, clock):
    for _ in range(5):
        await use(limits)
        clock.advance(1)
    with pytest.raises(LimitExceeded) as reached:
        await use(limits)
    assert reached.value.retry_after == 55
    clock.advance(55)
    await use(limits)


async def test_all_or_none(limits):
    await use(limits, "b", Limit("q", 1, 60))
    with pytest.raises(LimitExceeded) as reached:
        await limits.reserve((("a", FIVE), ("b", Limit("q", 1, 60))))
    assert reached.value.obligation.policy == "q"
    for _ in range(5):
        await use(limits)


async def test_release_gives_back_once(limits):
    held = [await use(limits) for _ in range(5)]
    await held[0].release()
    await held[0].release()
    await use(limits)
    with pytest.raises(LimitExceeded):
        await use(limits)


async def test_what_is_settled_cannot_be_released(limits):
    held = [await use(limits) for _ in range(5)]
    await held[0].settle(0)
    await held[0].release()
    with pytest.raises(LimitExceeded):
        await use(limits)


async def test_a_budget_counts_what_was_really_used(limits, clock):
    tokens = Budget("b", 100, "tokens", 60)
    held = await use(limits, "a", tokens)
    await held.settle(120)
    with pytest.raises(LimitExceeded):
        await use(limits, "a", tokens)
    clock.advance(60)
    await use(limits, "a", tokens)


async def test_counters_of_others_are_their_own(limits):
    for _ in range(5):
        await use(limits, "a")
    await use(limits, "b")


async def test_two_hundred_at_once_on_fifty_pass_exactly_fifty(limits):
    fifty = Limit("p", 50, 60)

    async def attempt():
        await asyncio.sleep(0)
        try:
            await use(limits, "a", fifty)
        except LimitExceeded:
            return 0
        return 1

    assert sum(await asyncio.gather(*(attempt() for _ in range(200)))) == 50


async def test_memory_is_bounded_and_no_room_refuses(clock):
    limits = Shared(clock, max_windows=3)
    for name in "abc":
        await use(limits, name)
    with pytest.raises(UnavailableError):
        await use(limits, "d")
    clock.advance(60)
    await use(limits, "d")
