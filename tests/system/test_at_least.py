"""The new enemy: who lost a right is not let in by a gateway that has not heard of it, if so demanded."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest

from doorward.sdk import Client
from support.installation import Installation, SlowLLM, wait_until

POLICIES = """
@id("team-invokes")
permit (principal in Doorward::Group::"team", action == Doorward::Action::"invoke", resource);
@id("all-view")
permit (principal is Doorward::User, action == Doorward::Action::"view", resource is Doorward::Model);
"""
ORG = """
users:
  ada: { employment: employee, groups: [team] }
  bob: { employment: employee, groups: [team] }
assets:
  Model::"llm/m": { owner: ada, sensitivity: 1, environment: production }
"""
WITHOUT = ORG.replace(
    "bob: { employment: employee, groups: [team] }", "bob: { employment: employee, groups: [] }"
)


class Relay:
    """Stands between a gateway and the feed, and may hold back what the feed says."""

    def __init__(self, place: Path) -> None:
        self._place, self._real = place, place.with_name("feed.real.sock")

    def __enter__(self) -> Self:
        self._place.rename(self._real)
        self._started, self.clients = threading.Event(), 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def hold(self) -> None:
        self._loop.call_soon_threadsafe(self._open.clear)

    def let_go(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open, self._stop = asyncio.Event(), asyncio.Event()
        self._open.set()
        server = await asyncio.start_unix_server(self._pass, str(self._place))
        self._started.set()
        await self._stop.wait()
        server.close()

    async def _pass(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients += 1
        source, other = await asyncio.open_unix_connection(str(self._real), limit=1 << 26)
        try:
            while chunk := await source.read(1 << 20):
                await self._open.wait()
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            other.close()
            writer.close()


@pytest.fixture
def llm() -> Iterator[SlowLLM]:
    with SlowLLM() as running:
        running.answer_now()
        yield running


@pytest.fixture
def installation(llm: SlowLLM) -> Iterator[Installation]:
    upstream = f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{llm.port}"\n'
    with Installation(upstreams=upstream, org=ORG, policies=POLICIES) as made:
        yield made.start()


@pytest.fixture
def relay(installation: Installation) -> Iterator[Relay]:
    """Put the relay before a gateway that is started again."""
    with Relay(installation.data / "feed.sock") as made:
        first = installation.pid("gateway")
        os.kill(first or 0, signal.SIGKILL)
        wait_until(lambda: made.clients > 0, what="the gateway follows the relay")
        yield made


def asks(installation: Installation, key: str, **headers: str) -> tuple[int, dict[str, str]]:
    async def ask() -> tuple[int, dict[str, str]]:
        url = f"{installation.url}/llm/v1/chat/completions"
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        sent = {"Authorization": f"Bearer {key}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=sent) as answer:
            await answer.read()
            return answer.status, dict(answer.headers)

    try:
        return asyncio.run(ask())
    except aiohttp.ClientConnectionError:
        return 0, {}


def written(installation: Installation, org: str) -> str:
    """Apply an org file; return the token of the answer."""
    with socket.socket(socket.AF_UNIX) as plug:
        plug.connect(str(installation.data / "control.sock"))
        connection = http.client.HTTPConnection("localhost")
        connection.sock = plug
        body = json.dumps({"org": org, "source": "org.yaml", "prune": True})
        connection.request("POST", "/api/v1/apply", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content: Any = json.loads(answer.read())
        assert answer.status == 200, content
        token = answer.headers["Doorward-At-Least"]
        assert token == f"v{content['version']}"
        return token


def test_nobody_is_let_in_by_what_was_known_before(
    installation: Installation, relay: Relay, llm: SlowLLM
) -> None:
    key = installation.key("bob")["key"]
    wait_until(lambda: asks(installation, key)[0] == 200, what="the gateway is back")
    relay.hold()
    token = written(installation, WITHOUT)
    # The problem is real: this gateway has not heard of it.
    assert asks(installation, key)[0] == 200
    before = len(llm.models)
    started = time.monotonic()
    status, headers = asks(installation, key, Doorward_At_Least=token)
    assert (status, headers["Retry-After"]) == (503, "1")
    assert time.monotonic() - started >= 1
    assert len(llm.models) == before
    refused = [r for r in installation.records() if r.get("request_id") == headers["Doorward-Request-Id"]]
    assert [(r["decision"], r["code"]) for r in refused] == [("deny", "unavailable")]
    # Held until it arrives, then decided on it.
    found: list[tuple[int, dict[str, str]]] = []
    asking = threading.Thread(target=lambda: found.append(asks(installation, key, Doorward_At_Least=token)))
    asking.start()
    relay.let_go()
    asking.join(60)
    while found[-1][0] == 503:  # a slow machine: the caller does as it is told
        found.append(asks(installation, key, Doorward_At_Least=token))
    status, headers = found[-1]
    assert status == 403
    record = next(r for r in installation.records() if r.get("request_id") == headers["Doorward-Request-Id"])
    assert int(record["entities"][1:]) >= int(token[1:])
    assert len(llm.models) == before


def test_every_way_to_ask_takes_the_demand(installation: Installation) -> None:
    token = written(installation, WITHOUT)
    later = f"v{int(token[1:]) + 1000}"
    question = ('User::"bob"', "invoke", 'Model::"llm/m"')
    assert "DENY" in installation.cli("can", *question, "--at-least", token, code=1)
    assert later in installation.cli("can", *question, "--at-least", later, code=8)
    assert "names no versions" in installation.cli("can", *question, "--at-least", "newest", code=2)
    with Client(socket=installation.data / "control.sock", timeout=20) as client:
        assert client.can('User::"ada"', "invoke", 'Model::"llm/m"', at_least=token).allowed
        behind = client.can('User::"ada"', "invoke", 'Model::"llm/m"', at_least=later)
        assert not behind.allowed
        assert "503" in behind.errors[0]
        each = client.can_each('User::"ada"', "invoke", ['Model::"llm/m"'], at_least=later)
        assert not each[0].allowed
        wrong = client.can('User::"ada"', "invoke", 'Model::"llm/m"', at_least="newest")
        assert "names no versions" in wrong.errors[0]
    bundle = json.loads(installation.cli("can", *question, "--json", code=1))["bundle"]
    assert "DENY" in installation.cli("can", *question, "--at-least", f"{token} {bundle}", code=1)
    other = "sha256:" + "0" * 64
    assert other in installation.cli("can", *question, "--at-least", other, code=8)
