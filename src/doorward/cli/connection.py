"""Talk to the control plane over `DATA/control.sock`, whose owner is the operator, or elsewhere by HTTP."""

from __future__ import annotations

import http.client
import re
import socket
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from doorward.cli import remote
from doorward.core import errors, versions
from doorward.peer import socket_address

DataOption = Annotated[
    Path, typer.Option("--data", envvar="DOORWARD_DATA", help="The installation's data directory.")
]
DEFAULT_DATA = Path(".doorward")
_TIMEOUT = 30.0
_NEXT = re.compile(r'<([^>]+)>; rel="next"')


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT)
        try:
            with socket_address(self._path) as address:
                self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise


_ERRORS: dict[str, type[errors.DoorwardError]] = {
    kind.code: kind
    for kind in (
        errors.InvalidConfigError,
        errors.InvalidPolicyError,
        errors.InvalidRequestError,
        errors.UnauthenticatedError,
        errors.DeniedError,
        errors.NotFoundError,
        errors.ConflictError,
        errors.UnavailableError,
        errors.AuditUnavailableError,
    )
}


def call(data: Path, method: str, path: str, body: Any = None, *, at_least: str | None = None) -> Any:
    """Send one request to the management API and return its JSON; raise what it answered.

    With `at_least` (`v42`) it is answered on nothing older.

    Raises UnavailableError when no control process listens, else the error the API named.
    """
    return _exchange(data, method, path, body, at_least)[0]


def every(data: Path, path: str) -> list[dict[str, Any]]:
    """Return all pages of a list of the management API, as one; raise as `call` does."""
    found: list[dict[str, Any]] = []
    following: str | None = path
    while following is not None:
        page, link = _exchange(data, "GET", following, None)
        found += page
        match = None if link is None else _NEXT.search(link)
        following = None if match is None else match[1]
    return found


def _exchange(
    data: Path, method: str, path: str, body: Any, at_least: str | None = None
) -> tuple[Any, str | None]:
    payload = None if body is None else msgspec.json.encode(body)
    headers = {"Content-Type": "application/json"} if payload is not None else {}
    if at_least is not None:
        headers[versions.HEADER] = str(versions.read(at_least))
    there = remote.chosen()
    if there is not None:
        return _elsewhere(there, method, path, payload, headers)
    connection = _UnixConnection(data / "control.sock")
    try:
        connection.request(method, path, payload, headers)
        answer = connection.getresponse()
        content = answer.read()
    except OSError as reason:
        raise errors.UnavailableError(
            f"no control plane answers at {data / 'control.sock'} ({reason.strerror or reason})",
            hint="Start it with `doorward up`, or name its data directory with --data.",
        ) from reason
    finally:
        connection.close()
    document = msgspec.json.decode(content) if content else None
    if answer.status >= http.client.BAD_REQUEST:
        raise _error_of(answer.status, document)
    return document, answer.getheader("Link")


def _elsewhere(
    there: remote.Remote, method: str, path: str, payload: bytes | None, headers: dict[str, str]
) -> tuple[Any, str | None]:
    token = remote.access_token(there, there.url)
    sent = {**headers, "Authorization": f"Bearer {token}"}
    status, told, content = remote.exchange(there, method, f"{there.url}{path}", body=payload, headers=sent)
    document = msgspec.json.decode(content) if content else None
    if status >= http.client.BAD_REQUEST:
        raise _error_of(status, document)
    return document, told.get("Link")


def _error_of(status: int, document: Any) -> errors.DoorwardError:
    problem = document if isinstance(document, dict) else {}
    code = str(problem.get("code", "error"))
    kind = _ERRORS.get(code, errors.DoorwardError)
    detail = str(problem.get("detail") or f"the control plane answered {status}")
    return kind(detail, hint=str(problem.get("hint", "")), code=code)
