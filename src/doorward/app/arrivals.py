"""A gateway's way to tell the control process who came in: over its Unix socket, back through the feed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from doorward.core.errors import ConflictError, UnavailableError
from doorward.http1.client import DocumentClient
from doorward.peer import socket_address

_SECONDS = 3.0
_MAX_ANSWER = 64 * 1024
_LOOK_AGAIN = 0.005
_OK, _CLIENT_ERRORS = 200, 500
_log = structlog.get_logger()


class ControlArrivals:
    """Announce tokens to the control process of this machine."""

    def __init__(self, data: Path, version: Callable[[], int]) -> None:
        """Take the data directory, and what tells the version this gateway is at."""
        self._socket, self._version = data / "control.sock", version

    async def announce(self, token: str) -> None:
        """Return once what the token says shows here.

        Raises ConflictError if it was refused there, UnavailableError if that cannot be known in time.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                version = await self._sent(token)
                while self._version() < version:  # noqa: ASYNC110 -- the feed tells a callback, not a task
                    await asyncio.sleep(_LOOK_AGAIN)
        except (TimeoutError, OSError, ValueError, KeyError) as reason:
            raise UnavailableError(
                "the control plane could not be told who came in", hint="Try again in a moment."
            ) from reason

    async def _sent(self, token: str) -> int:
        client = DocumentClient(seconds=_SECONDS, connect_seconds=_SECONDS, max_bytes=_MAX_ANSWER)
        try:
            with socket_address(self._socket) as address:
                answer = await client.ask(
                    "POST",
                    f"unix:{address}#/api/v1/arrivals",
                    headers={"Content-Type": "application/json"},
                    body=msgspec.json.encode({"token": token}),
                )
        finally:
            await client.close()
        said = msgspec.json.decode(answer.body)
        if answer.status == _OK:
            return int(said["version"])
        _log.warning("arrival_refused", status=answer.status, detail=str(said.get("detail", ""))[:200])
        if answer.status < _CLIENT_ERRORS:
            raise ConflictError("what the token says was refused")
        raise UnavailableError("the control plane could not take it")
