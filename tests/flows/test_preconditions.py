"""A caller may demand a decision on nothing older: it waits, it is refused, it is never decided before."""

from __future__ import annotations

import json

from doorward.core.errors import UnauthenticatedError
from doorward.core.model import EntityUid
from doorward.core.versions import PATIENCE, AtLeast

DANA = EntityUid.of("User", "dana")
MODEL = EntityUid.of("Model", "llm/smollm2")
HEADER = "doorward-at-least"


def header(answer, name):
    return next((value for key, value in answer.headers if key.lower() == name.lower()), None)


async def test_what_is_already_there_is_decided_at_once(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    answer, _ = await stage.play(headers=((HEADER, "v42 sha256:" + "0" * 64),))
    assert answer.status == 503  # another bundle than the one that is demanded
    stage.answers(b"hi")
    answer, _ = await stage.play(headers=((HEADER, "v42"),))
    assert answer.status == 200
    assert stage.point.waited[-1] == (AtLeast(42), PATIENCE)
    assert not any(name.startswith("doorward") for name in stage.upstream.seen[-1][2])


async def test_what_does_not_arrive_is_503_with_a_time_and_nothing_goes_on(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    answer, body = await stage.play(headers=((HEADER, "v43"),))
    told = json.loads(body)
    assert (answer.status, told["code"], header(answer, "Retry-After")) == (503, "unavailable", "1")
    assert "v43" in told["detail"]
    assert stage.point.asked == []
    assert stage.diary == ["record:decision:deny:unavailable"]


async def test_a_standpoint_that_went_back_while_it_was_read_is_not_decided_on(stage):
    stage.point.allow(DANA, "invoke", MODEL)

    async def arrives(_demand, _seconds):
        stage.point.version = 41  # a restored directory: older than what was waited for

    stage.point.at_least = arrives
    answer, _ = await stage.play(headers=((HEADER, "v42"),))
    assert answer.status == 503
    assert stage.point.asked == []


async def test_who_is_not_known_does_not_wait(stage):
    stage.authenticator.fault = UnauthenticatedError("no credential")
    answer, _ = await stage.play(headers=((HEADER, "v43"),))
    assert answer.status == 401
    assert stage.point.waited == []


async def test_words_that_name_no_version_and_two_of_them_are_400(stage):
    for headers in (((HEADER, "latest"),), ((HEADER, "v1"), (HEADER, "v2"))):
        answer, _ = await stage.play(headers=headers)
        assert answer.status == 400
    assert stage.point.asked == []
