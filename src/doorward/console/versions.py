"""Versions in headers: a write says what it made, and a request may demand to be answered on nothing older.

Applies to every route alike (`core.versions`): questions, AuthZEN, lists. The header of an answer to a
write is a token to send back as it came, to this control plane or to a gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward.console.problems import of_error
from doorward.core import versions
from doorward.core.errors import DoorwardError, InvalidRequestError
from doorward.decisions.arrivals import at_least

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from doorward.console.services import Services

_NAME = versions.HEADER.lower().encode()
_SAFE = frozenset({"GET", "HEAD"})
# Asking changes nothing: these answers name the versions in their bodies, for those who may be told.
_ASKING = ("/access/v1/", "/api/v1/can", "/api/v1/who-can", "/api/v1/what-can")
_OK, _REDIRECT = 200, 300


class Versions:
    """Wrap the application (pure ASGI)."""

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        """Take the services; their decision point and directory are read."""
        self._app, self._services = app, services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold one request back until what it demands is here, and tag the answer to a write."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._awaited(scope)
        except DoorwardError as error:
            refused = of_error(error, str(scope.get("state", {}).get("request_id", "")))
            await refused(scope, receive, send)
            return
        writes = scope["method"] not in _SAFE and not scope["path"].startswith(_ASKING)
        await self._app(scope, receive, self._tagging(send) if writes else send)

    async def _awaited(self, scope: Scope) -> None:
        given = [value for name, value in scope["headers"] if name == _NAME]
        if len(given) > 1:
            raise InvalidRequestError(
                f"`{versions.HEADER}` is given {len(given)} times", hint="Send it once."
            )
        if given:
            await at_least(self._services.point, versions.read(given[0].decode("latin-1")))

    def _tagging(self, send: Send) -> Send:
        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start" and _OK <= message["status"] < _REDIRECT:
                made = versions.AtLeast(self._services.directory.snapshot.version)
                pair = (_NAME, str(made).encode())
                message = {**message, "headers": [*message.get("headers", []), pair]}
            await send(message)

        return tagged
