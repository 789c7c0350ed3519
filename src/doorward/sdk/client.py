"""Ask a control plane by AuthZEN: over HTTP(S) with a Service's key, or over its Unix socket.

Connections are kept and used again, by threads (`can`) and by event loops (`acan`). A question ends by
its deadline whatever the other side does, and an answer to another question is never taken for ours.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from doorward.core import versions
from doorward.core.decision import Decision
from doorward.core.errors import DoorwardError, InvalidConfigError
from doorward.core.secret import Secret
from doorward.sdk.answers import decision_of, named, question_of
from doorward.sdk.apool import AsyncPool
from doorward.sdk.asking import Name, denied
from doorward.sdk.pool import Pool, left
from doorward.sdk.target import Target, target_of

EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
_TIMEOUT = 2.0
_AT_ONCE = 1000  # what one request may hold


class Client:
    """Ask a decision point elsewhere. Never raises on an answer: an error or timeout is a denial."""

    def __init__(  # noqa: PLR0913 -- where, as whom, how long
        self,
        url: str | None = None,
        *,
        socket: str | Path | None = None,
        key: str | None = None,
        timeout: float = _TIMEOUT,
        ca: str | Path | None = None,
        cert: str | Path | tuple[str | Path, str | Path] | None = None,
    ) -> None:
        """Name one of `url` and `socket`; `timeout` is the whole question's, in seconds.

        `ca` vouches for the server (the installation's own: `DATA/tls/ca.pem`); `cert` is a client
        certificate that proves this machine, beside the key. Raises InvalidConfigError for both or
        neither, for files that cannot be used, and for plain HTTP to another machine.
        """
        if (url is None) == (socket is None) or timeout <= 0:
            raise InvalidConfigError("a client needs a url or a socket, and a timeout above 0")
        target = Target(socket=Path(str(socket))) if url is None else target_of(url, ca=ca, cert=cert)
        self._pool, self._apool = Pool(target), AsyncPool(target)
        self._key = Secret(key) if key is not None else None
        self._timeout = timeout

    def can(
        self,
        principal: Name,
        action: str,
        resource: Name,
        *,
        context: Mapping[str, Any] | None = None,
        at_least: str | None = None,
    ) -> Decision:
        """Return whether a principal may do this now; `context` is what this caller may state.

        With `at_least` (`v42`, as a write answers in `Doorward-At-Least`) nothing older is decided on: what
        has not arrived within a second is a denial.
        """
        try:
            body = {**question_of(principal, action, resource), "context": dict(context or {})}
            return decision_of(self._post(EVALUATION, body, self._deadline(), _demand(at_least)))
        except _UnansweredError as reason:
            return denied(f"sdk: {reason}")
        except DoorwardError as reason:
            return denied(f"sdk: {reason.message}")

    async def acan(
        self,
        principal: Name,
        action: str,
        resource: Name,
        *,
        context: Mapping[str, Any] | None = None,
        at_least: str | None = None,
    ) -> Decision:
        """Return the same without blocking the event loop."""
        try:
            body = {**question_of(principal, action, resource), "context": dict(context or {})}
            return decision_of(await self._apost(EVALUATION, body, self._deadline(), _demand(at_least)))
        except _UnansweredError as reason:
            return denied(f"sdk: {reason}")
        except DoorwardError as reason:
            return denied(f"sdk: {reason.message}")

    def can_each(
        self,
        principal: Name,
        action: str,
        resources: Sequence[Name],
        *,
        context: Mapping[str, Any] | None = None,
        at_least: str | None = None,
    ) -> list[Decision]:
        """Return one decision per resource, in order; a thousand of them in one request."""
        deadline = self._deadline()
        decisions: list[Decision] = []
        for part in _parts(resources):
            try:
                body = _batch(principal, action, part, context)
                decisions += _each(self._post(EVALUATIONS, body, deadline, _demand(at_least)), len(part))
            except _UnansweredError as reason:
                decisions += [denied(f"sdk: {reason}")] * len(part)
            except DoorwardError as reason:
                decisions += [denied(f"sdk: {reason.message}")] * len(part)
        return decisions

    async def acan_each(
        self,
        principal: Name,
        action: str,
        resources: Sequence[Name],
        *,
        context: Mapping[str, Any] | None = None,
        at_least: str | None = None,
    ) -> list[Decision]:
        """Return the same without blocking the event loop."""
        deadline = self._deadline()
        decisions: list[Decision] = []
        for part in _parts(resources):
            try:
                body = _batch(principal, action, part, context)
                decisions += _each(
                    await self._apost(EVALUATIONS, body, deadline, _demand(at_least)), len(part)
                )
            except _UnansweredError as reason:
                decisions += [denied(f"sdk: {reason}")] * len(part)
            except DoorwardError as reason:
                decisions += [denied(f"sdk: {reason.message}")] * len(part)
        return decisions

    def close(self) -> None:
        """Close kept connections of threads; a client may be used again afterwards."""
        self._pool.close()

    async def aclose(self) -> None:
        """Close kept connections of this event loop too."""
        self._apool.close()
        self._pool.close()

    def __enter__(self) -> Self:
        """Use the client as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close kept connections."""
        self.close()

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout

    def _post(
        self, path: str, body: Mapping[str, Any], deadline: float, demand: Mapping[str, str]
    ) -> dict[str, Any]:
        asked = secrets.token_hex(8)
        try:
            payload, headers = msgspec.json.encode(body), {**self._headers(asked), **demand}
            return _document(self._pool.exchange(path, payload, headers, timeout=left(deadline)), asked)
        except Exception as reason:
            raise self._unanswered(reason) from reason

    async def _apost(
        self, path: str, body: Mapping[str, Any], deadline: float, demand: Mapping[str, str]
    ) -> dict[str, Any]:
        asked = secrets.token_hex(8)
        try:
            payload, headers = msgspec.json.encode(body), {**self._headers(asked), **demand}
            answer = await self._apool.exchange(path, payload, headers, timeout=left(deadline))
            return _document(answer, asked)
        except Exception as reason:
            raise self._unanswered(reason) from reason

    def _headers(self, asked: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "X-Request-ID": asked}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.reveal()}"
        return headers

    def _unanswered(self, reason: Exception) -> _UnansweredError:
        """Say why a question was not answered: never in words that hold the key or an address."""
        match reason:
            case _UnansweredError():
                return reason
            case TimeoutError():
                return _UnansweredError(f"no answer within {self._timeout:g} seconds")
            case OSError():
                return _UnansweredError(f"the decision point cannot be reached ({type(reason).__name__})")
            case ValueError() | TypeError() | RecursionError():
                return _UnansweredError("question or answer is no JSON")
        return _UnansweredError(f"a fault while asking ({type(reason).__name__})")


class _UnansweredError(Exception):
    """The question was not answered."""


def _document(answer: tuple[int, Mapping[str, str], bytes], asked: str) -> dict[str, Any]:
    status, headers, content = answer
    if headers.get("x-request-id", asked) != asked:
        raise _UnansweredError("the answer belongs to another question")
    document = msgspec.json.decode(content)
    if not isinstance(document, dict):
        raise _UnansweredError("the answer is not an object")
    if status != HTTPStatus.OK:
        raise _UnansweredError(f"the decision point answered {status}: {document.get('detail', '')}")
    return document


def _demand(at_least: str | None) -> dict[str, str]:
    """Return the header that demands versions; raise InvalidRequestError for what names none."""
    return {} if at_least is None else {versions.HEADER: str(versions.read(at_least))}


def _parts(resources: Sequence[Name]) -> list[Sequence[Name]]:
    return [resources[at : at + _AT_ONCE] for at in range(0, len(resources), _AT_ONCE)]


def _batch(
    principal: Name, action: str, resources: Sequence[Name], context: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "subject": named(principal),
        "action": {"name": action},
        "context": dict(context or {}),
        "evaluations": [{"resource": named(resource)} for resource in resources],
    }


def _each(document: Mapping[str, Any], wanted: int) -> list[Decision]:
    answers = document.get("evaluations")
    if not isinstance(answers, list) or len(answers) != wanted:
        return [denied("sdk: the answer does not fit the question")] * wanted
    return [decision_of(one) for one in answers]
