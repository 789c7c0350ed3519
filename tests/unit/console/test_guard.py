"""The guard's own judgement, table by table, and the headers it never forgets."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from doorward.console.guard import MAX_BODY, Guard, allowed_hosts, objection
from doorward.core.clock import ManualClock
from doorward.core.ids import IdSource
from doorward.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
OWN = "http://localhost:8641"


def judged(method: str, **headers: str) -> int:
    given = {"host": "localhost:8641"} | {name.replace("_", "-"): value for name, value in headers.items()}
    against = objection(
        method=method,
        scheme="http",
        headers={name: [value] for name, value in given.items()},
        hosts=HOSTS,
    )
    return against.status if against else 200


@pytest.mark.parametrize(
    ("status", "method", "headers"),
    [
        (200, "GET", {}),
        (200, "GET", {"host": "127.0.0.1:9"}),
        (200, "GET", {"host": "[::1]:8641"}),
        (200, "GET", {"host": "LOCALHOST:8641"}),
        (200, "GET", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}),
        (200, "GET", {"origin": OWN}),
        (200, "POST", {"origin": OWN}),
        (200, "POST", {"origin": "null", "sec_fetch_site": "same-origin"}),
        (200, "DELETE", {"sec_fetch_site": "same-origin"}),
        (403, "POST", {}),
        (403, "POST", {"origin": "https://localhost:8641"}),
        (403, "POST", {"origin": "http://localhost:8642"}),
        (403, "POST", {"origin": "http://127.0.0.1:8641"}),
        (403, "POST", {"origin": OWN + ".evil.example"}),
        (403, "POST", {"origin": "null"}),
        (403, "POST", {"sec_fetch_site": "none"}),
        (403, "GET", {"origin": "http://evil.example"}),
        (403, "GET", {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"}),
        (
            403,
            "GET",
            {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "object"},
        ),
        (405, "OPTIONS", {"origin": OWN}),
        (421, "GET", {"host": "evil.example:8641"}),
        (421, "GET", {"host": "localhost@evil.example"}),
        (421, "GET", {"host": "evil.example@localhost"}),
        (421, "GET", {"host": "localhost:99999"}),
        (421, "GET", {"host": "localhost#"}),
        (421, "GET", {"host": "localhost/x"}),
        (421, "GET", {"host": "[::1"}),
        (421, "GET", {"host": ""}),
    ],
)
def test_what_may_come_in_over_tcp(status: int, method: str, headers: dict[str, str]) -> None:
    assert judged(method, **headers) == status


def test_two_host_headers_are_one_too_many() -> None:
    headers = {"host": ["localhost", "localhost"]}
    against = objection(method="GET", scheme="http", headers=headers, hosts=HOSTS)
    assert against is not None
    assert against.status == 421


def test_off_loopback_the_console_answers_to_the_name_it_listens_on() -> None:
    settings = Settings(control={"listen": "10.0.0.5:8641", "tls": "auto"})
    assert "10.0.0.5" in allowed_hosts(settings)
    assert "evil.example" not in allowed_hosts(settings)


async def through(
    app: ASGIApp, *, body: tuple[bytes, ...] = (), scheme: str = "http", state: dict[str, Any] | None = None
) -> tuple[int, dict[bytes, bytes], bytes]:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    guard = Guard(app, settings=Settings(), ids=IdSource(clock))
    scope = {
        "type": "http", "method": "POST", "scheme": scheme, "path": "/x", "state": state or {},
        "headers": [(b"host", b"localhost"), (b"origin", f"{scheme}://localhost".encode())],
    }  # fmt: skip
    pieces = [{"type": "http.request", "body": piece, "more_body": True} for piece in body]
    incoming = iter([*pieces, {"type": "http.request", "body": b"", "more_body": False}])
    sent: list[Message] = []

    async def receive() -> Message:
        return next(incoming)

    async def send(message: Message) -> None:
        sent.append(message)

    await guard(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(m.get("body", b"") for m in sent[1:])


async def reads_all(scope: Any, receive: Any, send: Any) -> None:
    del scope
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"public")]})
    await send({"type": "http.response.body", "body": b"fine"})


async def swallows(scope: Any, receive: Any, send: Any) -> None:
    try:
        await reads_all(scope, receive, send)
    except Exception:  # noqa: BLE001 -- as frameworks do
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"cannot parse"})


async def breaks(*_: Any) -> None:
    raise ValueError("secret detail")


async def test_an_answer_gets_its_headers_and_loses_looser_ones() -> None:
    status, headers, _ = await through(reads_all)
    assert status == 200
    assert headers[b"cache-control"] == b"no-store"
    assert b"strict-transport-security" not in headers
    assert len(headers[b"doorward-request-id"]) == 26


async def test_over_tls_the_browser_is_told_to_stay_there() -> None:
    _, headers, _ = await through(reads_all, scheme="https")
    assert b"max-age" in headers[b"strict-transport-security"]


@pytest.mark.parametrize("app", [reads_all, swallows])
async def test_a_body_over_the_bound_is_413_whatever_the_application_makes_of_it(app: ASGIApp) -> None:
    status, headers, body = await through(app, body=(b"x" * MAX_BODY, b"x"))
    assert status == 413
    assert b"payload_too_large" in body
    assert b"content-security-policy" in headers


async def test_a_body_that_does_not_come_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doorward.console.guard.BODY_SECONDS", 0.01)

    guard = Guard(swallows, settings=Settings(), ids=IdSource(ManualClock(datetime(2026, 1, 1, tzinfo=UTC))))
    sent: list[Message] = []

    async def collect(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "scheme": "http", "path": "/x", "headers": []}
    never: Any = asyncio.Event().wait
    await guard({**scope, "state": {"peer_uid": 0}}, never, collect)
    assert sent[0]["status"] == 408


async def test_a_body_at_the_bound_passes() -> None:
    assert (await through(reads_all, body=(b"x" * MAX_BODY,)))[0] == 200


async def test_a_fault_of_ours_is_a_500_that_tells_nothing() -> None:
    status, headers, body = await through(breaks)
    assert status == 500
    assert b"secret detail" not in body
    assert b"content-security-policy" in headers


async def test_on_the_unix_socket_no_host_is_asked_for() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    guard = Guard(reads_all, settings=Settings(), ids=IdSource(clock))
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "scheme": "http", "path": "/x", "headers": []}
    await guard({**scope, "state": {"peer_uid": 0}}, receive, send)
    assert sent[0]["status"] == 200


async def test_websockets_are_not_spoken() -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("a websocket reached the application")

    guard = Guard(never, settings=Settings(), ids=IdSource(ManualClock(datetime(2026, 1, 1, tzinfo=UTC))))
    await guard({"type": "websocket"}, never, never)


def test_programs_call_the_decision_point_without_an_origin_but_no_browser_does() -> None:
    hosts = frozenset({"localhost"})

    def judged(path: str, **headers: str) -> bool:
        given = {"host": ["localhost:8641"], **{k.replace("_", "-"): [v] for k, v in headers.items()}}
        return objection(method="POST", scheme="http", headers=given, hosts=hosts, path=path) is None

    assert judged("/access/v1/evaluation")
    assert not judged("/api/v1/can")
    assert not judged("/access/v1/evaluation", cookie="session=1")
    assert not judged("/access/v1/evaluation", sec_fetch_site="cross-site")
    assert not judged("/access/v1/evaluation", origin="https://evil.example")
    assert not judged("/access/v1/evaluation", sec_fetch_site="none", sec_fetch_mode="navigate")


def test_a_public_name_is_ours_too_and_came_by_the_scheme_it_has() -> None:
    settings = Settings(control={"public_url": "https://doorward.example"})
    assert allowed_hosts(settings) == HOSTS | {"doorward.example"}
    seen: list[str] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(scope["scheme"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(host: bytes, origin: bytes) -> int:
        guard = Guard(app, settings=settings, ids=IdSource(ManualClock(datetime(2026, 1, 1, tzinfo=UTC))))
        sent: list[Any] = []
        scope: Any = {
            "type": "http", "method": "POST", "scheme": "http", "path": "/x", "state": {},
            "headers": [(b"host", host), (b"origin", origin)],
        }  # fmt: skip

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        await guard(scope, receive, send)
        return int(sent[0]["status"])

    assert asyncio.run(ask(b"Doorward.example", b"https://doorward.example")) == 200
    assert asyncio.run(ask(b"localhost:8641", b"http://localhost:8641")) == 200
    assert seen == ["https", "http"]
    assert asyncio.run(ask(b"doorward.example", b"http://doorward.example")) == 403
    assert asyncio.run(ask(b"doorward.example.evil.example", b"https://doorward.example")) == 421
    assert asyncio.run(ask(b"localhost:8641", b"https://doorward.example")) == 403
