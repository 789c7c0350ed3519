"""Speak to the demo's control plane over its Unix socket, as the local operator does."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any

import msgspec

from doorward.core.errors import UnavailableError
from doorward.peer import socket_address

_TIMEOUT = 30.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the control plane's socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT)
        with socket_address(self._path) as address:
            self.sock.connect(address)


def exchange(path: Path, method: str, target: str, body: Any = None) -> tuple[int, Any]:
    """Send one request; return status and JSON (None for an empty answer). Raises OSError."""
    connection = _UnixConnection(path)
    try:
        payload = None if body is None else msgspec.json.encode(body)
        headers = {} if payload is None else {"Content-Type": "application/json"}
        connection.request(method, target, payload, headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, msgspec.json.decode(content) if content else None
    except msgspec.DecodeError:
        return answer.status, content.decode("utf-8", "replace")


def manage(path: Path, method: str, target: str, body: Any = None) -> Any:
    """Call the management API; raise UnavailableError with its words if it refuses."""
    status, document = exchange(path, method, target, body)
    if status >= http.client.BAD_REQUEST:
        said = document.get("detail") if isinstance(document, dict) else document
        raise UnavailableError(f"{method} {target} was refused with {status}: {said}")
    return document


def ready(path: Path) -> bool:
    """Return whether a role's admin socket says it is ready."""
    try:
        return exchange(path, "GET", "/readyz")[0] == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
