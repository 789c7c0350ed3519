"""The SDK answers alike in process, over the Unix socket and over HTTP, and never fails open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fastapi import Depends, FastAPI

from doorward.core.errors import DeniedError, InvalidConfigError, InvalidPolicyError
from doorward.core.model import EntityUid
from doorward.core.obligation import Mask, StepUp
from doorward.sdk import Ask, Client, Decision, DecisionPoint, Effect, GuardMiddleware, guard, requires
from support import console_plane
from support.authzen_plane import key_for
from support.console_plane import Plane
from support.policies import ORG, STARTER

DANA, OMAR = 'User::"dana"', 'User::"omar"'
TRAINING, SEALED = 'Dataset::"store/training/a.csv"', 'Dataset::"store/sealed"'
RIGHTS = """
@id("asks") permit(principal == Doorward::Service::"etl", action == Doorward::Action::"inspect", resource)
  when { resource == Doorward::Control::"policies" || resource == Doorward::Control::"audit" };
@id("obliged") @mask("email") @stepup("acr=aal2,max_age=900")
permit(principal == Doorward::User::"bea", action == Doorward::Action::"read",
       resource == Doorward::Dataset::"store/sealed");
"""
POLICIES = (STARTER / "data.cedar").read_text() + RIGHTS


@pytest_asyncio.fixture
async def plane() -> AsyncIterator[Plane]:
    async with console_plane.running(policies=POLICIES) as running:
        body = {"org": ORG, "source": "org.yaml", "prune": False, "plan": False}
        assert (await running.operator("POST", "/api/v1/apply", body))[0] == 200
        yield running


@pytest.fixture
def embedded(tmp_path: Path) -> DecisionPoint:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.cedar").write_text(POLICIES)
    (tmp_path / "org.yaml").write_text(ORG)
    return DecisionPoint(tmp_path / "policies", tmp_path / "org.yaml")


async def test_three_ways_to_ask_one_answer(plane: Plane, embedded: DecisionPoint) -> None:
    over_socket = Client(socket=plane.data / "control.sock", timeout=20)
    key = key_for(plane, EntityUid.of("Service", "etl"))
    over_http = Client(plane.url, key=key, timeout=20)
    for question in ((DANA, "read", TRAINING), (OMAR, "read", TRAINING), ('User::"bea"', "read", SEALED)):
        answers = [await point.acan(*question) for point in (embedded, over_socket, over_http)]
        assert all(isinstance(answer, Decision) for answer in answers)
        assert len({(a.effect, a.determining, a.obligations) for a in answers}) == 1, answers
    obliged = await over_http.acan('User::"bea"', "read", SEALED)
    assert obliged.obligations == (Mask(("email",)), StepUp("aal2", 900))
    assert (await over_http.acan(DANA, "read", TRAINING)).advice
    assert obliged.bundle == plane.services.point.pin().bundle_digest
    each = await asyncio.to_thread(over_http.can_each, OMAR, "read", [TRAINING, SEALED, TRAINING])
    assert [one.allowed for one in each] == [
        embedded.can(OMAR, "read", r).allowed for r in (TRAINING, SEALED, TRAINING)
    ]


async def test_a_wrong_key_and_a_wrong_name_are_denials(plane: Plane, embedded: DecisionPoint) -> None:
    wrong = await Client(plane.url, key="dw_nonsense", timeout=20).acan(OMAR, "read", TRAINING)
    assert not wrong.allowed
    assert "401" in wrong.errors[0]
    for point in (embedded, Client(plane.url, timeout=20)):
        for question in (
            ("omar", "read", TRAINING),
            (OMAR, "raed", TRAINING),
            (OMAR, "read", 'Dataset::"no/x"'),
        ):
            answer = await point.acan(*question)
            assert not answer.allowed
            assert answer.errors


def serving(payload: bytes, *, drip: float = 0) -> contextlib.AbstractContextManager[int]:
    """Serve one raw answer per connection, perhaps a byte at a time."""

    @contextlib.contextmanager
    def run() -> Iterator[int]:
        listener = socket.create_server(("127.0.0.1", 0))
        stop = threading.Event()

        def loop() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65_536)
                        for at in range(len(payload)) if drip else ():
                            connection.sendall(payload[at : at + 1])
                            time.sleep(drip)
                        if not drip:
                            connection.sendall(payload)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(10)

    return run()


def answered(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


ODD = {
    "no-decision": answered(b"{}"),
    "truthy": answered(b'{"decision": "true"}'),
    "one": answered(b'{"decision": 1}'),
    "list": answered(b"[true]"),
    "no-json": answered(b"true, trust me"),
    "not-200": answered(b'{"decision": true}', "201 Created"),
    "server-error": answered(b'{"decision": true}', "500 Oops"),
    "cut": answered(b'{"decision": true}')[:-1],
    "empty": b"",
    "no-http": b"\x00\x01\x02",
    "unknown-obligation": answered(
        b'{"decision": true, "context": {"obligations": [{"id": "1", "type": "dance", "properties": {}}]}}'
    ),
    "mistyped-obligation": answered(
        b'{"decision": true, "context": {"obligations": [{"id": "1", "type": "step-up", "properties": {}}]}}'
    ),
    "context-list": answered(b'{"decision": true, "context": []}'),
}


@pytest.mark.parametrize("name", ODD)
def test_an_answer_that_makes_no_sense_is_a_denial(name: str) -> None:
    with serving(ODD[name]) as port:
        answer = Client(f"http://127.0.0.1:{port}", timeout=5).can(OMAR, "read", TRAINING)
    assert answer.effect is Effect.DENY
    assert answer.errors[0].startswith("sdk: ")


def test_the_same_answer_made_whole_is_an_allow() -> None:
    with serving(answered(b'{"decision": true}')) as port:
        assert Client(f"http://127.0.0.1:{port}", timeout=5).can(OMAR, "read", TRAINING).allowed


def test_a_slow_answer_is_a_denial_in_time() -> None:
    with serving(answered(b'{"decision": true}'), drip=0.05) as port:
        began = time.monotonic()
        answer = Client(f"http://127.0.0.1:{port}", timeout=0.4).can(OMAR, "read", TRAINING)
        assert time.monotonic() - began < 2
    assert not answer.allowed
    assert "within 0.4 seconds" in answer.errors[0]


def test_nobody_there_is_a_denial(tmp_path: Path) -> None:
    for client in (Client("http://127.0.0.1:9", timeout=2), Client(socket=tmp_path / "no.sock", timeout=2)):
        assert "cannot be reached" in client.can(OMAR, "read", TRAINING).errors[0]
        assert not any(decision.allowed for decision in client.can_each(OMAR, "read", [TRAINING] * 2))


@pytest.mark.parametrize(
    "url", ["http://doorward.example", "ftp://localhost", "localhost:8641", "https://a@b"]
)
def test_an_address_that_would_betray_the_key_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfigError):
        Client(url)


def test_a_broken_set_is_loud_and_what_ruled_goes_on(embedded: DecisionPoint, tmp_path: Path) -> None:
    assert embedded.can(OMAR, "read", TRAINING).allowed
    (tmp_path / "policies" / "a.cedar").write_text("permit(")
    with pytest.raises(InvalidPolicyError):
        embedded.reload()
    assert embedded.can(OMAR, "read", TRAINING).allowed


# Guarded functions


async def test_a_guarded_function_runs_only_if_it_may(embedded: DecisionPoint) -> None:
    ran: list[str] = []

    @guard(embedded, action="read", resource='Dataset::"store/{name}"', principal='User::"{user}"')
    def read(user: str, name: str = "training/a.csv") -> str:
        ran.append(name)
        return user

    @guard(embedded, action="read", resource="{dataset}")
    async def fetch(principal: EntityUid, dataset: str) -> str:
        ran.append(dataset)
        return str(principal)

    assert read("omar") == "omar"
    assert await fetch(EntityUid.of("User", "omar"), dataset=TRAINING) == OMAR
    for refused in ("dana", 'omar" ', 'x"::User::"omar', "om\\ar"):
        with pytest.raises(DeniedError):
            read(refused)
    with pytest.raises(DeniedError):
        await fetch(EntityUid.of("User", "dana"), dataset=TRAINING)
    assert ran == ["training/a.csv", TRAINING]


def test_an_obligation_nobody_keeps_stops_the_function(embedded: DecisionPoint) -> None:
    def reading(*keeps: str) -> Any:
        return guard(embedded, action="read", resource=SEALED, principal='User::"bea"', keeps=keeps)(
            lambda: "read"
        )

    with pytest.raises(DeniedError):
        reading("mask")()
    assert reading("mask", "stepup")() == "read"


def test_a_guard_that_names_no_argument_is_refused_at_once(embedded: DecisionPoint) -> None:
    with pytest.raises(InvalidConfigError, match="no argument `nmae`"):
        guard(embedded, action="read", resource='Dataset::"{nmae}"', principal=OMAR)(lambda name: name)


# Web applications


async def call(app: Any, path: str, *, user: str = "", kind: str = "http") -> tuple[int, bytes]:
    sent: list[Any] = []
    headers = [(b"x-user", user.encode())] if user else []
    scope = {
        "type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path,
        "raw_path": path.encode(), "query_string": b"", "headers": headers, "scheme": "http",
        "server": ("localhost", 80), "client": ("127.0.0.1", 1), "root_path": "",
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0].get("status", sent[0].get("code", 0)), body


async def test_the_fastapi_dependency(embedded: DecisionPoint) -> None:
    app = FastAPI()

    def who(request: Any) -> str | None:
        name = request.headers.get("x-user")
        return f'User::"{name}"' if name else None

    may = requires(embedded, action="read", resource='Dataset::"store/{name}"', principal=who)

    @app.get("/data/{name:path}")
    async def data(name: str, decision: Decision = Depends(may)) -> str:  # noqa: B008, FAST002 -- FastAPI's own form
        return f"{name} {decision.effect}"

    assert await call(app, "/data/training/a.csv", user="omar") == (200, b'"training/a.csv allow"')
    assert (await call(app, "/data/training/a.csv", user="dana"))[0] == 403
    assert (await call(app, "/data/training/a.csv"))[0] == 401
    assert (await call(app, "/data/training/a.csv", user='omar"x'))[0] == 403


async def test_the_middleware(embedded: DecisionPoint) -> None:
    seen: list[Any] = []

    async def inner(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(scope.get("doorward"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})

    def ask(scope: Any) -> Ask | None:
        user = dict(scope["headers"]).get(b"x-user", b"").decode()
        if scope["path"] == "/fault":
            raise ValueError
        if not scope["path"].startswith("/data/"):
            return None
        name = scope["path"].removeprefix("/data/")
        return Ask(EntityUid.of("User", user) if user else None, "read", EntityUid.of("Dataset", name))

    app = GuardMiddleware(inner, point=embedded, ask=ask, public=("/health",))
    assert await call(app, "/data/store/training/a.csv", user="omar") == (200, b"in")
    assert (await call(app, "/health"))[0] == 200
    assert [getattr(decision, "allowed", None) for decision in seen] == [True, None]
    status, body = await call(app, "/data/store/training/a.csv", user="dana")
    assert status == 403
    assert b"certificate of your device" in body
    assert (await call(app, "/data/store/training/a.csv"))[0] == 401
    for path in ("/else", "/fault", "/health/", "/data/store/training/a.csv"):
        assert (await call(app, path, user="dana"))[0] == 403
    assert (await call(app, "/data/store/training/a.csv", user="dana", kind="websocket"))[0] == 1008
    assert len(seen) == 2


async def test_an_asker_that_raises_is_a_denial() -> None:
    class Broken:
        async def acan(self, *_: Any, **__: Any) -> Decision:
            raise RuntimeError

    async def inner(*_: Any) -> None:
        raise AssertionError

    broken: Any = Broken()
    app = GuardMiddleware(inner, point=broken, ask=lambda _scope: Ask(OMAR, "read", TRAINING))
    assert (await call(app, "/"))[0] == 403


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that running some code loads."""
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_nothing_heavy_is_imported_until_it_is_used() -> None:
    heavy = {
        "cedarpy",
        "yaml",
        "fastapi",
        "starlette",
        "pydantic",
        "sqlalchemy",
        "aiohttp",
        "typer",
        "structlog",
    }
    assert not loaded_by("import doorward.sdk") & heavy
    client = loaded_by(
        "from doorward.sdk import Client, GuardMiddleware, guard, requires; Client('http://localhost')"
    )
    assert not client & heavy
    embedded = loaded_by("from doorward.sdk import DecisionPoint")
    assert not embedded & (heavy - {"cedarpy", "yaml", "structlog"})
