"""The edge over real sockets, byte by byte: what is refused, what is cut, and what the flow never sees."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import time

import pytest
from cryptography import x509

from doorward.core.clock import SystemClock
from doorward.core.errors import DoorwardError, InvalidConfigError
from doorward.core.ids import IdSource
from doorward.core.wire import Answer
from doorward.gateway.body import whole
from doorward.gateway.edge import Edge
from doorward.gateway.refusal import of_error, problem
from doorward.settings import GatewaySettings


class EchoFlow:
    """Answers what it was given; `/stream` streams until told to stop, `/read` reads the body first."""

    def __init__(self):
        self.seen = []
        self.refused = []
        self.limit = 1024
        self.closed = asyncio.Event()
        self.more = asyncio.Event()
        self.failing = False

    async def handle(self, request):
        self.seen.append(request)
        if request.path == "/llm/stream":
            return Answer(status=200, headers=[("Content-Type", "text/plain")], body=self._stream())
        if request.path == "/llm/short":
            return Answer(status=200, headers=[("Content-Length", "100")], body=self._short())
        if request.path == "/llm/unread":
            return Answer(status=403, headers=[], body=b"no")
        if request.path == "/llm/head":
            return Answer(status=200, headers=[("Content-Length", "12345")], body=b"")
        if request.path == "/llm/fault":
            raise KeyError("internal-detail")
        try:
            body = await whole(request, limit=self.limit, seconds=5)
        except DoorwardError as error:
            return problem(of_error(error, request.id))
        return Answer(
            status=200, headers=[("Content-Type", "text/plain")], body=request.method.encode() + b":" + body
        )

    async def malformed(self, error, *, request_id, peer):  # noqa: ARG002 -- the port's signature
        self.refused.append(error)
        answer = problem(of_error(error, request_id))
        answer.headers.append(("Doorward-Request-Id", request_id))
        return answer

    async def _stream(self):
        try:
            yield b"one"
            await self.more.wait()
            if self.failing:
                raise ConnectionError("the upstream broke off")
            yield b"two"
        finally:
            self.closed.set()

    async def _short(self):
        yield b"only this"


@contextlib.asynccontextmanager
async def serving(flow=None, *, tls=None, idle=5.0, **bounds):
    flow = flow or EchoFlow()
    settings = GatewaySettings(listen="127.0.0.1:0", **{"header_timeout": 0.4, "body_timeout": 0.4} | bounds)
    edge = Edge(
        flow, settings=settings, ids=IdSource(SystemClock()), opaque={"store": 2}, tls=tls, idle_seconds=idle
    )
    await edge.start()
    try:
        yield edge, flow
    finally:
        await edge.drain(0)
        await edge.close()


async def connect(edge, **options):
    return await asyncio.open_connection("127.0.0.1", edge.port, **options)


async def talk(edge, data, *, seconds=5):
    """Send raw bytes and return everything until the server closes."""
    reader, writer = await connect(edge)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), seconds)
    finally:
        writer.close()


async def head_of(reader):
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)


GET = b"GET /llm/x HTTP/1.1\r\nHost: gate\r\n"
POST = b"POST /llm/x HTTP/1.1\r\nHost: gate\r\n"


async def test_a_plain_request_is_answered_and_the_connection_kept():
    async with serving() as (edge, flow):
        reader, writer = await connect(edge)
        for _ in range(3):
            writer.write(POST + b"Content-Length: 2\r\n\r\nhi")
            head = await head_of(reader)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"aiohttp" not in head
            assert await reader.readexactly(7) == b"POST:hi"
        writer.close()
        assert [r.peer.ip for r in flow.seen] == ["127.0.0.1"] * 3
        assert len({r.id for r in flow.seen}) == 3


SMUGGLES = {
    "both lengths": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /llm/evil HTTP/1.1\r\n",
    "both lengths turned": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "two equal lengths": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "length list": POST + b"Content-Length: 1, 1\r\n\r\na",
    "length plus": POST + b"Content-Length: +1\r\n\r\na",
    "length hex": POST + b"Content-Length: 0x1\r\n\r\na",
    "length underscore": POST + b"Content-Length: 1_0\r\n\r\naaaaaaaaaa",
    "length minus": POST + b"Content-Length: -1\r\n\r\n",
    "length huge": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "length space before colon": POST + b"Content-Length : 1\r\n\r\na",
    "coding xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding list": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "coding twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "coding folded": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "coding on 1.0": b"POST /llm/x HTTP/1.0\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two hosts": GET + b"Host: other\r\n\r\n",
    "no host": b"GET /llm/x HTTP/1.1\r\n\r\n",
    "host with path": b"GET /llm/x HTTP/1.1\r\nHost: x/health?y=\r\n\r\n",
    "bare newlines": b"GET /llm/x HTTP/1.1\nHost: gate\n\n",
    "folded header": GET + b"X-A: a\r\n b\r\n\r\n",
    "nul in header": GET + b"X-A: a\0b\r\n\r\n",
    "space in name": GET + b"X A: a\r\n\r\n",
    "two authorizations": GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "absolute form": b"GET http://evil/llm/x HTTP/1.1\r\nHost: gate\r\n\r\n",
    "authority form": b"CONNECT evil:443 HTTP/1.1\r\nHost: gate\r\n\r\n",
    "userinfo form": b"GET @evil/llm HTTP/1.1\r\nHost: gate\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: gate\r\n\r\n",
    "trace": b"TRACE /llm/x HTTP/1.1\r\nHost: gate\r\n\r\n",
    "lower-case method": b"get /llm/x HTTP/1.1\r\nHost: gate\r\n\r\n",
    "override": POST + b"X-HTTP-Method-Override: DELETE\r\n\r\n",
    "websocket": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "h2c": GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n",
    "dots": b"GET /llm/../store/x HTTP/1.1\r\nHost: gate\r\n\r\n",
    "encoded dots": b"GET /llm/%2e%2e/store HTTP/1.1\r\nHost: gate\r\n\r\n",
    "double slash": b"GET //llm/x HTTP/1.1\r\nHost: gate\r\n\r\n",
    "fragment": b"GET /llm/x#y HTTP/1.1\r\nHost: gate\r\n\r\n",
    "high bytes": b"GET /llm/\xe9 HTTP/1.1\r\nHost: gate\r\n\r\n",
    "version 2": b"GET /llm/x HTTP/2.0\r\nHost: gate\r\n\r\n",
    "version 1.2": b"GET /llm/x HTTP/1.2\r\nHost: gate\r\n\r\n",
    "not http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello there, this is no request\r\n\r\n",
    "http2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLES)
async def test_a_request_with_two_readings_is_400_and_the_connection_ends(name):
    async with serving() as (edge, flow):
        said = await talk(edge, SMUGGLES[name] + b"GET /llm/smuggled HTTP/1.1\r\nHost: gate\r\n\r\n")
        assert re.findall(rb"HTTP/1\.[01] (\d+)", said) == [b"400"], said[:200]
        assert b"application/problem+json" in said
        assert b"doorward-request-id" in said.lower()
        assert b"aiohttp" not in said.lower()
        assert flow.seen == []
        assert len(flow.refused) == 1


BAD_CHUNKS = {
    "hex prefix": b"0x2\r\nhi\r\n0\r\n\r\n",
    "plus": b"+2\r\nhi\r\n0\r\n\r\n",
    "underscore": b"0_2\r\nhi\r\n0\r\n\r\n",
    "negative": b"-2\r\nhi\r\n0\r\n\r\n",
    "too long": b"2\r\nhiX\r\n0\r\n\r\n",
    "bare newline": b"2\nhi\n0\n\n",
    "no size": b"\r\nhi\r\n0\r\n\r\n",
    "huge": b"fffffffffffffffff\r\nhi\r\n0\r\n\r\n",
    "bad extension": b"2;\x00=1\r\nhi\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
async def test_a_body_in_bad_chunks_never_becomes_a_body(name):
    async with serving() as (edge, _):
        data = POST + b"Transfer-Encoding: chunked\r\n\r\n" + BAD_CHUNKS[name]
        said = await talk(edge, data + b"GET /llm/smuggled HTTP/1.1\r\nHost: gate\r\n\r\n")
        assert b" 200 " not in said.partition(b"\r\n")[0]
        assert b"GET:" not in said


async def test_a_good_chunked_body_arrives_whole():
    async with serving() as (edge, _):
        reader, writer = await connect(edge)
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\nyou\r\n0\r\n\r\n")
        await head_of(reader)
        assert await reader.readexactly(10) == b"POST:hiyou"
        writer.close()


async def test_two_callers_on_one_connection_are_two_requests():
    async with serving() as (edge, flow):
        data = (
            GET
            + b"Authorization: Bearer a\r\n\r\n"
            + GET
            + b"Authorization: Bearer b\r\nConnection: close\r\n\r\n"
        )
        said = await talk(edge, data)
        assert said.count(b"HTTP/1.1 200") == 2
        assert [r.header("authorization") for r in flow.seen] == ["Bearer a", "Bearer b"]


# Slow and large (attacks 72, 73)


async def test_headers_that_drip_are_cut_at_the_deadline():
    async with serving() as (edge, flow):
        reader, writer = await connect(edge)
        begun = time.monotonic()

        async def drip():
            with contextlib.suppress(OSError):
                for byte in GET + b"X-A: " + b"a" * 1000:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        assert time.monotonic() - begun < 2
        dripping.cancel()
        assert flow.seen == []


async def test_a_silent_connection_is_cut_at_the_deadline():
    async with serving() as (edge, _):
        reader, _writer = await connect(edge)
        assert await asyncio.wait_for(reader.read(), 2) == b""


async def test_half_a_second_request_is_cut_at_the_deadline():
    async with serving(idle=60) as (edge, _):
        reader, writer = await connect(edge)
        writer.write(GET + b"\r\n")
        await head_of(reader)
        await reader.readexactly(4)
        writer.write(b"GET /llm/x HT")
        assert await asyncio.wait_for(reader.read(), 2) == b""


async def test_an_idle_connection_between_requests_is_kept_past_the_header_deadline():
    async with serving(idle=60) as (edge, _):
        reader, writer = await connect(edge)
        writer.write(GET + b"\r\n")
        await head_of(reader)
        await reader.readexactly(4)
        await asyncio.sleep(0.8)
        writer.write(GET + b"\r\n")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        GET + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n",
        GET + b"".join(b"X-%d: a\r\n" % n for n in range(500)) + b"\r\n",
        GET + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 5000) for n in range(20)) + b"\r\n",
        b"GET /llm/" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: gate\r\n\r\n",
        GET + b"Authorization: Bearer " + b"a" * 1_000_000 + b"\r\n\r\n",
    ],
)
async def test_header_sections_that_are_too_large_are_refused(data):
    async with serving() as (edge, flow):
        reader, writer = await connect(edge)
        with contextlib.suppress(OSError):
            writer.write(data)
            await writer.drain()
        said = b""
        with contextlib.suppress(OSError):
            said = await asyncio.wait_for(reader.read(), 5)
        assert said == b"" or said.split(b" ")[1] in {b"431", b"400"}
        writer.close()
        assert flow.seen == []


async def test_a_header_section_that_only_grows_is_cut_at_its_bound():
    async with serving(header_timeout=30.0) as (edge, flow):
        reader, writer = await connect(edge)
        writer.write(GET)
        ended = asyncio.create_task(reader.read())
        for number in range(40):
            if ended.done():
                break
            with contextlib.suppress(OSError):
                writer.write(b"X-%d: %s\r\n" % (number, b"a" * 2000))
                await writer.drain()
            await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionResetError):
            assert (await asyncio.wait_for(ended, 2)).startswith(b"HTTP/1.1 431 ")
        writer.close()
        assert flow.seen == []


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_larger_than_a_header_section_may_come_at_once_with_its_head(framing):
    body = b"x" * 600_000
    framed = b"Content-Length: 600000\r\n\r\n" + body
    if framing == "chunked":
        framed = b"Transfer-Encoding: chunked\r\n\r\n927c0\r\n" + body + b"\r\n0\r\n\r\n"
    async with serving() as (edge, flow):
        flow.limit = 1_000_000
        reader, writer = await connect(edge)
        for _ in range(3):
            writer.write(POST + framed)
            head = await head_of(reader)
            assert head.startswith(b"HTTP/1.1 200 "), head
            assert await reader.readexactly(600_005) == b"POST:" + body
        writer.close()


async def test_a_refused_body_that_came_at_once_with_its_head_still_gets_its_answer():
    async with serving() as (edge, _):
        reader, writer = await connect(edge)
        writer.write(POST + b"Content-Length: 9000000\r\n\r\n" + b"x" * 500_000)
        assert (await head_of(reader)).startswith(b"HTTP/1.1 413 ")
        writer.close()


async def test_a_hundred_megabytes_are_413_and_never_held():
    async with serving() as (edge, flow):
        reader, writer = await connect(edge)
        writer.write(POST + b"Content-Length: 104857600\r\n\r\n")
        head = await head_of(reader)
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"close" in head.lower()
        assert flow.seen[0].header("content-length") == "104857600"
        writer.close()


async def test_an_endless_chunked_body_is_413_while_it_is_sent():
    async with serving() as (edge, _):
        reader, writer = await connect(edge)
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        answering = asyncio.create_task(head_of(reader))
        with contextlib.suppress(OSError):
            while not answering.done():
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)
        assert (await answering).startswith(b"HTTP/1.1 413 ")
        writer.close()


async def test_half_a_body_is_408_at_the_deadline():
    async with serving() as (edge, _):
        reader, writer = await connect(edge)
        writer.write(POST + b"Content-Length: 10\r\n\r\nhalf")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_body_that_crawls_is_408():
    async with serving() as (edge, _):
        reader, writer = await connect(edge)
        writer.write(POST + b"Content-Length: 1000\r\n\r\n")

        async def crawl():
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    writer.write(b"x")
                    await asyncio.sleep(0.1)

        crawling = asyncio.create_task(crawl())
        assert (await head_of(reader)).startswith(b"HTTP/1.1 408 ")
        crawling.cancel()
        writer.close()


# Expect, HEAD, refusals before the body (attack 38)


async def test_a_caller_that_waits_is_asked_for_the_body():
    async with serving() as (edge, _):
        reader, writer = await connect(edge)
        writer.write(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await head_of(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_refusal_before_the_body_asks_for_none_and_ends_the_connection():
    async with serving() as (edge, flow):
        reader, writer = await connect(edge)
        writer.write(
            b"POST /llm/unread HTTP/1.1\r\nHost: gate\r\nContent-Length: 90\r\nExpect: 100-continue\r\n\r\n"
        )
        head = await head_of(reader)
        assert head.startswith(b"HTTP/1.1 403 ")
        assert b"connection: close" in head.lower()
        writer.write(b"GET /llm/smuggled HTTP/1.1\r\nHost: gate\r\n\r\n")
        writer.close()
        assert len(flow.seen) == 1


async def test_head_has_the_length_and_no_body():
    async with serving() as (edge, _):
        said = await talk(edge, b"HEAD /llm/head HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n")
        assert b"Content-Length: 12345\r\n" in said
        assert said.endswith(b"\r\n\r\n")


async def test_a_fault_of_ours_says_nothing_of_itself():
    async with serving() as (edge, _):
        said = await talk(edge, b"GET /llm/fault HTTP/1.1\r\nHost: gate\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 500 ")
        assert b"internal-detail" not in said
        assert b"Traceback" not in said
        assert b"Doorward-Request-Id" in said


# Streams


async def test_a_stream_is_passed_on_as_it_comes():
    async with serving() as (edge, flow):
        reader, writer = await connect(edge)
        writer.write(b"GET /llm/stream HTTP/1.1\r\nHost: gate\r\n\r\n")
        await head_of(reader)
        assert await reader.readexactly(8) == b"3\r\none\r\n"
        flow.more.set()
        assert await reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        writer.close()


async def test_a_caller_that_leaves_closes_the_stream_at_once():
    async with serving() as (edge, flow):
        reader, writer = await connect(edge)
        writer.write(b"GET /llm/stream HTTP/1.1\r\nHost: gate\r\n\r\n")
        await head_of(reader)
        await reader.readexactly(8)
        writer.close()
        await asyncio.wait_for(flow.closed.wait(), 1)


async def test_a_stream_that_fails_ends_without_its_end():
    async with serving() as (edge, flow):
        flow.failing = True
        reader, writer = await connect(edge)
        writer.write(b"GET /llm/stream HTTP/1.1\r\nHost: gate\r\n\r\n")
        await head_of(reader)
        await reader.readexactly(8)
        flow.more.set()
        rest = b""
        with contextlib.suppress(ConnectionResetError):
            rest = await asyncio.wait_for(reader.read(), 2)
        assert b"0\r\n\r\n" not in rest
        writer.close()


async def test_a_stream_short_of_its_length_ends_abruptly():
    async with serving() as (edge, _):
        reader, writer = await connect(edge)
        writer.write(b"GET /llm/short HTTP/1.1\r\nHost: gate\r\n\r\n")
        await head_of(reader)
        rest = b""
        with contextlib.suppress(ConnectionResetError):
            rest = await asyncio.wait_for(reader.read(), 2)
        assert len(rest) < 100
        writer.close()


async def test_draining_finishes_what_is_open_and_refuses_what_is_new():
    flow = EchoFlow()
    settings = GatewaySettings(listen="127.0.0.1:0")
    edge = Edge(flow, settings=settings, ids=IdSource(SystemClock()), opaque={})
    await edge.start()
    port = edge.port
    idle_reader, idle_writer = await connect(edge)
    reader, writer = await connect(edge)
    writer.write(b"GET /llm/stream HTTP/1.1\r\nHost: gate\r\n\r\n")
    await head_of(reader)
    draining = asyncio.create_task(edge.drain(5))
    assert await asyncio.wait_for(idle_reader.read(), 2) == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    flow.more.set()
    assert await asyncio.wait_for(reader.read(), 2) == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    await asyncio.wait_for(draining, 2)
    await edge.close()
    writer.close()
    idle_writer.close()


# Listening


async def test_a_taken_port_is_a_clear_error():
    async with serving() as (edge, flow):
        settings = GatewaySettings(listen=f"127.0.0.1:{edge.port}")
        other = Edge(flow, settings=settings, ids=IdSource(SystemClock()), opaque={})
        with pytest.raises(InvalidConfigError, match="the port is taken"):
            await other.start()


@pytest.mark.parametrize("listen", ["0.0.0.0:8640", "192.168.1.2:8640", "gate.example:8640"])
def test_plain_http_off_loopback_is_refused_at_start(listen):
    with pytest.raises(InvalidConfigError, match="in the clear"):
        Edge(EchoFlow(), settings=GatewaySettings(listen=listen), ids=IdSource(SystemClock()), opaque={})


async def test_the_certificate_of_the_connection_reaches_the_flow(certificates):
    async with serving(tls=certificates.server) as (edge, flow):
        for context, expected in ((certificates.with_client, True), (certificates.without_client, False)):
            reader, writer = await connect(edge, ssl=context, server_hostname="localhost")
            writer.write(GET + b"Connection: close\r\n\r\n")
            assert (await head_of(reader)).startswith(b"HTTP/1.1 200")
            writer.close()
            peer = flow.seen[-1].peer
            assert peer.tls
            assert (peer.certificate is not None) is expected
            if expected:
                shown = x509.load_der_x509_certificate(peer.certificate)
                assert shown.serial_number == certificates.client_serial


async def test_plain_bytes_on_a_tls_port_get_no_answer(certificates):
    async with serving(tls=certificates.server) as (edge, flow):
        said = b""
        with contextlib.suppress(OSError):
            said = await talk(edge, GET + b"\r\n")
        assert said == b""
        assert flow.seen == []


def test_tls_is_at_least_1_2(certificates):
    assert certificates.server.minimum_version >= ssl.TLSVersion.TLSv1_2


async def test_the_refusal_is_a_problem_document():
    async with serving() as (edge, _):
        said = await talk(edge, SMUGGLES["two hosts"])
        document = json.loads(said.partition(b"\r\n\r\n")[2])
        assert document["code"] == "invalid_request"
        assert document["status"] == 400
