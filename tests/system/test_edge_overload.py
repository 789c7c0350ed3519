"""The edge under callers who ask for too much: bounds fire, nothing is left behind, others go on (C5)."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from pathlib import Path

import pytest
import uvloop

from doorward.core.clock import SystemClock
from doorward.core.errors import DoorwardError
from doorward.core.ids import IdSource
from doorward.core.wire import Answer
from doorward.gateway.body import whole
from doorward.gateway.edge import Edge
from doorward.gateway.refusal import of_error, problem
from doorward.http1.budget import Budget
from doorward.settings import GatewaySettings

MEGABYTE = 1024 * 1024


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request):
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


class Reader:
    """Reads each body whole, then answers; `/llm/stream` streams until it is left."""

    def __init__(self):
        self.most, self.streams, self.released = 0, 0, asyncio.Event()
        self.waits, self.waiting = False, 0

    async def handle(self, request):
        if request.path == "/llm/stream":
            return Answer(status=200, headers=[("Content-Type", "text/event-stream")], body=self._stream())
        try:
            body = await whole(request, limit=2 * MEGABYTE, seconds=20)
        except DoorwardError as error:
            return problem(of_error(error, request.id))
        if self.waits:
            self.waiting += 1
            await self.released.wait()
        return Answer(status=200, headers=[], body=str(len(body)).encode())

    async def malformed(self, error, *, request_id, peer):  # noqa: ARG002 -- the port's signature
        return problem(of_error(error, request_id))

    async def _stream(self):
        self.streams += 1
        try:
            while True:
                yield b"data: x\n\n"
                await asyncio.sleep(0.05)
        finally:
            self.streams -= 1


@contextlib.asynccontextmanager
async def serving(*, budget=None, tls=None, listener=None, **bounds):
    flow = Reader()
    settings = GatewaySettings(listen="127.0.0.1:0", **bounds)
    ids = IdSource(SystemClock())
    edge = Edge(flow, settings=settings, ids=ids, opaque={}, budget=budget, tls=tls, listener=listener)
    await edge.start()
    try:
        yield edge, flow
    finally:
        await edge.drain(0)
        await edge.close()


async def connect(edge, **options):
    return await asyncio.open_connection("127.0.0.1", edge.port, **options)


async def status_of(reader):
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    return int(head.split(b" ", 2)[1]), head


async def healthy(edge):
    """Return how long one small request takes; seconds."""
    begun = time.monotonic()
    reader, writer = await connect(edge)
    writer.write(b"POST /llm/x HTTP/1.1\r\nHost: gate\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
    assert (await status_of(reader))[0] == 200
    writer.close()
    return time.monotonic() - begun


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# One budget of buffered bytes


async def test_a_flood_of_bodies_is_503_beyond_the_budget_and_everything_is_given_back():
    budget = Budget(8 * MEGABYTE)
    async with serving(budget=budget) as (edge, flow):
        flow.waits = True

        async def send():
            reader, writer = await connect(edge)
            head = b"POST /llm/x HTTP/1.1\r\nHost: gate\r\nContent-Length: %d\r\n\r\n" % MEGABYTE
            writer.write(head + b"x" * MEGABYTE)
            status, said = await status_of(reader)
            writer.close()
            return status, said

        before = resident()
        sending = [asyncio.create_task(send()) for _ in range(60)]
        done = 0
        async with asyncio.timeout(30):
            while done + flow.waiting < 60:
                await asyncio.sleep(0.02)
                done = sum(task.done() for task in sending)
                assert budget.used <= 8 * MEGABYTE + 60 * 200_000
        assert resident() - before < 60 * MEGABYTE
        flow.released.set()
        answers = await asyncio.gather(*sending)
        refused = [said for status, said in answers if status == 503]
        assert 40 <= len(refused) < 60
        assert all(status in {200, 503} for status, _ in answers)
        assert budget.refused >= len(refused)
        flow.waits = False
        async with asyncio.timeout(5):
            while budget.used:
                await asyncio.sleep(0.01)
        assert await healthy(edge) < 2


async def test_a_caller_that_leaves_gives_back_what_was_held_for_it():
    budget = Budget(8 * MEGABYTE)
    async with serving(budget=budget) as (edge, _):
        for _ in range(20):
            reader, writer = await connect(edge)
            writer.write(
                b"POST /llm/x HTTP/1.1\r\nHost: gate\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500_000
            )
            async with asyncio.timeout(5):
                while budget.used < 400_000:
                    await asyncio.sleep(0.005)
            writer.transport.abort()
            del reader
            async with asyncio.timeout(5):
                while budget.used:
                    await asyncio.sleep(0.005)


# Connections


async def test_more_connections_of_one_address_than_allowed_are_429():
    async with serving(max_connections_per_address=5) as (edge, _):
        kept = [await connect(edge) for _ in range(5)]
        reader, writer = await connect(edge)
        status, head = await status_of(reader)
        assert status == 429
        assert b"retry-after" in head.lower()
        assert await asyncio.wait_for(reader.read(), 3) == b""
        writer.close()
        numbers = {name: read() for name, _, read in edge.numbers()}
        assert numbers["doorward_connections_shed"] == 1
        assert numbers["doorward_connections"] >= 5
        kept.pop()[1].close()
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(AssertionError):
                    await healthy(edge)
                    break
                await asyncio.sleep(0.02)
        for _, each in kept:
            each.close()


async def test_more_connections_than_allowed_are_503():
    async with serving(max_connections=3) as (edge, _):
        kept = [await connect(edge) for _ in range(3)]
        reader, writer = await connect(edge)
        assert (await status_of(reader))[0] == 503
        for _, each in [*kept, (reader, writer)]:
            each.close()


# Slow callers (attack 72)


async def test_two_hundred_slow_callers_are_cut_and_a_healthy_one_does_not_notice():
    async with serving(header_timeout=1.0, body_timeout=1.0, body_pause=1.0) as (edge, _):
        quiet = max([await healthy(edge) for _ in range(20)])
        heads = (b"GET /llm/x HT", b"POST /llm/x HTTP/1.1\r\nHost: gate\r\nContent-Length: 9\r\n\r\nx", b"")
        slow = [await connect(edge) for _ in range(200)]
        for number, (_, writer) in enumerate(slow):
            writer.write(heads[number % 3])
        busy = max([await healthy(edge) for _ in range(20)])
        # Twice, and a little for a machine that does other things.
        assert busy < 2 * quiet + 0.25
        begun = time.monotonic()
        for reader, writer in slow:
            with contextlib.suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 10)
            writer.close()
        assert time.monotonic() - begun < 10


async def test_an_idle_connection_ends_after_its_time():
    async with serving(idle_timeout=0.3) as (edge, _):
        reader, writer = await connect(edge)
        writer.write(b"POST /llm/x HTTP/1.1\r\nHost: gate\r\nContent-Length: 2\r\n\r\nhi")
        assert (await status_of(reader))[0] == 200
        assert await reader.readexactly(1) == b"2"
        assert await asyncio.wait_for(reader.read(), 3) == b""
        writer.close()


async def test_an_answer_that_is_not_read_is_cut_after_its_time():
    class Flood(Reader):
        async def handle(self, _request):
            return Answer(status=200, headers=[], body=self._flood())

        async def _flood(self):
            try:
                while True:
                    yield b"x" * 65536
            finally:
                self.released.set()

    flow = Flood()
    settings = GatewaySettings(listen="127.0.0.1:0", write_timeout=0.3)
    edge = Edge(flow, settings=settings, ids=IdSource(SystemClock()), opaque={})
    await edge.start()
    _, writer = await asyncio.open_connection("127.0.0.1", edge.port, limit=1024)
    writer.write(b"GET /llm/x HTTP/1.1\r\nHost: gate\r\n\r\n")
    await asyncio.wait_for(flow.released.wait(), 10)
    writer.close()
    await edge.drain(0)
    await edge.close()


# Half-close and leaving


async def test_a_caller_that_only_stops_sending_still_gets_its_answer():
    async with serving() as (edge, _):
        reader, writer = await connect(edge)
        post = b"POST /llm/x HTTP/1.1\r\nHost: gate\r\nContent-Length: 2\r\n\r\nhi"
        writer.write(post * 3)
        writer.write_eof()
        said = await asyncio.wait_for(reader.read(), 3)
        assert said.count(b"HTTP/1.1 200") == 3
        writer.close()


async def test_a_caller_that_stopped_sending_has_only_a_moment():
    async with serving(half_close=0.2) as (edge, flow):
        reader, writer = await connect(edge)
        writer.write(b"GET /llm/stream HTTP/1.1\r\nHost: gate\r\n\r\n")
        await status_of(reader)
        writer.write_eof()
        async with asyncio.timeout(2):
            while flow.streams:
                await asyncio.sleep(0.02)
        writer.close()


async def test_a_thousand_callers_leaving_mid_stream_leave_nothing_behind():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    async with serving(max_connections_per_address=2000) as (edge, flow):
        before = len(list(Path("/proc/self/fd").iterdir()))
        callers = []
        for _ in range(10):
            fresh = await asyncio.gather(*(connect(edge) for _ in range(100)))
            for _, writer in fresh:
                writer.write(b"GET /llm/stream HTTP/1.1\r\nHost: gate\r\n\r\n")
            await asyncio.gather(*(status_of(reader) for reader, _ in fresh))
            callers += fresh
        assert flow.streams == 1000
        for _, writer in callers:
            writer.transport.abort()
        begun = time.monotonic()
        async with asyncio.timeout(20):
            while flow.streams:
                await asyncio.sleep(0.01)
        # One second, and what this machine needs to close a thousand sockets.
        assert time.monotonic() - begun < 5
        del callers, fresh
        async with asyncio.timeout(10):
            while len(list(Path("/proc/self/fd").iterdir())) > before + 10:
                await asyncio.sleep(0.05)
        assert await healthy(edge) < 2


# Pipelining


async def test_a_hundred_requests_in_one_write_are_answered_in_order_and_held_within_bounds():
    async with serving() as (edge, _):
        reader, writer = await connect(edge)
        bodies = [b"x" * (number % 50) for number in range(100)]
        writer.write(
            b"".join(
                b"POST /llm/x HTTP/1.1\r\nHost: gate\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                for body in bodies
            )
        )
        for body in bodies:
            status, head = await status_of(reader)
            assert status == 200
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert await reader.readexactly(length) == str(len(body)).encode()
        writer.close()


async def test_requests_sent_ahead_without_end_are_held_back():
    async with serving() as (edge, flow):
        flow.waits = True
        _, writer = await connect(edge)
        post = b"POST /llm/x HTTP/1.1\r\nHost: gate\r\nContent-Length: 2\r\n\r\nhi"
        sent = 0

        async def send():
            nonlocal sent
            while True:
                writer.write(post * 1000)
                await writer.drain()
                sent += len(post) * 1000

        sending = asyncio.create_task(send())
        await asyncio.sleep(1.0)
        first = sent
        await asyncio.sleep(0.5)
        assert sent == first < 32 * MEGABYTE
        sending.cancel()
        writer.transport.abort()


# Reload


async def test_one_listener_hands_over_to_another_without_a_failed_request():
    shared = socket.create_server(("127.0.0.1", 0))
    ended, counts = asyncio.Event(), {"failed": 0, "served": 0}

    async def ask(edge):
        while not ended.is_set():
            reader, writer = await connect(edge)
            try:
                while not ended.is_set():
                    writer.write(b"POST /llm/x HTTP/1.1\r\nHost: gate\r\nContent-Length: 2\r\n\r\nhi")
                    status, head = await status_of(reader)
                    await reader.readexactly(1)
                    counts["served"] += status == 200
                    if b"connection: close" in head.lower():
                        break
            except (OSError, asyncio.IncompleteReadError):
                counts["failed"] += 1
            writer.close()

    async with serving(listener=shared.dup()) as (first, _), serving(listener=shared) as (second, _):
        asking = [asyncio.create_task(ask(first)) for _ in range(10)]
        await asyncio.sleep(0.3)
        await second.drain(5)
        before = counts["served"]
        await asyncio.sleep(0.3)
        ended.set()
        await asyncio.gather(*asking)
    assert counts["failed"] == 0
    assert counts["served"] > before > 0


async def test_a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on(certificates, tmp_path):
    async with serving(tls=certificates.server) as (edge, _):
        options = {"ssl": certificates.without_client, "server_hostname": "localhost"}
        old_reader, old = await connect(edge, **options)
        serial = old.get_extra_info("peercert")["serialNumber"]
        # The client's certificate carries the same names: it stands in for the renewed one.
        certificates.server.load_cert_chain(tmp_path / "client.pem")
        _, new = await connect(edge, **options)
        assert new.get_extra_info("peercert")["serialNumber"] != serial
        old.write(b"POST /llm/x HTTP/1.1\r\nHost: gate\r\nContent-Length: 2\r\n\r\nhi")
        assert (await status_of(old_reader))[0] == 200
        for writer in (old, new):
            writer.close()
