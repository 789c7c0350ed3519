"""Connections to upstreams byte by byte: what is repeated, what is refused, what is cut in time."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
import uvloop

from doorward.core.errors import UnavailableError
from doorward.core.wire import UpstreamRequest
from doorward.gateway.faults import UnreachableError
from doorward.gateway.upstream import HttpUpstream
from doorward.http1 import pool as pools
from doorward.http1.budget import UNBOUNDED, Budget
from doorward.settings import UpstreamSettings


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request):
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


class Script:
    """Answers each request with the next entry of a list of bytes; then does what `after` says."""

    def __init__(self, *answers, after="keep", before=None):
        self.answers, self.after, self.before = list(answers), after, before
        self.requests, self.connections, self.left = [], 0, asyncio.Event()
        self.open = set()

    async def serve(self, reader, writer):
        self.connections += 1
        self.open.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                if self.before is not None:
                    await self.before(reader, writer, head)
                if not self.answers:
                    break
                answer = self.answers.pop(0)
                if answer is None:
                    await reader.read()
                    break
                writer.write(answer)
                await writer.drain()
                if self.after == "close":
                    break
        self.left.set()
        writer.close()


@contextlib.asynccontextmanager
async def scripted(*answers, patience=2.0, budget=None, **options):
    script = Script(*answers, **options)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = HttpUpstream(UpstreamSettings(name="llm", kind="http", url=url), timeout=patience, budget=budget)
    try:
        yield script, client
    finally:
        await client.close()
        server.close()
        for writer in script.open:
            writer.close()


async def ask(client, method="GET", body=None, *, headers=(), length=None, target="/x"):  # noqa: PLR0913 -- a request
    answer = await client.send(
        UpstreamRequest(method=method, target=target, headers=list(headers), body=body, content_length=length)
    )
    try:
        return answer, b"".join([chunk async for chunk in answer.chunks()])
    finally:
        await answer.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_one_connection_carries_one_request_after_another():
    async with scripted(OK, OK, OK) as (script, client):
        for _ in range(3):
            answer, body = await ask(client)
            assert (answer.status, body) == (200, b"ok")
        assert script.connections == 1


async def test_a_connection_that_is_used_again_at_once_answers_whoever_waits_on_it():
    # Whole answers in one piece free their connection before their caller has run again.
    callers, each = 20, 40
    async with scripted(*[OK] * (callers * each)) as (script, client):

        async def caller():
            return [(await ask(client))[1] for _ in range(each)]

        answers = await asyncio.gather(*(caller() for _ in range(callers)))
        assert answers == [[b"ok"] * each] * callers
        assert script.connections <= callers


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_every_framing_ends_where_it_must(data):
    closes = b"Content-Length" not in data and b"chunked" not in data
    async with scripted(data, after="close" if closes else "keep") as (_, client):
        answer, body = await ask(client)
        assert (answer.status, body) == (200, b"ok")
        assert not any(name.lower() in {"link", "x-sum"} for name, _ in answer.headers)


async def test_an_answer_to_head_and_a_204_have_no_body_whatever_they_say():
    heads = [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"]
    async with scripted(*heads, OK) as (script, client):
        answer, body = await ask(client, "HEAD")
        assert (dict(answer.headers)["Content-Length"], body) == ("99", b"")
        assert (await ask(client, "DELETE"))[1] == b""
        assert (await ask(client))[1] == b"ok"
        assert script.connections == 1


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"Content-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20,
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_an_answer_with_two_readings_or_none_is_an_unavailable_upstream(data):
    async with scripted(data, OK) as (script, client):
        with pytest.raises(UnavailableError) as failed:
            await ask(client, "POST", b"x")
        assert failed.value.code == "upstream_unavailable"
        assert not isinstance(failed.value, UnreachableError)
        assert len(script.requests) == 1
        assert (await ask(client))[1] == b"ok"
        assert script.connections == 2


async def test_bytes_after_an_answer_never_become_the_next_answer():
    stray = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!"
    async with scripted(OK + stray, OK) as (script, client):
        assert (await ask(client))[1] == b"ok"
        assert (await ask(client))[1] == b"ok"
        assert script.connections == 2


async def test_bytes_that_nobody_asked_for_end_a_kept_connection():
    async with scripted(OK, OK) as (script, client):
        await ask(client)
        next(iter(script.open)).write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!")
        await asyncio.wait_for(script.left.wait(), 2)
        assert (await ask(client))[1] == b"ok"
        assert script.connections == 2


async def test_a_read_on_a_kept_connection_that_was_closed_is_repeated_once():
    async def closing(_reader, writer, _head):
        if len(script.requests) == 2:
            writer.transport.abort()

    async with scripted(OK, OK, OK, before=closing) as (script, client):
        await ask(client)
        assert (await ask(client))[1] == b"ok"
        assert len(script.requests) == 3


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_change_is_never_repeated(method):
    async def closing(_reader, writer, _head):
        if len(script.requests) == 2:
            writer.transport.abort()

    async with scripted(OK, OK, OK, before=closing) as (script, client):
        await ask(client)
        with pytest.raises(UnavailableError):
            await ask(client, method, b"x")
        assert len(script.requests) == 2


async def test_a_read_that_was_half_answered_is_not_repeated():
    async def half(_reader, writer, _head):
        if len(script.requests) == 2:
            writer.write(b"HTTP/1.1 200")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.transport.abort()

    async with scripted(OK, OK, OK, before=half) as (script, client):
        await ask(client)
        with pytest.raises(UnavailableError):
            await ask(client)
        assert len(script.requests) == 2


async def test_a_kept_connection_is_dropped_before_it_can_be_stale(monkeypatch):
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.2)
    async with scripted(OK, OK) as (script, client):
        await ask(client)
        await asyncio.wait_for(script.left.wait(), 2)
        await ask(client)
        assert script.connections == 2


# Deadlines (attack 74)


@pytest.mark.parametrize("said", [None, b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_an_upstream_that_hangs_ends_in_time_wherever_it_hangs(said):
    async with scripted(said, patience=0.3) as (script, client):
        begun = time.monotonic()
        with pytest.raises(UnavailableError) as failed:
            await ask(client)
        assert failed.value.code == "upstream_timeout"
        assert time.monotonic() - begun < 2
        await asyncio.wait_for(script.left.wait(), 2)


async def test_an_upstream_that_breaks_off_its_body_is_not_a_whole_answer():
    for data in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ):
        async with scripted(data, after="close") as (_, client):
            with pytest.raises(UnavailableError) as failed:
                await ask(client)
            assert failed.value.code == "upstream_unavailable"


async def test_a_request_that_is_given_up_ends_its_connection_at_once():
    async with scripted(None) as (script, client):
        asking = asyncio.create_task(ask(client))
        while not script.requests:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait_for(script.left.wait(), 1)
        with pytest.raises(asyncio.CancelledError):
            await asking


# Bodies that stream


async def test_a_streamed_body_arrives_while_it_is_made_and_can_be_answered_early():
    go_on = asyncio.Event()

    async def body():
        yield b"first"
        await go_on.wait()
        yield b"second"

    early = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    async with scripted(early) as (_, client):
        answer, content = await ask(client, "PUT", body())
        assert (answer.status, content) == (413, b"no")


async def test_a_body_that_is_not_as_long_as_declared_never_looks_whole():
    for chunks, length in ((b"short",), 9), ((b"much", b"too", b"long"), 5):

        async def body(chunks=chunks):
            for chunk in chunks:
                yield chunk

        async with scripted(None) as (script, client):
            with pytest.raises(UnavailableError):
                await ask(client, "PUT", body(), length=length)
            await asyncio.wait_for(script.left.wait(), 2)


async def test_a_body_that_fails_while_it_is_made_fails_with_its_own_error():
    async def body():
        yield b"first"
        raise ValueError("mine")

    async with scripted(None) as (script, client):
        with pytest.raises(ValueError, match="mine"):
            await ask(client, "PUT", body(), length=100)
        await asyncio.wait_for(script.left.wait(), 2)


async def test_a_body_waits_for_an_upstream_that_does_not_read():
    made = 0

    async def body():
        nonlocal made
        while True:
            made += 65536
            yield b"x" * 65536

    async def never_reads(_reader, _writer, _head):
        await asyncio.sleep(30)

    async with scripted(OK, before=never_reads, patience=0.5) as (_, client):
        with pytest.raises(UnavailableError) as failed:
            await ask(client, "PUT", body())
        assert failed.value.code == "upstream_timeout"
        assert made < 32 * 1024 * 1024


async def test_an_answer_nobody_reads_makes_the_upstream_wait_and_is_counted():
    budget = Budget(UNBOUNDED)
    sent = 0

    async def flood(_reader, writer, _head):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"8000\r\n" + b"x" * 32768 + b"\r\n")
                await writer.drain()
                sent += 32768

    async with scripted(before=flood, budget=budget) as (script, client):
        answer = await client.send(UpstreamRequest(method="GET", target="/x", headers=[], body=None))
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.3)
        assert 0 < budget.used <= 512 * 1024
        await answer.close()
        assert budget.used == 0
        await asyncio.wait_for(script.left.wait(), 2)


# Heads that would break out


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/x HTTP/1.1\r\nX: y", ()),
        ("/x y", ()),
        ("http://evil/", ()),
        ("/x", (("A", "b\r\nC: d"),)),
        ("/x", (("A\r\nC", "d"),)),
        ("/x", (("A", "b\nC: d"),)),
    ],
)
async def test_no_word_of_a_request_breaks_out_of_its_line(target, headers):
    async with scripted(OK) as (script, client):
        with pytest.raises(UnavailableError) as failed:
            await ask(client, target=target, headers=headers)
        assert failed.value.code == "internal"
        assert script.requests == []


async def test_framing_is_ours_alone():
    async with scripted(OK) as (script, client):
        theirs = (
            ("Content-Length", "9"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "x"),
            ("Host", "e"),
        )
        await ask(client, "POST", b"hi", headers=theirs)
        head = script.requests[0].lower()
        assert head.count(b"content-length") == 1
        assert b"transfer-encoding" not in head
        assert b"connection" not in head
        assert b"host: 127.0.0.1" in head


async def test_a_name_that_leads_to_the_metadata_service_is_not_connected_to(monkeypatch):
    async def resolve(_loop, _host, port, **_):
        return [(2, 1, 6, "", ("169.254.169.254", port))]

    monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", resolve, raising=False)
    settings = UpstreamSettings(name="llm", kind="http", url="https://llm.example")
    client = HttpUpstream(settings, timeout=1)
    monkeypatch.setattr(pools, "resolve", _rebound)
    with pytest.raises(UnreachableError):
        await ask(client)


async def _rebound(_host, _port):
    raise pools.ForbiddenAddressError("no")
