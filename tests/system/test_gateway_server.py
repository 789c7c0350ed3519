"""A whole gateway over real sockets: edge, flow, upstream connections, admin socket, orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from doorward.core.clock import SystemClock
from doorward.core.decision import Decision, Effect
from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.core.feed import Place
from doorward.core.identity import Caller
from doorward.core.ids import IdSource
from doorward.core.model import Action, EntityUid
from doorward.core.wire import Answer, UpstreamRequest
from doorward.gateway.adapter import Ask, BodyNeed, Naming
from doorward.gateway.canonical import opaque_after
from doorward.gateway.edge import Edge
from doorward.gateway.faults import UnreachableError
from doorward.gateway.flow import Flow
from doorward.gateway.metrics import GatewayMetrics
from doorward.gateway.refusal import problem
from doorward.gateway.server import AdminSocket, GatewayServer, Readiness
from doorward.gateway.streams import OpenAnswers
from doorward.gateway.upstream import HttpUpstream, host_of
from doorward.settings import (
    GatewaySettings,
    HeaderCredential,
    MtlsCredential,
    MtlsCredentialHolder,
    UpstreamSettings,
)
from support.shared import Shared

DANA = EntityUid.of("User", "dana")


class Behind:
    """The protected system: remembers what reached it; `/stream` runs until it is let go."""

    def __init__(self):
        self.seen = []
        self.left = asyncio.Event()
        self.go_on = asyncio.Event()

    async def serve(self, request):
        if request.path == "/hang":
            await asyncio.sleep(30)
        body = await request.read()
        self.seen.append((request.method, request.raw_path, dict(request.headers), body))
        if request.path == "/flood":
            return await self._flood(request)
        if request.path == "/stream":
            return await self._stream(request)
        if request.path == "/die":
            request.transport.abort()
        if request.path == "/redirect":
            return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest"})
        if request.path == "/gzip":
            return web.Response(body=b"\x1f\x8bnot really", headers={"Content-Encoding": "gzip"})
        headers = {"Set-Cookie": "a=1", "X-Powered-By": "secrets"}
        return web.Response(body=b"echo:" + body, headers=headers)

    async def _flood(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise

    async def _stream(self, request):
        response = web.StreamResponse()
        try:
            await response.prepare(request)
            await response.write(b"first")
            await self.go_on.wait()
            await response.write(b"last")
            await response.write_eof()
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response


@contextlib.asynccontextmanager
async def behind(*, unix=None, tls=None):
    system = Behind()
    server = web.Server(system.serve, handler_cancellation=True)
    loop = asyncio.get_running_loop()
    if unix is not None:
        listener = await loop.create_unix_server(server, unix)
        url = f"unix:{unix}"
    else:
        listener = await loop.create_server(server, "127.0.0.1", 0, ssl=tls)
        scheme = "https" if tls is not None else "http"
        url = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield system, url
    finally:
        listener.close()
        await server.shutdown(0.1)


def upstream_settings(url, **fields):
    return UpstreamSettings(name="llm", kind="http", url=url, **fields)


async def sent(client, target="/x", method="POST", body=b"hi", headers=()):
    answer = await client.send(
        UpstreamRequest(method=method, target=target, headers=list(headers), body=body, content_length=None)
    )
    content = b"".join([chunk async for chunk in answer.chunks()])
    await answer.close()
    return answer, content


@contextlib.asynccontextmanager
async def client_of(url, *, seconds=5.0, base=Path(), **fields):
    client = HttpUpstream(upstream_settings(url, **fields), timeout=seconds, base=base)
    try:
        yield client
    finally:
        await client.close()


# Upstream connections


async def test_bytes_pass_as_they_are():
    async with behind() as (system, url), client_of(url) as client:
        answer, content = await sent(
            client, "/a%20b/c%2Bd?x=%2F&y=a+b", headers=[("Host", "evil"), ("X-A", "1")]
        )
        assert (answer.status, content) == (200, b"echo:hi")
        method, target, headers, body = system.seen[0]
        assert (method, target, body) == ("POST", "/a%20b/c%2Bd?x=%2F&y=a+b", b"hi")
        assert headers == {"Host": host_of(url), "X-A": "1", "Content-Length": "2"}


async def test_a_stream_with_a_length_is_sent_with_it():
    async def body():
        yield b"one"
        yield b"two"

    async with behind() as (system, url), client_of(url) as client:
        request = UpstreamRequest(method="PUT", target="/x", headers=[], body=body(), content_length=6)
        answer = await client.send(request)
        await answer.close()
        assert system.seen[0][3] == b"onetwo"
        assert system.seen[0][2]["Content-Length"] == "6"
        assert "Transfer-Encoding" not in system.seen[0][2]


async def test_redirects_are_not_followed_and_nothing_is_decompressed(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with behind() as (system, url), client_of(url) as client:
        answer, _ = await sent(client, "/redirect")
        assert answer.status == 302
        answer, content = await sent(client, "/gzip")
        assert content == b"\x1f\x8bnot really"
        assert len(system.seen) == 2


async def test_cookies_are_never_kept():
    async with behind() as (system, url), client_of(url) as client:
        await sent(client)
        await sent(client)
        assert "Cookie" not in system.seen[1][2]


async def test_an_upstream_on_a_unix_socket():
    with tempfile.TemporaryDirectory() as folder:
        async with behind(unix=f"{folder}/s") as (system, url), client_of(url) as client:
            assert (await sent(client))[1] == b"echo:hi"
            assert system.seen[0][2]["Host"] == "localhost"


async def test_an_upstream_that_is_down_is_unreachable():
    async with behind() as (_, url):
        pass
    async with client_of(url) as client:
        with pytest.raises(UnreachableError):
            await sent(client)
    async with client_of("unix:/nonexistent/s") as client:
        with pytest.raises(UnreachableError):
            await sent(client)


async def test_an_upstream_that_hangs_is_a_timeout():
    async with behind() as (_, url), client_of(url, seconds=0.2) as client:
        with pytest.raises(UnavailableError) as failed:
            await sent(client, "/hang")
        assert failed.value.code == "upstream_timeout"


async def test_an_upstream_that_dies_is_asked_once_only():
    async with behind() as (system, url), client_of(url) as client:
        with pytest.raises(UnavailableError) as failed:
            await sent(client, "/die", method="GET", body=None)
        assert failed.value.code == "upstream_unavailable"
        assert not isinstance(failed.value, UnreachableError)
        assert len(system.seen) == 1


async def test_an_upstream_behind_its_own_ca_and_a_client_certificate(certificates, tmp_path):
    certificates.server.verify_mode = 2
    mtls = MtlsCredential(cert=Path("client.pem"), key=Path("client.pem"))
    credential = MtlsCredentialHolder(mtls=mtls)
    async with behind(tls=certificates.server) as (_, url):
        async with client_of(url, base=tmp_path, ca=Path("ca.pem"), credential=credential) as client:
            assert (await sent(client))[1] == b"echo:hi"
        async with client_of(url, base=tmp_path, ca=Path("ca.pem")) as client:
            with pytest.raises(UnavailableError):
                await sent(client)
        async with client_of(url) as client:
            with pytest.raises(UnavailableError):
                await sent(client)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:9", "http://llm.example", "ftp://127.0.0.1", "http://u:p@127.0.0.1", "x"]
)
def test_an_upstream_that_would_leak_or_makes_no_sense_is_refused(url):
    with pytest.raises(InvalidConfigError):
        # The settings refuse these too; the connection does not rely on it.
        HttpUpstream(upstream_settings("http://127.0.0.1").model_copy(update={"url": url}), timeout=1)


def test_a_missing_ca_file_is_named():
    with pytest.raises(InvalidConfigError, match=r"missing\.pem"):
        HttpUpstream(upstream_settings("https://127.0.0.1", ca=Path("/nowhere/missing.pem")), timeout=1)


# The whole gateway


class Passing:
    """Everything below the first segment is `invoke` of one model."""

    kind = "http"

    def __init__(self, settings):
        self.settings = settings

    def keeps(self, _naming):
        return frozenset()

    def body_need(self, request):
        return BodyNeed.NONE if request.method == "GET" else BodyNeed.WHOLE

    def name(self, _request, _body, _catalogue):
        return Naming(asks=(Ask(Action.INVOKE, EntityUid.of("Model", "llm/m")),), route="/")

    async def forward(self, permit, upstream):
        answer = await upstream.send(
            UpstreamRequest(
                method=permit.request.method,
                target=permit.request.raw_path.removeprefix("/llm"),
                headers=list(permit.request.headers),
                body=permit.body or None,
            )
        )
        return Answer(status=answer.status, headers=answer.headers, body=answer.chunks())

    def refuse(self, _request, refusal):
        return problem(refusal)

    def broken_off(self, _request, refusal):
        return f"data: {refusal.code}\n\n".encode()

    def not_found(self, _request, _naming, _request_id):
        return Answer(status=404, headers=[], body=b"")


class Point:
    """Allows until told otherwise."""

    def __init__(self):
        self.changed, self.version, self.allows, self.gone = 0, 1, True, False
        self.bundle_digest, self.entities_version = "sha256:b", "v1"

    @property
    def snapshot(self):
        return self

    def pin(self):
        if self.gone:
            raise UnavailableError("no policies have been loaded")
        return self

    def decide(self, _request):
        return Decision(Effect.ALLOW if self.allows else Effect.DENY)

    def explain(self, _request, decision, _caller):
        return decision

    def visible(self, _principal, _resource):
        return True

    def inputs(self, _request):
        return ""

    def entity(self, _uid):
        return None

    def covering(self, _name, _kinds):
        return None

    def zone_of(self, _ip):
        return "unknown"

    def place_of(self, _ip):
        return Place()

    def purposes_of(self, _principal):
        return frozenset()


class Anyone:
    valid = True

    async def authenticate(self, _request):
        return Caller(DANA, "k", "key")

    def still_valid(self, _caller):
        return self.valid


class Log:
    def __init__(self):
        self.records = []

    async def write(self, record):
        self.records.append(record)

    def write_soon(self, record):
        self.records.append(record)


class Gate:
    """One composed gateway, as `app` composes it."""

    def __init__(self, url, folder, *, grace=0.5):
        clock = SystemClock()
        ids = IdSource(clock)
        settings = GatewaySettings(listen="127.0.0.1:0")
        own = HeaderCredential.model_construct(header="Authorization", value="Bearer own")
        upstreams = (upstream_settings(url, credential=own),)
        self.point, self.who, self.log = Point(), Anyone(), Log()
        self.open = OpenAnswers(lambda: self.point.changed)
        self.stale = 0.0
        self.metrics = GatewayMetrics(open_answers=lambda: len(self.open), staleness=lambda: self.stale)
        clients = {u.name: HttpUpstream(u, timeout=settings.upstream_timeout) for u in upstreams}
        flow = Flow(
            authenticator=self.who,
            point=self.point,
            adapters={u.name: Passing(u) for u in upstreams},
            upstreams=clients,
            audit=self.log,
            limits=Shared(clock),
            open_answers=self.open,
            clock=clock,
            ids=ids,
            settings=settings,
            staleness=lambda: self.stale,
            meter=self.metrics,
        )
        opaque = {u.name: after for u in upstreams if (after := opaque_after(u.kind)) is not None}
        self.socket = Path(folder) / "gateway.sock"
        readiness = Readiness(self.point, staleness=lambda: self.stale, max_staleness=settings.max_staleness)
        self.server = GatewayServer(
            flow=flow,
            edge=Edge(flow, settings=settings, ids=ids, opaque=opaque),
            admin=AdminSocket(self.socket, readiness, self.metrics),
            open_answers=self.open,
            upstreams=tuple(clients.values()),
            grace=grace,
        )

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.port}"

    async def outcome(self):
        async with asyncio.timeout(2):
            while not (found := [r for r in self.log.records if r.kind == "outcome"]):
                await asyncio.sleep(0.01)
        return found[0].outcome


@contextlib.asynccontextmanager
async def gate(**options):
    with tempfile.TemporaryDirectory() as folder:
        async with behind() as (system, url):
            composed = Gate(url, folder, **options)
            await composed.server.start()
            try:
                async with aiohttp.ClientSession() as session:
                    yield composed, system, session
            finally:
                await composed.server.stop()


async def test_a_request_passes_with_the_upstreams_credential_and_comes_back_clean():
    async with gate() as (composed, system, session):
        headers = {"Authorization": "Bearer dw_mine", "X-Forwarded-For": "1.1.1.1"}
        async with session.post(f"{composed.url}/llm/x", data=b"hi", headers=headers) as answer:
            assert (answer.status, await answer.read()) == (200, b"echo:hi")
            assert "Set-Cookie" not in answer.headers
            assert "X-Powered-By" not in answer.headers
            assert answer.headers["Doorward-Request-Id"] == composed.log.records[0].request_id
        seen = system.seen[0][2]
        assert seen["Authorization"] == "Bearer own"
        assert "dw_mine" not in str(seen)
        assert "X-Forwarded-For" not in seen
        assert (await composed.outcome())["ended"] == "complete"


async def test_a_revoked_key_ends_its_stream_within_a_second():
    async with gate() as (composed, system, session):
        async with session.get(f"{composed.url}/llm/stream") as answer:
            assert await answer.content.readexactly(5) == b"first"
            begun = datetime.now(UTC)
            composed.who.valid = False
            composed.point.changed += 1
            with pytest.raises(aiohttp.ClientError):
                await asyncio.wait_for(answer.content.read(), 3)
            assert (datetime.now(UTC) - begun).total_seconds() < 1
        await asyncio.wait_for(system.left.wait(), 1)
        outcome = await composed.outcome()
        assert (outcome["ended"], outcome["bytes"]) == ("cut", 5)


async def test_a_clock_that_runs_out_ends_the_stream_without_any_change():
    async with gate() as (composed, _, session), session.get(f"{composed.url}/llm/stream") as answer:
        await answer.content.readexactly(5)
        composed.who.valid = False
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(answer.content.read(), 3)
        assert (await composed.outcome())["ended"] == "cut"


async def test_a_caller_that_does_not_read_is_cut_all_the_same():
    async with gate() as (composed, system, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", composed.server.port, limit=1024)
        writer.write(b"GET /llm/flood HTTP/1.1\r\nHost: gate\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        # Everything between is full now: the gateway waits to write.
        await asyncio.sleep(0.5)
        composed.who.valid = False
        composed.point.changed += 1
        await asyncio.wait_for(system.left.wait(), 1)
        assert (await composed.outcome())["ended"] == "cut"
        rest = b""
        with contextlib.suppress(ConnectionResetError):
            rest = await asyncio.wait_for(reader.read(), 2)
        assert not rest.endswith(b"0\r\n\r\n")
        writer.close()


async def test_a_caller_that_leaves_mid_stream_ends_the_upstream_within_a_second():
    async with gate() as (composed, system, session):
        answer = await session.get(f"{composed.url}/llm/stream")
        await answer.content.readexactly(5)
        answer.close()
        await asyncio.wait_for(system.left.wait(), 1)
        assert (await composed.outcome())["ended"] == "client_left"
        assert len(composed.open) == 0


async def test_stopping_finishes_streams_within_the_grace():
    async with gate(grace=5) as (composed, system, session):
        async with session.get(f"{composed.url}/llm/stream") as answer:
            await answer.content.readexactly(5)
            stopping = asyncio.create_task(composed.server.stop())
            await asyncio.sleep(0.05)
            system.go_on.set()
            assert await answer.content.read() == b"last"
        await asyncio.wait_for(stopping, 3)


async def test_stopping_cuts_streams_after_the_grace():
    async with (
        gate(grace=0.2) as (composed, system, session),
        session.get(f"{composed.url}/llm/stream") as answer,
    ):
        await answer.content.readexactly(5)
        await asyncio.wait_for(composed.server.stop(), 3)
        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()
        await asyncio.wait_for(system.left.wait(), 1)
        assert (await composed.outcome())["ended"] == "cut"


async def ask_admin(composed, path):
    connector = aiohttp.UnixConnector(path=str(composed.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://admin{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_the_admin_socket_tells_health_readiness_and_numbers():
    async with gate() as (composed, _, session):
        assert stat.S_IMODE(composed.socket.stat().st_mode) == 0o600
        assert await ask_admin(composed, "/healthz") == (200, "ok\n")
        status, text = await ask_admin(composed, "/readyz")
        assert status == 200
        assert json.loads(text) == {
            "ready": True,
            "staleness": 0.0,
            "bundle": "sha256:b",
            "entities": "v1",
            "policies_refused": False,
        }
        await session.get(f"{composed.url}/llm/x")
        await session.get(f"{composed.url}/nowhere/x")
        _, numbers = await ask_admin(composed, "/metrics")
        assert 'doorward_requests_total{code="allowed",status="200",upstream="llm"} 1.0' in numbers
        assert 'doorward_requests_total{code="not_found",status="404",upstream=""} 1.0' in numbers
        assert "doorward_open_answers" in numbers


async def test_not_ready_without_a_bundle_or_when_stale():
    async with gate() as (composed, _, _session):
        composed.stale = 1e9
        assert (await ask_admin(composed, "/readyz"))[0] == 503
        composed.stale, composed.point.gone = 0.0, True
        assert (await ask_admin(composed, "/readyz"))[0] == 503
        assert (await ask_admin(composed, "/healthz"))[0] == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/debug", "/"])
async def test_the_data_port_has_no_other_doors(path):
    async with gate() as (composed, system, session), session.get(composed.url + path) as answer:
        assert answer.status == 404
        assert system.seen == []


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_two_hundred_streams_left_behind_leave_nothing_behind():
    async with gate() as (composed, _, session):
        before = open_files()
        for _ in range(10):
            answers = await asyncio.gather(*(session.get(f"{composed.url}/llm/stream") for _ in range(20)))
            for answer in answers:
                answer.close()
        async with asyncio.timeout(30):
            while len(composed.open) or open_files() > before + 20:
                await asyncio.sleep(0.02)
