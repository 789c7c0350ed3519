"""A door with one protocol file and no lock, to compare what stock clients get with the upstream's answers.

Whoever asks is the same caller; a test says what is visible and what is denied.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from aiohttp import web

from doorward.core.decision import Change
from doorward.core.errors import DoorwardError
from doorward.core.identity import Caller
from doorward.core.model import EntityUid
from doorward.core.wire import Answer, Body, Peer, Request
from doorward.gateway.adapter import Adapter, BodyNeed, Naming, Permit, Refining, UnknownRouteError
from doorward.gateway.passage import Passage
from doorward.gateway.refusal import of_error, refusal
from doorward.gateway.upstream import HttpUpstream
from doorward.settings import UpstreamSettings

ROOT = Path(__file__).parents[2]
CALLER = Caller(EntityUid.of("User", "dana"), credential="k1", method="key")
WAY_IN = Change("context.device.proven", "Use your managed laptop.")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class NothingRegistered:
    def covering(self, name: str, kinds: tuple[str, ...]) -> EntityUid | None:
        del name, kinds


@dataclass
class _Incoming(Body):
    content: web.Request

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self.content.content.iter_any():
            yield chunk


@dataclass
class AdapterDoor:
    """Serve one adapter on `url`; `hidden` names do not exist, `denied` are refused: `deploy Model::"x"`."""

    adapter: Adapter
    hidden: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)
    ended: queue.Queue[dict[str, int]] = field(default_factory=queue.Queue)
    unknown: list[str] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.adapter.settings.name}"

    def forgets(self) -> None:
        for memory in (self.hidden, self.denied, self.seen, self.unknown):
            memory.clear()
        while not self.ended.empty():
            self.ended.get()

    def outcome(self) -> dict[str, int]:
        """Return the outcome of the next answer that is over; a client may be served before that."""
        return self.ended.get(timeout=10)

    async def handle(self, incoming: web.Request) -> web.StreamResponse:
        request, outcome = _read(incoming), dict[str, int]()
        try:
            answer = await self._answer(request, outcome)
        except UnknownRouteError as unknown:
            self.unknown.append(str(unknown))
            answer = self.adapter.refuse(request, refusal("denied", "This route is not known.", request.id))
        except DoorwardError as error:
            answer = self.adapter.refuse(request, of_error(error, request.id))
        try:
            return await _write(incoming, answer)
        finally:
            self.ended.put(outcome)

    async def _answer(self, request: Request, outcome: dict[str, int]) -> Answer:
        whole = self.adapter.body_need(request) is BodyNeed.WHOLE
        body = b"".join([chunk async for chunk in request.body.chunks()]) if whole else b""
        naming = self.adapter.name(request, body, NothingRegistered())
        passage = Passage(self.client, self.adapter.settings, caller=request.headers)
        if isinstance(self.adapter, Refining):
            # As the flow does: before the verdict an adapter may only look.
            probe = Passage(self.client, self.adapter.settings, caller=request.headers, probe=True)
            naming = await self.adapter.refine(request, naming, probe)
            await probe.close()
        self.seen += [f"{ask.action} {ask.resource}" for ask in naming.asks]
        if (refused := self._refused(request, naming)) is not None:
            return refused
        permit = Permit(
            request=request,
            body=body,
            naming=naming,
            caller=CALLER,
            obligations=(),
            sees=lambda uid: str(uid) not in self.hidden,
            outcome=outcome,
        )
        return await self.adapter.forward(permit, passage)

    def _refused(self, request: Request, naming: Naming) -> Answer | None:
        if any(str(ask.resource) in self.hidden for ask in naming.asks):
            return self.adapter.not_found(request, naming, request.id)
        for ask in naming.asks:
            if f"{ask.action} {ask.resource}" in self.denied:
                detail = f"You may not {ask.action} {ask.resource}."
                said = refusal("denied", detail, request.id, would_allow=(WAY_IN,))
                return self.adapter.refuse(request, said)
        return None

    async def run(self, started: threading.Event, ended: asyncio.Event) -> None:
        self.client = HttpUpstream(self.adapter.settings, timeout=60)
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{rest:.*}", self.handle)
        runner = web.AppRunner(app, auto_decompress=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        started.set()
        await ended.wait()
        await runner.cleanup()
        await self.client.close()


def _read(incoming: web.Request) -> Request:
    raw_path, _, raw_query = incoming.raw_path.partition("?")
    return Request(
        id=secrets.token_hex(8),
        method=incoming.method,
        path=incoming.path,
        raw_path=raw_path,
        query=tuple(parse_qsl(raw_query, keep_blank_values=True)),
        raw_query=raw_query,
        headers=tuple((name.lower(), value) for name, value in incoming.headers.items()),
        peer=Peer(ip="127.0.0.1"),
        body=_Incoming(incoming),
    )


async def _write(incoming: web.Request, answer: Answer) -> web.StreamResponse:
    headers = [(name, value) for name, value in answer.headers if name.lower() != "content-length"]
    if isinstance(answer.body, bytes):
        response = web.Response(status=answer.status, body=answer.body)
        response.headers.update(headers)
        return response
    streamed = web.StreamResponse(status=answer.status)
    streamed.headers.update(headers)
    await streamed.prepare(incoming)
    async for chunk in answer.body:
        await streamed.write(chunk)
    await streamed.write_eof()
    return streamed


@contextlib.contextmanager
def served(door: AdapterDoor) -> Iterator[AdapterDoor]:
    """Serve the door from a thread of its own, so that blocking stock clients can be used."""
    started, loop, ended = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(door.run(started, ended)), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield door
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)


@contextlib.contextmanager
def running(
    command: list[str], *, ready: str, seconds: float, log: Path, **environment: str
) -> Iterator[None]:
    """Run a real upstream until the block ends; wait until `ready` answers."""
    env = {**os.environ, **environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env, start_new_session=True)
        try:
            _wait_for(ready, seconds, process, log)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def _wait_for(url: str, seconds: float, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):  # noqa: S310 -- loopback
            return
        time.sleep(0.1)
    raise AssertionError(f"{url} did not answer: {log.read_text(errors='replace')[-2000:]}")


def model_file() -> Path:
    """Return the language model's weights, or skip the test that needs them."""
    named = os.environ.get("DOORWARD_TEST_MODEL")
    found = [Path(named)] if named else sorted((ROOT / ".cache" / "models").rglob("*.gguf"))
    if not found or not found[0].is_file():
        pytest.skip("no language model: set DOORWARD_TEST_MODEL to a .gguf file or run `make test`")
    return found[0]


def settings_of(name: str, kind: str, port: int) -> UpstreamSettings:
    """Return the settings of a loopback upstream."""
    return UpstreamSettings.model_validate({"name": name, "kind": kind, "url": f"http://127.0.0.1:{port}"})
