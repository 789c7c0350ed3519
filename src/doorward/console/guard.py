"""What every request to the control plane passes before a route sees it, and every answer after.

1. An id. 2. Over TCP, a Host that is ours (DNS rebinding). 3. No request that another site or
another port made a browser send (Fetch Metadata, Origin): writes and streams must prove they come from us.
4. A bounded body. 5. Security headers on every answer, also on errors.
"""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from doorward.console.problems import problem
from doorward.core.errors import PayloadTooLargeError
from doorward.settings import Settings, is_loopback, split_listen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from doorward.core.ids import IdSource

MAX_BODY = 4 * 1024 * 1024
BODY_SECONDS = 30.0
_SAFE = frozenset({"GET", "HEAD"})
_METHODS = _SAFE | {"POST", "PUT", "PATCH", "DELETE"}
# Here programs call, each with its own key and never a cookie: nothing a browser could send by itself.
PROGRAMS = (
    "/access/v1/", "/scim/v2/", "/ssf/", "/oauth/token", "/oauth/revoke", "/oauth/introspect",
    "/oauth/device_authorization",
)  # fmt: skip
_MANAGEMENT = "/api/v1/"
_DISCOVERY = "/.well-known/authzen-configuration"
_OF_BROWSERS = ("origin", "sec-fetch-site", "cookie")
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


_TOO_LARGE = Objection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request's body is over 4 MiB")
_TOO_SLOW = Objection(HTTPStatus.REQUEST_TIMEOUT, "the request's body took longer than 30 seconds")


def _fault(request_id: str) -> Objection:
    hint = f"The control plane's log has it under {request_id}."
    return Objection(HTTPStatus.INTERNAL_SERVER_ERROR, "this is a fault in Doorward", hint)


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Return the host names this console answers to: what it listens on, its public one, and loopback's."""
    host, _ = split_listen(settings.control.listen)
    public = settings.control.public_url
    named = frozenset({urlsplit(public).hostname or ""}) if public else frozenset()
    own = frozenset() if is_loopback(host) else frozenset({host.lower()})
    return own | named | _LOOPBACK_NAMES


def objection(
    *,
    method: str,
    scheme: str,
    headers: Mapping[str, list[str]],
    hosts: frozenset[str],
    path: str = "",
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
    # A token is never sent by a browser itself: what has one, and nothing of a browser's, is a program.
    programs = path.startswith(PROGRAMS) or (path.startswith(_MANAGEMENT) and "authorization" in headers)
    if programs and not any(name in headers for name in _OF_BROWSERS):
        return None
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
        self._public = urlsplit(settings.control.public_url or "")
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or answer in the application's place."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        scope["scheme"] = self._scheme(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = self._ids.new()
        answer = _Answer(send, scope, request_id)
        against = None if "peer_uid" in state else self._objection(scope)
        if against is not None:
            refused = problem(against.status, detail=against.detail, hint=against.hint, request_id=request_id)
            await refused(scope, receive, answer.send)
            return
        await self._run(scope, _Bounded(receive), answer)

    def _scheme(self, scope: Scope) -> str:
        """Return the scheme the caller used: behind a terminator the public name came by that one's TLS."""
        public = self._public.netloc and any(
            name == b"host" and value.lower() == self._public.netloc.encode()
            for name, value in scope["headers"]
        )
        return self._public.scheme if public else str(scope["scheme"])

    def _objection(self, scope: Scope) -> Objection | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        return objection(
            method=scope["method"],
            scheme=scope["scheme"],
            headers=headers,
            hosts=self._hosts,
            path=scope["path"],
        )

    async def _run(self, scope: Scope, bounded: _Bounded, answer: _Answer) -> None:
        try:
            await self._app(scope, bounded.receive, bounded.guarding(answer))
        except _CutError as cut:
            await self._instead(scope, bounded, answer, cut.why)
        except Exception:  # noqa: BLE001 -- the outermost frame: nothing leaves without its headers
            # As text: a renderer of tracebacks might print local variables, and those hold secrets.
            _log.error("request_failed", request_id=answer.request_id, trace=traceback.format_exc())
            await self._instead(scope, bounded, answer, _fault(answer.request_id))

    async def _instead(self, scope: Scope, bounded: _Bounded, answer: _Answer, why: Objection) -> None:
        if answer.started:
            raise ConnectionAbortedError("the answer had begun; it must not look complete")
        code = PayloadTooLargeError.code if why is _TOO_LARGE else None
        told = problem(why.status, code=code, detail=why.detail, hint=why.hint, request_id=answer.request_id)
        await told(scope, bounded.receive, answer.send)


class _CutError(Exception):
    """The body was not read to its end."""

    def __init__(self, why: Objection) -> None:
        super().__init__(why.detail)
        self.why = why


class _Bounded:
    """Count the body and the time it takes, and stop reading past either bound."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read = 0
        self._whole = False
        self._cut: Objection | None = None

    async def receive(self) -> Message:
        if self._whole:
            # From here on `receive` waits for the caller to leave: that may take hours.
            return await self._receive()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                message = await self._receive()
        except TimeoutError as slow:
            self._cut = _TOO_SLOW
            raise _CutError(_TOO_SLOW) from slow
        self._whole = not message.get("more_body", False)
        self._read += len(message.get("body", b""))
        if self._read > MAX_BODY:
            self._cut = _TOO_LARGE
            raise _CutError(_TOO_LARGE)
        return message

    def guarding(self, answer: _Answer) -> Send:
        """Send, unless the body was cut: what the application made of the rest is not the answer."""

        async def send(message: Message) -> None:
            if self._cut is not None and not answer.started:
                raise _CutError(self._cut)
            await answer.send(message)

        return send


def _request_id_of(scope: Scope) -> dict[bytes, bytes]:
    """Return what a program's `X-Request-ID` is echoed as, on errors too (AuthZEN 1.0, 10.1.3)."""
    if not scope["path"].startswith((*PROGRAMS, _DISCOVERY)):
        return {}
    return dict([pair for pair in scope["headers"] if pair[0] == b"x-request-id"][:1])


class _Answer:
    """Add the headers every answer carries."""

    def __init__(self, send: Send, scope: Scope, request_id: str) -> None:
        self._send = send
        self._static = scope["path"].startswith("/static/")
        self._tls = scope["scheme"] == "https"
        self._scope = scope
        self._echoed = _request_id_of(scope)
        self.request_id = request_id
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            ours = dict(_HEADERS)
            # A page may name the one client that its form's answer goes on to.
            if (target := self._scope["state"].get("form_action")) is not None:
                policy = _CSP.replace("form-action 'self'", f"form-action 'self' {target}")
                ours[b"content-security-policy"] = policy.encode()
            ours[b"doorward-request-id"] = self.request_id.encode()
            ours[b"cache-control"] = b"no-cache" if self._static else b"no-store"
            if self._tls:
                ours[b"strict-transport-security"] = _HSTS
            ours |= self._echoed
            kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in ours]
            message = {**message, "headers": [*kept, *ours.items()]}
        await self._send(message)
