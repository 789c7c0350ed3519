"""What every request to the control plane passes before a route sees it, and every answer after.

1. An id. 2. Over TCP, a Host that is ours (DNS rebinding). 3. No request that another site or
another port made a browser send (Fetch Metadata, Origin): writes and streams must prove they come from us.
4. A bounded body. 5. Security headers on every answer, also on errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from doorward.console.problems import problem
from doorward.settings import Settings, is_loopback, split_listen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from doorward.core.ids import IdSource

MAX_BODY = 4 * 1024 * 1024
_SAFE = frozenset({"GET", "HEAD"})
_METHODS = _SAFE | {"POST", "PUT", "PATCH", "DELETE"}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": _CSP.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-embedder-policy": b"require-corp",
    b"permissions-policy": (
        b"camera=(), microphone=(), geolocation=(), payment=(), usb=(), "
        b"publickey-credentials-create=(self), publickey-credentials-get=(self)"
    ),
}
_HSTS = b"max-age=31536000"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Objection:
    """Say why a request goes no further."""

    status: HTTPStatus
    detail: str
    hint: str = ""


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Return the host names this console answers to: what it listens on, and loopback's names for that."""
    host, _ = split_listen(settings.control.listen)
    return _LOOPBACK_NAMES if is_loopback(host) else frozenset({host.lower()}) | _LOOPBACK_NAMES


def objection(
    *, method: str, scheme: str, headers: Mapping[str, list[str]], hosts: frozenset[str]
) -> Objection | None:
    """Judge one request that came over TCP by its method and headers; None lets it pass."""
    if method not in _METHODS:
        return Objection(HTTPStatus.METHOD_NOT_ALLOWED, f"the method {method} is not used here")
    given = headers.get("host", [])
    if len(given) != 1 or _host_name(given[0]) not in hosts:
        return Objection(
            HTTPStatus.MISDIRECTED_REQUEST,
            "the Host header does not name this console",
            "Open it by the address in `[control] listen`, or by localhost.",
        )
    return _cross_site(method, f"{scheme}://{given[0].lower()}", headers)


def _cross_site(method: str, own: str, headers: Mapping[str, list[str]]) -> Objection | None:
    origins = headers.get("origin", [])
    site = (headers.get("sec-fetch-site") or [""])[0]
    refusal = Objection(
        HTTPStatus.FORBIDDEN,
        "the request comes from another page than this console's",
        "Use the console itself; programs use the Unix socket.",
    )
    # Under our own Referrer-Policy a form's Origin is `null`; Sec-Fetch-Site, which no page can set, tells.
    own_forms = {own, "null"} if site == "same-origin" else {own}
    if any(origin.lower() not in own_forms for origin in origins):
        return refusal
    if method not in _SAFE:
        return None if origins or site == "same-origin" else refusal
    navigates = (headers.get("sec-fetch-mode") or [""])[0] == "navigate"
    framed = (headers.get("sec-fetch-dest") or [""])[0] in {"iframe", "frame", "object", "embed"}
    if site in {"cross-site", "same-site"} and (framed or not navigates):
        return refusal
    return None


def _host_name(authority: str) -> str | None:
    try:
        parts = urlsplit(f"//{authority}")
        port_is_a_number = parts.port is None or parts.port > 0
    except ValueError:
        return None
    whole = parts.netloc == authority and not parts.username and not parts.password
    return parts.hostname if whole and port_is_a_number and "@" not in authority else None


class Guard:
    """Wrap the application (pure ASGI: it never buffers a stream)."""

    def __init__(self, app: ASGIApp, *, settings: Settings, ids: IdSource) -> None:
        """Take the names the console answers to from the settings."""
        self._app = app
        self._hosts = allowed_hosts(settings)
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or answer in the application's place."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = self._ids.new()
        answer = _Answer(send, scope, request_id)
        against = None if "peer_uid" in state else self._objection(scope)
        if against is not None:
            refused = problem(against.status, detail=against.detail, hint=against.hint, request_id=request_id)
            await refused(scope, receive, answer.send)
            return
        await self._run(scope, _Bounded(receive), answer)

    def _objection(self, scope: Scope) -> Objection | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        return objection(method=scope["method"], scheme=scope["scheme"], headers=headers, hosts=self._hosts)

    async def _run(self, scope: Scope, bounded: _Bounded, answer: _Answer) -> None:
        try:
            await self._app(scope, bounded.receive, _unless_exceeded(bounded, answer))
        except _TooLargeError:
            await self._instead(scope, bounded, answer, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except Exception:  # noqa: BLE001 -- the outermost frame: nothing leaves without its headers
            _log.exception("request_failed", request_id=answer.request_id, method=scope["method"])
            await self._instead(scope, bounded, answer, HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _instead(self, scope: Scope, bounded: _Bounded, answer: _Answer, status: HTTPStatus) -> None:
        if answer.started:
            raise ConnectionAbortedError("the answer had begun; it must not look complete")
        too_large = status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        told = problem(
            status,
            code="payload_too_large" if too_large else "error",
            detail="the request's body is over 4 MiB" if too_large else "this is a fault in Doorward",
            hint="" if too_large else f"The control plane's log has it under {answer.request_id}.",
            request_id=answer.request_id,
        )
        await told(scope, bounded.receive, answer.send)


class _TooLargeError(Exception):
    pass


def _unless_exceeded(bounded: _Bounded, answer: _Answer) -> Send:
    """Send, unless the body was cut: whatever the application made of the cut body is not the answer."""

    async def send(message: Message) -> None:
        if bounded.exceeded and not answer.started:
            raise _TooLargeError
        await answer.send(message)

    return send


class _Bounded:
    """Count the body and stop reading past the bound."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read = 0

    @property
    def exceeded(self) -> bool:
        return self._read > MAX_BODY

    async def receive(self) -> Message:
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self.exceeded:
            raise _TooLargeError
        return message


class _Answer:
    """Add the headers every answer carries."""

    def __init__(self, send: Send, scope: Scope, request_id: str) -> None:
        self._send = send
        self._static = scope["path"].startswith("/static/")
        self._tls = scope["scheme"] == "https"
        self.request_id = request_id
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            ours = dict(_HEADERS)
            ours[b"doorward-request-id"] = self.request_id.encode()
            ours[b"cache-control"] = b"no-cache" if self._static else b"no-store"
            if self._tls:
                ours[b"strict-transport-security"] = _HSTS
            kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in ours]
            message = {**message, "headers": [*kept, *ours.items()]}
        await self._send(message)
