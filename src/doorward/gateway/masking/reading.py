"""Read a window of an object through its mask: from the nearest record start, only the window given out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import msgspec

from doorward.core.errors import UnavailableError
from doorward.gateway.masking.known import KnownObject
from doorward.gateway.masking.masker import HEAD_BYTES, Masker
from doorward.gateway.masking.plan import Labels, plan_mask

# How far past the window is read at once to see the end of its last record.
_BEYOND = 64 * 1024
# The most that is masked in one go, so that other requests get their turn.
_PIECE = 128 * 1024

Fetch = Callable[[int, int], AsyncGenerator[bytes, None]]


class MaskedRead(msgspec.Struct, frozen=True, kw_only=True):
    """State one read: bytes `start` to `stop` (exclusive) of `total`; `fetch` yields original bytes.

    `count` is told how many values were blanked in what was given out.
    """

    start: int
    stop: int
    total: int
    fields: frozenset[str]
    labels: Labels
    fetch: Fetch
    count: Callable[[int], None]


class _Pipeline:
    """Pull original bytes, push masked ones; `position` is the offset behind the last byte masked."""

    def __init__(self, read: MaskedRead, known: KnownObject) -> None:
        self._read = read
        self._known = known
        self.position = known.nearest(read.start)
        self._masker: Masker | None = None if known.plan is None else known.plan.masker(self.position)
        self._head = b""
        self._source = self._pieces(self.position)

    async def _pieces(self, at: int) -> AsyncGenerator[bytes, None]:
        read = self._read
        stop = min(read.total, read.stop + _BEYOND)
        # Without a plan the head is read first, whatever the window.
        stop = max(stop, min(read.total, at + HEAD_BYTES))
        while at < read.total:
            async with aclosing(read.fetch(at, stop)) as chunks:
                async for chunk in chunks:
                    at += len(chunk)
                    for cut in range(0, len(chunk), _PIECE):
                        yield chunk[cut : cut + _PIECE]
            if at != stop:
                raise changed()
            stop = min(read.total, at + _BEYOND * 16)

    async def step(self) -> bytes | None:
        """Return the next masked bytes (maybe none yet), or None after the last."""
        try:
            piece = await anext(self._source)
        except StopAsyncIteration:
            return await self._last()
        if self._masker is None:
            self._head += piece
            if len(self._head) < HEAD_BYTES:
                return b""
            piece = self._plan(final=len(self._head) == self._read.total)
        return self._emitted(self._fed(piece))

    async def _last(self) -> bytes | None:
        if self.position >= self._read.total:
            return None
        before = self._fed(self._plan(final=True)) if self._masker is None else b""
        masker = self._masker
        if masker is None:
            raise changed()
        redactions = masker.redactions
        # A whole document is masked here, at once: beside the loop, not in it.
        rest = before + await asyncio.to_thread(masker.finish)
        self._count(masker.redactions - redactions, len(rest))
        out = self._emitted(rest)
        if self.position != self._read.total:
            raise changed()
        return out

    def _plan(self, *, final: bool) -> bytes:
        """Decide how to mask, from the first bytes; return all that was held back for it."""
        read = self._read
        plan = plan_mask(read.labels, fields=read.fields, head=self._head[:HEAD_BYTES], final=final)
        self._known.plan = plan
        self._masker = plan.masker(0)
        held, self._head = self._head, b""
        return held

    def _fed(self, piece: bytes) -> bytes:
        masker = self._masker
        if masker is None:
            raise changed()
        redactions = masker.redactions
        out = masker.feed(piece)
        self._count(masker.redactions - redactions, len(out))
        return out

    def _count(self, redactions: int, size: int) -> None:
        if redactions and self.position + size > self._read.start:
            self._read.count(redactions)

    def _emitted(self, out: bytes) -> bytes:
        self.position += len(out)
        if out and self._known.plan is not None and self._known.plan.resumable:
            self._known.note(self.position)
        return out

    async def close(self) -> None:
        await self._source.aclose()


def changed() -> UnavailableError:
    """Return the error for an object that is not the one the answer began with."""
    return UnavailableError("the object changed while it was read", hint="Read it again.")


async def read_masked(read: MaskedRead, known: KnownObject) -> AsyncIterator[bytes]:
    """Return the masked bytes of the window, once the first of them are ready.

    Raise MaskRefusedError or UnavailableError before anything is given out, or from the iterator: then
    what was given out is masked and the answer must be cut.
    """
    if read.start >= read.stop:
        return _nothing()
    async with known.lock:
        pipeline = _Pipeline(read, known)
        try:
            first = await _first(pipeline, read)
        except BaseException:
            await pipeline.close()
            raise
    return _rest(pipeline, read, first)


async def _first(pipeline: _Pipeline, read: MaskedRead) -> bytes:
    while True:
        out = await pipeline.step()
        if out is None:
            raise changed()
        if pipeline.position > read.start:
            return (
                out[-(pipeline.position - read.start) :] if pipeline.position - len(out) < read.start else out
            )


async def _rest(pipeline: _Pipeline, read: MaskedRead, first: bytes) -> AsyncIterator[bytes]:
    given = read.start
    out: bytes | None = first
    try:
        while out is not None:
            out = out[: read.stop - given]
            given += len(out)
            if out:
                yield out
            if given >= read.stop:
                return
            out = await pipeline.step()
        raise changed()
    finally:
        await pipeline.close()


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk
