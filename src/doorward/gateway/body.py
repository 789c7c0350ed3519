"""Bodies on their way: bounded going in, watched going out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from doorward.core.errors import InvalidRequestError
from doorward.core.wire import Body, Request
from doorward.gateway.streams import OpenAnswer
from doorward.http1.incoming import IncomingBody, too_large


class AnswerCutError(Exception):
    """Raised to whoever reads an answer that a decision ended."""


def declared_length(request: Request) -> int | None:
    """Return the Content-Length, None for a chunked body or none."""
    length = request.header("content-length")
    return int(length) if length is not None else None


class BoundedBody:
    """Pass a body on as it arrives, and fail once it is over its bound; never holds it."""

    def __init__(self, body: Body, limit: int) -> None:
        """Bound `body` to `limit` bytes."""
        self._body = body
        self._limit = limit

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body; raise PayloadTooLargeError past the bound."""
        passed = 0
        async for chunk in self._body.chunks():
            passed += len(chunk)
            if passed > self._limit:
                raise too_large(self._limit)
            yield chunk


async def whole(request: Request, *, limit: int, seconds: float) -> bytes:
    """Read a whole body; raise PayloadTooLargeError before reading what is declared too large.

    `seconds` is the deadline of the whole body (408).
    """
    if (declared_length(request) or 0) > limit:
        raise too_large(limit)
    arriving = request.body
    if isinstance(arriving, IncomingBody):
        return await arriving.whole(limit=limit, seconds=seconds)
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(seconds):
            parts += [chunk async for chunk in BoundedBody(request.body, limit).chunks()]
    except TimeoutError:
        raise InvalidRequestError(
            f"the body did not arrive within {seconds:g} seconds", code="request_timeout"
        ) from None
    return b"".join(parts)


class WatchedBody:
    """Hand an open answer to the caller chunk by chunk, count it, and tell how it ended, once.

    `ended` is called with `complete`, `client_left`, `cut` or `upstream_failed` and the bytes passed.
    `last_words` returns what is still said, in the protocol's own form, before an answer breaks off.
    A class and not a generator: closing a generator that never started would tell nothing.
    """

    def __init__(
        self,
        source: AsyncIterator[bytes],
        open_answer: OpenAnswer,
        ended: Callable[[str, int], Awaitable[None]],
        *,
        last_words: Callable[[str], bytes] | None = None,
    ) -> None:
        """Watch `source`."""
        self._last_words = last_words
        self._between_events = True
        self._broken: BaseException | None = None
        self._source = source
        self._open = open_answer
        self._ended = ended
        self._bytes = 0
        self._over = False

    def __aiter__(self) -> WatchedBody:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk; raise AnswerCutError once a decision ended the answer."""
        if self._broken is not None:
            raise self._broken
        if self._over:
            raise StopAsyncIteration
        self._open.carried()
        if self._open.is_cut:
            return await self._break_off("cut", AnswerCutError(self._open.cut_reason))
        try:
            chunk = await anext(self._source)
        except StopAsyncIteration:
            await self._end("complete")
            raise
        except asyncio.CancelledError:
            if self._open.absorb():
                return await self._break_off("cut", AnswerCutError(self._open.cut_reason))
            await self._end("client_left")
            raise
        except Exception as error:  # noqa: BLE001 -- whatever broke it is raised, after the last words
            return await self._break_off("upstream_failed", error)
        except BaseException:
            await self._end("upstream_failed")
            raise
        self._bytes += len(chunk)
        if self._last_words is not None:
            self._between_events = chunk.endswith((b"\n\n", b"\r\n\r\n"))
        return chunk

    async def _break_off(self, how: str, error: Exception) -> bytes:
        """End the answer; return its last words if there are any, and raise `error` then or next."""
        await self._end(how)
        # In the middle of an event more words would only spoil it.
        if self._last_words is None or not self._between_events:
            raise error
        self._broken = error
        return self._last_words(how)

    async def aclose(self) -> None:
        """End the answer before its end: the client left, or a decision cut it."""
        await self._end("cut" if self._open.is_cut else "client_left")

    async def _end(self, how: str) -> None:
        if self._over:
            return
        self._over = True
        close = getattr(self._source, "aclose", None)
        try:
            if close is not None:
                await close()
        finally:
            await self._ended(how, self._bytes)
