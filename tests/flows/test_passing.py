"""Allowed requests: what the upstream sees, what the caller sees, and how every ending is recorded."""

from __future__ import annotations

import asyncio

import pytest

from doorward.core.errors import UnavailableError
from doorward.core.model import EntityUid
from doorward.core.obligation import Limit, Mask
from doorward.gateway.body import AnswerCutError
from doorward.gateway.faults import UnreachableError

DANA = EntityUid.of("User", "dana")
MODEL = EntityUid.of("Model", "llm/smollm2")


async def by_itself(task):
    """Return what a task comes to within a second; a timeout would cancel it into the same end."""
    done, _ = await asyncio.wait({task}, timeout=1)
    assert done
    return task.result()


@pytest.fixture
def open_stage(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    return stage


async def test_the_verdict_is_on_record_before_the_upstream_is_called(open_stage):
    open_stage.answers(b"hello ", b"world")
    answer, body = await open_stage.play()
    assert (answer.status, body) == (200, b"hello world")
    assert open_stage.diary == ["record:decision:allow:allowed", "upstream", "record:outcome:complete"]
    decision, outcome = open_stage.log.records
    assert decision.request_id == outcome.request_id == dict(answer.headers)["Doorward-Request-Id"]
    assert outcome.outcome["bytes"] == 11
    assert outcome.outcome["status"] == 200
    assert outcome.outcome["tokens_out"] == 7
    assert open_stage.upstream.given[0].closed
    assert len(open_stage.open) == 0


async def test_identity_forwarding_and_credentials_of_the_caller_stay_outside(open_stage):
    open_stage.answers(b"hi")
    evil = (
        ("x-forwarded-for", "1.1.1.1"), ("x-forwarded-user", "root"), ("forwarded", "for=1.1.1.1"),
        ("x-real-ip", "1.1.1.1"), ("x-user", "root"), ("x-user-id", "1"), ("x-remote-user", "root"),
        ("remote-user", "root"), ("x-original-url", "/admin"), ("x-rewrite-url", "/admin"),
        ("x_user", "root"), ("remote_user", "root"), ("cookie", "session=1"), ("x-api-key", "dw_caller"),
        ("connection", "close, x-hop"), ("x-hop", "1"), ("te", "trailers"), ("doorward-request-id", "forged"),
        ("x-role", "admin"), ("x-stainless-lang", "python"), ("accept", "*/*"),
    )  # fmt: skip
    await open_stage.play(headers=evil)
    method, target, headers, body = open_stage.upstream.seen[0]
    assert (method, target, body) == ("POST", "/invoke", b'{"model":"smollm2"}')
    assert headers == {
        "x-stainless-lang": "python", "accept": "*/*", "authorization": "Bearer upstream-own-key"
    }  # fmt: skip


async def test_what_an_upstream_says_of_itself_stays_inside(open_stage):
    open_stage.answers(
        b"hi",
        headers=[
            ("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Server", "secret/1.0"),
            ("X-Powered-By", "x"),
            ("Transfer-Encoding", "chunked"), ("Connection", "close, X-Hop"), ("X-Hop", "1"), ("X-Bad",
            "a\r\nb: c"),
            ("X-Nul", "a\0"), ("Access-Control-Allow-Origin", "*"), ("Doorward-Request-Id", "forged"),
            ("Location", "http://127.0.0.1:9/inside?x=1"), ("Content-Location", "http://169.254.169.254/"),
            ("ETag", '"1"'),
        ],
    )  # fmt: skip
    answer, _ = await open_stage.play()
    headers = dict(answer.headers)
    identity = headers.pop("Doorward-Request-Id")
    assert headers == {"Content-Type": "text/plain", "ETag": '"1"', "Location": "/llm/inside?x=1"}
    assert identity != "forged"


async def test_a_listing_shows_only_what_may_be_seen(stage):
    stage.point.allow(DANA, "view", MODEL)
    answer, body = await stage.play(method="GET", path="/llm/list")
    assert (answer.status, body) == (200, b"smollm2")
    assert stage.log.records[1].outcome["shown"] == 1
    assert stage.diary == ["record:decision:allow:allowed", "record:outcome:complete"]


async def test_a_streamed_body_goes_up_as_it_came(stage):
    stage.point.allow(DANA, "create", MODEL)
    stage.answers(b"", status=201)
    answer, _ = await stage.play(method="PUT", path="/llm/upload", body=b"weights")
    assert answer.status == 201
    assert stage.upstream.seen[0][3] == b"weights"


async def test_a_streamed_body_over_its_bound_stops_at_the_bound(build_stage):
    stage = build_stage(max_body=4)
    stage.point.allow(DANA, "create", MODEL)
    request = stage.request(method="PUT", path="/llm/upload", body=b"weights")
    headers = tuple(pair for pair in request.headers if pair[0] != "content-length")
    request = type(request)(
        **{f: getattr(request, f) for f in request.__struct_fields__} | {"headers": headers}
    )
    answer = await stage.flow.handle(request)
    assert answer.status == 413
    assert stage.diary[-1] == "record:outcome:refused"


# Upstream faults


async def test_an_upstream_that_is_down_is_502_and_uses_no_limit(stage):
    stage.point.allow(DANA, "invoke", MODEL, Limit("slow", 1, 60))
    stage.upstream.answers.append(UnreachableError("upstream `llm` cannot be reached"))
    answer, _ = await stage.play()
    assert answer.status == 502
    assert stage.diary == ["record:decision:allow:allowed", "upstream", "record:outcome:upstream_failed"]
    stage.answers(b"hi")
    assert (await stage.play())[0].status == 200


async def test_an_upstream_that_is_too_slow_is_504_and_its_use_counts(stage):
    stage.point.allow(DANA, "invoke", MODEL, Limit("slow", 1, 60))
    stage.upstream.answers.append(UnavailableError("upstream `llm` did not answer", code="upstream_timeout"))
    answer, _ = await stage.play()
    assert answer.status == 504
    assert (await stage.play())[0].status == 429


async def test_an_upstream_that_refuses_our_credential_is_502_without_its_words(open_stage):
    inner = open_stage.answers(b"Incorrect API key: upstream-own-key", status=401)
    answer, body = await open_stage.play()
    assert answer.status == 502
    assert b"upstream-own-key" not in body
    assert inner.closed


async def test_an_upstream_that_breaks_off_ends_the_answer_as_broken(open_stage):
    open_stage.answers(b"half", UnavailableError("broken", code="upstream_unavailable"))
    answer = await open_stage.flow.handle(open_stage.request())
    assert await anext(answer.body) == b"half"
    with pytest.raises(UnavailableError):
        await anext(answer.body)
    assert open_stage.diary[-1] == "record:outcome:upstream_failed"
    assert open_stage.upstream.given[0].closed


# Open answers


async def test_a_revoked_key_cuts_an_open_answer_even_while_the_upstream_is_silent(open_stage):
    never = asyncio.Event()
    inner = open_stage.answers(b"first", never)
    answer = await open_stage.flow.handle(open_stage.request())
    assert await anext(answer.body) == b"first"

    async def read_on():
        with pytest.raises(AnswerCutError):
            await anext(answer.body)

    reading = asyncio.create_task(read_on())
    await asyncio.sleep(0)
    open_stage.authenticator.valid = False
    assert await open_stage.open.sweep() == 1
    await by_itself(reading)
    assert inner.closed
    outcome = open_stage.log.records[-1].outcome
    assert (outcome["ended"], outcome["cut_by"], outcome["bytes"]) == ("cut", "the credential ended", 5)


@pytest.mark.parametrize("change", ["deny", "hide_purpose", "new_mask", "no_bundle", "stale", "fault"])
async def test_whatever_would_refuse_now_cuts_what_is_open(stage, change):
    stage.point.allow(DANA, "invoke", MODEL)
    stage.answers(b"first", asyncio.Event())
    answer = await stage.flow.handle(stage.request(headers=(("doorward-purpose", "fraud-model"),)))
    arrived = asyncio.Event()

    async def read_all():
        async for _ in answer.body:
            arrived.set()

    reading = asyncio.create_task(read_all())
    await arrived.wait()
    assert await stage.open.sweep() == 0
    match change:
        case "deny":
            stage.point.allowed.clear()
        case "hide_purpose":
            stage.point.purposes.clear()
        case "new_mask":
            stage.point.allow(DANA, "invoke", MODEL, Mask(("email",)))
        case "no_bundle":
            stage.point.gone = True
        case "stale":
            stage.stale = 1e9
        case "fault":
            stage.point.fault = RuntimeError("x")
    assert await stage.open.sweep() == 1
    with pytest.raises(AnswerCutError):
        await by_itself(reading)
    assert stage.log.records[-1].outcome["ended"] == "cut"


async def test_the_watch_notices_a_change_by_itself(open_stage):
    never = asyncio.Event()
    open_stage.answers(b"first", never)
    answer = await open_stage.flow.handle(open_stage.request())

    async def read_all():
        return [chunk async for chunk in answer.body]

    reading = asyncio.create_task(read_all())
    watching = asyncio.create_task(open_stage.open.watch())
    await asyncio.sleep(0.01)
    open_stage.point.allowed.clear()
    open_stage.point.changed += 1
    with pytest.raises(AnswerCutError):
        await by_itself(reading)
    watching.cancel()


async def test_a_change_while_the_upstream_thinks_ends_the_request(open_stage):
    open_stage.upstream.answers.append(asyncio.Event())
    handling = asyncio.create_task(open_stage.flow.handle(open_stage.request()))
    await open_stage.upstream.called.wait()
    open_stage.authenticator.valid = False
    assert await open_stage.open.sweep() == 1
    answer = await by_itself(handling)
    assert answer.status == 403
    assert open_stage.diary[-1] == "record:outcome:cut"


async def test_a_change_while_the_record_is_written_forwards_nothing(open_stage):
    write = open_stage.log.write

    async def slowly(record):
        await write(record)
        open_stage.point.allowed.clear()
        open_stage.point.changed += 1

    open_stage.log.write = slowly
    answer, _ = await open_stage.play()
    assert answer.status == 403
    assert open_stage.upstream.seen == []
    assert open_stage.diary == ["record:decision:allow:allowed", "record:outcome:cut"]


async def test_a_caller_that_leaves_ends_the_upstream_at_once(open_stage):
    inner = open_stage.answers(b"first", b"second")
    answer = await open_stage.flow.handle(open_stage.request())
    await anext(answer.body)
    await answer.body.aclose()
    assert inner.closed
    assert open_stage.log.records[-1].outcome["ended"] == "client_left"
    assert len(open_stage.open) == 0


async def test_a_caller_that_leaves_before_the_first_byte_is_recorded_too(open_stage):
    open_stage.answers(b"never read")
    answer = await open_stage.flow.handle(open_stage.request())
    await answer.body.aclose()
    assert open_stage.log.records[-1].outcome["ended"] == "client_left"


async def test_a_caller_that_leaves_while_the_record_is_written_gets_nothing_and_an_outcome(open_stage):
    write, written = open_stage.log.write, asyncio.Event()

    async def slowly(record):
        await write(record)
        written.set()
        await asyncio.Event().wait()

    open_stage.log.write = slowly
    handling = asyncio.create_task(open_stage.flow.handle(open_stage.request()))
    await written.wait()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert open_stage.upstream.seen == []
    assert open_stage.diary == ["record:decision:allow:allowed", "record:outcome:client_left"]


async def test_a_caller_that_leaves_while_the_upstream_thinks_cancels_it(open_stage):
    open_stage.upstream.answers.append(asyncio.Event())
    handling = asyncio.create_task(open_stage.flow.handle(open_stage.request()))
    await open_stage.upstream.called.wait()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert open_stage.log.records[-1].outcome["ended"] == "client_left"
    assert len(open_stage.open) == 0


async def test_two_hundred_at_once_on_a_limit_of_fifty_let_exactly_fifty_pass(stage):
    stage.point.allow(DANA, "invoke", MODEL, Limit("slow", 50, 60))
    for _ in range(50):
        stage.answers(b"hi")
    answers = await asyncio.gather(*(stage.play() for _ in range(200)))
    statuses = [answer.status for answer, _ in answers]
    assert (statuses.count(200), statuses.count(429)) == (50, 150)
    assert len(stage.upstream.seen) == 50
