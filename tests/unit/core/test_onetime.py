from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from doorward.core.clock import ManualClock
from doorward.core.errors import UnavailableError
from doorward.core.onetime import MemoryOneTime, OneTimeTable, mark_of

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START.timestamp()


async def test_of_fifty_claims_at_once_one_is_first():
    store = MemoryOneTime(ManualClock(START))
    claims = [store.claim("dpop", "jti-1", expires=NOW + 60) for _ in range(50)]
    assert sum(await asyncio.gather(*claims)) == 1


async def test_kinds_do_not_know_each_other():
    store = MemoryOneTime(ManualClock(START))
    assert await store.claim("dpop", "x", expires=NOW + 60)
    assert await store.claim("totp", "x", expires=NOW + 60)


async def test_what_has_expired_is_never_first():
    clock = ManualClock(START)
    store = MemoryOneTime(clock)
    assert not await store.claim("dpop", "x", expires=NOW)
    assert await store.claim("dpop", "x", expires=NOW + 10)
    clock.advance(10)
    assert not await store.claim("dpop", "x", expires=NOW + 10)


async def test_a_mark_is_remembered_to_its_last_moment_and_then_forgotten():
    clock = ManualClock(START)
    store = MemoryOneTime(clock)
    assert await store.claim("dpop", "x", expires=NOW + 10.9)
    clock.advance(10.8)
    assert not await store.claim("dpop", "x", expires=NOW + 500)
    clock.advance(1.3)
    assert await store.claim("dpop", "y", expires=NOW + 500)
    assert len(store) == 1


def test_a_full_kind_refuses_and_the_others_go_on():
    table = OneTimeTable(capacity=2)
    for key in "ab":
        assert table.claim("dpop", mark_of("dpop", key), expires=NOW + 60, now=NOW)
    with pytest.raises(UnavailableError, match="dpop"):
        table.claim("dpop", mark_of("dpop", "c"), expires=NOW + 60, now=NOW)
    assert not table.claim("dpop", mark_of("dpop", "a"), expires=NOW + 60, now=NOW)
    assert table.claim("totp", mark_of("totp", "c"), expires=NOW + 60, now=NOW)


def test_a_repeated_claim_counts_for_the_seconds_allowed_after_the_first_and_never_before_it():
    table = OneTimeTable()
    ask = {"expires": NOW + 60, "again_within": 2.0}
    assert table.claim("w", b"m", now=NOW + 10, **ask)
    assert table.claim("w", b"m", now=NOW + 11.9, **ask)
    assert not table.claim("w", b"m", now=NOW + 12, **ask)
    assert not table.claim("w", b"m", now=NOW + 9, **ask)


def test_the_key_cannot_be_read_from_what_is_kept():
    table = OneTimeTable()
    table.claim("totp", mark_of("totp", "dana 123456"), expires=NOW + 60, now=NOW)
    assert b"123456" not in repr(table.remembered()).encode()
