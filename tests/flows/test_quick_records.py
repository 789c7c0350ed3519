"""The usual request's records are encoded straight from their structs: the long way costs much more."""

from __future__ import annotations

from doorward.audit import draft
from doorward.core.identity import Caller, Method
from doorward.core.model import EntityUid

DANA = EntityUid.of("User", "dana")


async def test_decision_and_outcome_of_a_usual_request_take_the_quick_way(stage):
    stage.authenticator.caller = Caller(principal=DANA, credential="key-1", method=Method.API_KEY)
    stage.point.allow(DANA, "invoke", EntityUid.of("Model", "llm/smollm2"))
    stage.answers(b"hello")
    await stage.play()
    assert [record.kind for record in stage.log.records] == ["decision", "outcome"]
    for record in stage.log.records:
        assert draft._quick(record) is not None, record  # noqa: SLF001 -- which way was taken shows nowhere else


async def test_the_record_of_a_refusal_takes_the_quick_way(stage):
    stage.authenticator.caller = Caller(principal=DANA, credential="key-1", method=Method.TOKEN)
    await stage.play()
    assert draft._quick(stage.log.records[0]) is not None  # noqa: SLF001 -- as above
