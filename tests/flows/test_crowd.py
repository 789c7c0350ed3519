"""How many requests of one principal may be under way at once, and that every ending frees a place."""

from __future__ import annotations

import asyncio

import pytest

from doorward.core.errors import UnavailableError
from doorward.core.identity import Caller
from doorward.core.model import EntityUid

MODEL = EntityUid.of("Model", "llm/smollm2")
DANA = EntityUid.of("User", "dana")
OMAR = EntityUid.of("User", "omar")


@pytest.fixture
def narrow(build_stage):
    stage = build_stage(streams_per_principal=2)
    stage.point.allow(DANA, "invoke", MODEL)
    stage.point.allow(OMAR, "invoke", MODEL)
    return stage


async def opened(stage):
    """Open a stream that goes on until its event is set."""
    go_on = asyncio.Event()
    stage.answers(b"first", go_on, b"last")
    answer = await stage.flow.handle(stage.request())
    assert answer.status == 200
    await anext(answer.body)
    return answer, go_on


async def test_one_more_than_allowed_is_429_and_on_record_and_others_go_on(narrow, entire):
    first, second = await opened(narrow), await opened(narrow)
    refused, _ = await narrow.play()
    assert refused.status == 429
    assert ("Retry-After", "1") in refused.headers
    assert narrow.log.records[-1].code == "limit_exceeded"
    narrow.authenticator.caller = Caller(principal=OMAR, credential="key-2", method="key")
    await opened(narrow)
    narrow.authenticator.caller = Caller(principal=DANA, credential="key-1", method="key")
    first[1].set()
    await entire(first[0])
    third = await opened(narrow)
    for answer, _ in (second, third):
        await answer.body.aclose()


@pytest.mark.parametrize(
    "ending", ["read", "left", "cut", "denied", "unrecorded", "unreachable", "cancelled"]
)
async def test_every_ending_frees_its_place(narrow, entire, ending):
    for _ in range(5):
        match ending:
            case "read":
                answer, go_on = await opened(narrow)
                go_on.set()
                await entire(answer)
            case "left":
                answer, _ = await opened(narrow)
                await answer.body.aclose()
            case "cut":
                answer, _ = await opened(narrow)
                narrow.authenticator.valid = False
                reading = asyncio.create_task(entire(answer))
                await asyncio.sleep(0)
                await narrow.open.sweep()
                with pytest.raises(Exception, match="ended"):
                    await reading
                narrow.authenticator.valid = True
            case "denied":
                narrow.adapter.kept = frozenset()
                assert (await narrow.play(body=b'{"model":"other"}'))[0].status in {403, 404}
            case "unrecorded":
                narrow.log.full = True
                assert (await narrow.play())[0].status == 503
                narrow.log.full = False
            case "unreachable":
                narrow.upstream.answers.append(UnavailableError("gone", code="upstream_unavailable"))
                assert (await narrow.play())[0].status == 502
            case "cancelled":
                narrow.upstream.answers.append(asyncio.Event())
                narrow.upstream.called.clear()
                task = asyncio.create_task(narrow.flow.handle(narrow.request()))
                await narrow.upstream.called.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
    # Five endings, two places: each was given back.
    for answer, _ in (await opened(narrow), await opened(narrow)):
        await answer.body.aclose()
