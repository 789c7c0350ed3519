"""Ranges of a masked object: the same bytes as the whole, read once, and never of two versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.core.errors import UnavailableError
from doorward.gateway.masking.known import KnownObject, KnownObjects
from doorward.gateway.masking.plan import Labels, MaskRefusedError
from doorward.gateway.masking.reading import MaskedRead, read_masked

ROW = '{i},"Smith, Jane",jane{i}@x.y,+41\n'
DATA = ("id,name,email,phone\n" + "".join(ROW.format(i=i) for i in range(60_000))).encode()
MASKED = (
    "id,name,email,phone\n"
    + "".join(f'{i},"Smith, Jane",{"*" * len(f"jane{i}@x.y")},***\n' for i in range(60_000))
).encode()
FIELDS = frozenset({"email", "phone"})


class Store:
    def __init__(self, data: bytes, *, key: str = "a.csv", chunk: int = 10_000) -> None:
        self.data, self.key, self.chunk = data, key, chunk
        self.fetched = 0
        self.open = 0

    async def fetch(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        self.open += 1
        try:
            for at in range(start, stop, self.chunk):
                piece = self.data[at : min(stop, at + self.chunk)]
                self.fetched += len(piece)
                await asyncio.sleep(0)
                yield piece
        finally:
            self.open -= 1

    async def read(
        self, start: int, stop: int, known: KnownObject, counted: list[int] | None = None
    ) -> bytes:
        read = MaskedRead(
            start=start,
            stop=stop,
            total=len(self.data),
            fields=FIELDS,
            labels=Labels(self.key, "", ""),
            fetch=self.fetch,
            count=(counted if counted is not None else []).append,
        )
        return b"".join([piece async for piece in await read_masked(read, known)])


@settings(max_examples=60, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, 300_000)), min_size=1, max_size=4),
    chunk=st.integers(1000, 200_000),
)
async def test_any_ranges_in_any_order_are_those_of_the_whole(
    spans: list[tuple[int, int]], chunk: int
) -> None:
    store, known = Store(DATA, chunk=chunk), KnownObject(len(DATA))
    for start, length in spans:
        stop = min(start + length, len(DATA))
        assert await store.read(start, stop, known) == MASKED[start:stop]
    assert store.open == 0


async def test_the_whole_is_masked_and_counted() -> None:
    counted: list[int] = []
    assert await Store(DATA).read(0, len(DATA), KnownObject(len(DATA)), counted) == MASKED
    assert sum(counted) == 120_000


async def test_parallel_ranges_do_not_read_the_object_again_and_again() -> None:
    store, known, part = Store(DATA), KnownObject(len(DATA)), 100_000
    starts = range(0, len(DATA), part)
    parts = await asyncio.gather(*(store.read(s, min(s + part, len(DATA)), known) for s in starts))
    assert b"".join(parts) == MASKED
    # Once to find the rows, once for the parts, and the ends of parts: not once for each part.
    assert store.fetched < 8 * len(DATA)


async def test_a_far_range_read_again_starts_near_it() -> None:
    store, known = Store(DATA), KnownObject(len(DATA))
    await store.read(len(DATA) - 10, len(DATA), known)
    first, store.fetched = store.fetched, 0
    await store.read(len(DATA) - 10, len(DATA), known)
    assert store.fetched < first / 2


async def test_a_document_in_ranges() -> None:
    data = b'{"email": "a@b", "x": [1, 2]}'
    store, known = Store(data, key="a.json"), KnownObject(len(data))
    for start in range(len(data)):
        assert await store.read(start, len(data), known) == b'{"email": "***", "x": [1, 2]}'[start:]


async def test_what_cannot_be_masked_is_refused_before_a_byte_is_given_out() -> None:
    store = Store(b"\x1f\x8b" + b"x" * 100)
    with pytest.raises(MaskRefusedError):
        await store.read(0, 10, KnownObject(102))
    assert store.open == 0


async def test_an_odd_row_far_inside_ends_the_answer_before_it() -> None:
    data = DATA + b"1,x\xff,leak@x.y,2\n"
    store = Store(data)
    read = MaskedRead(
        start=0,
        stop=len(data),
        total=len(data),
        fields=FIELDS,
        labels=Labels("a.csv", "", ""),
        fetch=store.fetch,
        count=lambda _: None,
    )
    out = b""
    with pytest.raises(MaskRefusedError):  # noqa: PT012 -- what came before it is looked at
        async for piece in await read_masked(read, KnownObject(len(data))):
            out += piece
    assert MASKED.startswith(out)
    assert b"leak" not in out
    assert store.open == 0


@pytest.mark.parametrize("change", [-5, 5])
async def test_an_object_that_is_shorter_or_longer_than_it_was_fails(change: int) -> None:
    store = Store(DATA)
    total = len(DATA)
    store.data = DATA[:change] if change < 0 else DATA + b"1,x,y,z\n"[:change]
    read = MaskedRead(
        start=0,
        stop=total,
        total=total,
        fields=FIELDS,
        labels=Labels("a.csv", "", ""),
        fetch=store.fetch,
        count=lambda _: None,
    )
    pieces = b"".join
    if change > 0:
        assert pieces([p async for p in await read_masked(read, KnownObject(total))]) == MASKED
        return
    with pytest.raises(UnavailableError):
        pieces([p async for p in await read_masked(read, KnownObject(total))])


async def test_an_empty_object_gives_nothing() -> None:
    assert await Store(b"").read(0, 0, KnownObject(0)) == b""


async def test_a_caller_who_leaves_frees_the_upstream() -> None:
    store = Store(DATA)
    read = MaskedRead(
        start=0,
        stop=len(DATA),
        total=len(DATA),
        fields=FIELDS,
        labels=Labels("a.csv", "", ""),
        fetch=store.fetch,
        count=lambda _: None,
    )
    body = await read_masked(read, KnownObject(len(DATA)))
    await anext(body)
    await body.aclose()
    assert store.open == 0


def test_what_is_remembered_is_bounded() -> None:
    objects = KnownObjects(capacity=2)
    first = objects.of(("b", Labels("1", "", ""), "e", "m"), 10)
    objects.of(("b", Labels("2", "", ""), "e", "m"), 10)
    assert objects.of(("b", Labels("1", "", ""), "e", "m"), 10) is first
    objects.of(("b", Labels("3", "", ""), "e", "m"), 10)
    assert objects.of(("b", Labels("1", "", ""), "e", "m"), 10) is first
    assert objects.of(("b", Labels("1", "", ""), "other", "m"), 10) is not first
