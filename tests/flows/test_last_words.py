"""A stream that breaks off says why, in the protocol's own form, and still does not look whole."""

from __future__ import annotations

import asyncio

import pytest

from doorward.core.errors import UnavailableError
from doorward.core.model import EntityUid
from doorward.gateway.body import AnswerCutError

EVENTS = [("Content-Type", "text/event-stream; charset=utf-8")]


@pytest.fixture
def allowed(stage):
    stage.point.allow(EntityUid.of("User", "dana"), "invoke", EntityUid.of("Model", "llm/smollm2"))
    return stage


async def read(answer):
    """Return what came, and what it ended with."""
    found = []
    try:
        async for chunk in answer.body:
            found.append(chunk)  # noqa: PERF401 -- what came before the error counts
    except Exception as error:  # noqa: BLE001 -- that is what is asked
        return b"".join(found), error
    return b"".join(found), None


async def test_an_upstream_that_breaks_off_is_said_as_an_event(allowed):
    allowed.answers(b"data: 1\n\n", UnavailableError("gone", code="upstream_unavailable"), headers=EVENTS)
    said, error = await read(await allowed.flow.handle(allowed.request()))
    assert said == b"data: 1\n\ndata: upstream_unavailable\n\n"
    assert isinstance(error, UnavailableError)
    assert allowed.log.records[-1].outcome["ended"] == "upstream_failed"
    assert allowed.log.records[-1].outcome["bytes"] == 9


async def test_a_cut_is_said_as_an_event(allowed):
    allowed.answers(b"data: 1\n\n", asyncio.Event(), headers=EVENTS)
    answer = await allowed.flow.handle(allowed.request())
    assert await anext(answer.body) == b"data: 1\n\n"
    reading = asyncio.create_task(read(answer))
    await asyncio.sleep(0)
    allowed.authenticator.valid = False
    await allowed.open.sweep()
    said, error = await reading
    assert said == b"data: denied\n\n"
    assert isinstance(error, AnswerCutError)
    assert allowed.log.records[-1].outcome["ended"] == "cut"


@pytest.mark.parametrize(
    ("headers", "first"), [([("Content-Type", "text/plain")], b"data: 1\n\n"), (EVENTS, b"data: half an ev")]
)
async def test_nothing_is_said_in_another_format_or_in_the_middle_of_an_event(allowed, headers, first):
    allowed.answers(first, UnavailableError("gone", code="upstream_unavailable"), headers=headers)
    said, error = await read(await allowed.flow.handle(allowed.request()))
    assert said == first
    assert isinstance(error, UnavailableError)


async def test_a_stream_that_ends_well_says_nothing_more(allowed):
    allowed.answers(b"data: 1\n\n", b"data: [DONE]\n\n", headers=EVENTS)
    assert await read(await allowed.flow.handle(allowed.request())) == (b"data: 1\n\ndata: [DONE]\n\n", None)
