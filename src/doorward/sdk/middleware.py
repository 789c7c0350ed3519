"""An ASGI middleware: every request is a question first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

import msgspec

from doorward.sdk.asking import Asker, denied
from doorward.sdk.web import Ask, decided, problem_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION = 1008


class GuardMiddleware:
    """Let a request or web socket through only if it may; what `ask` cannot name is denied.

    `public` are exact paths that need no question. The decision stands in `scope["doorward"]`.
    """

    def __init__(
        self,
        app: App,
        *,
        point: Asker,
        ask: Callable[[Scope], Ask | None],
        public: Collection[str] = (),
        keeps: Collection[str] = (),
    ) -> None:
        """Wrap an application."""
        self._app, self._point, self._ask = app, point, ask
        self._public, self._keeps = frozenset(public), frozenset(keeps)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide, then pass on or refuse."""
        if scope["type"] not in {"http", "websocket"} or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        try:
            ask = self._ask(scope)
        except Exception:  # noqa: BLE001 -- what cannot be named is denied
            ask = None
        if ask is None:
            ask = Ask("", "", "")
            decision = denied("sdk: this request has no name")
        else:
            decision = await decided(self._point, ask, self._keeps)
        if decision.allowed:
            await self._app({**scope, "doorward": decision}, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            await _refuse(send, problem_of(ask, decision))


async def _refuse(send: Send, problem: dict[str, Any]) -> None:
    body = msgspec.json.encode(problem)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if problem["code"] == "unauthenticated":
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": problem["status"], "headers": headers})
    await send({"type": "http.response.body", "body": body})
