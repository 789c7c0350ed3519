"""Ask a control plane by AuthZEN: over HTTP(S) with a Service's key, or over its Unix socket.

One connection per question: nothing is shared between threads, and a question ends by its deadline
whatever the other side does.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from doorward.core.decision import Decision, Effect
from doorward.core.errors import DoorwardError, InvalidConfigError
from doorward.core.model import EntityUid
from doorward.core.obligation import AnyObligation
from doorward.core.secret import Secret
from doorward.sdk.asking import Name, denied, uid_of
from doorward.sdk.transport import Target, exchange

_VENDOR = "doorward"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_TIMEOUT = 2.0


class Client:
    """Ask a decision point elsewhere. Never raises on an answer: an error or timeout is a denial."""

    def __init__(
        self,
        url: str | None = None,
        *,
        socket: str | Path | None = None,
        key: str | None = None,
        timeout: float = _TIMEOUT,
        ca: str | Path | None = None,
    ) -> None:
        """Name one of `url` and `socket`; `timeout` is the whole question's, in seconds.

        Raises InvalidConfigError for both or neither, and for plain HTTP to another machine.
        """
        if (url is None) == (socket is None) or timeout <= 0:
            raise InvalidConfigError("a client needs a url or a socket, and a timeout above 0")
        self._target = _target(url, ca) if url is not None else Target(socket=Path(str(socket)))
        self._key = Secret(key) if key is not None else None
        self._timeout = timeout

    def can(
        self, principal: Name, action: str, resource: Name, *, context: Mapping[str, Any] | None = None
    ) -> Decision:
        """Return whether a principal may do this now; `context` is what this caller may state."""
        try:
            body = {**_question(principal, action, resource), "context": dict(context or {})}
            return _decision(self._post("/access/v1/evaluation", body))
        except _UnansweredError as reason:
            return denied(f"sdk: {reason}")
        except DoorwardError as reason:
            return denied(f"sdk: {reason.message}")

    async def acan(
        self, principal: Name, action: str, resource: Name, *, context: Mapping[str, Any] | None = None
    ) -> Decision:
        """Return the same without blocking the event loop; it ends by the same deadline."""
        return await asyncio.to_thread(self.can, principal, action, resource, context=context)

    def can_each(
        self,
        principal: Name,
        action: str,
        resources: Sequence[Name],
        *,
        context: Mapping[str, Any] | None = None,
    ) -> list[Decision]:
        """Return one decision per resource, in order, in one request."""
        try:
            named = [_named(resource) for resource in resources]
            if not named:
                return []
            body = {
                "subject": _named(principal),
                "action": {"name": action},
                "context": dict(context or {}),
                "evaluations": [{"resource": name} for name in named],
            }
            answers = self._post("/access/v1/evaluations", body).get("evaluations")
        except _UnansweredError as reason:
            return [denied(f"sdk: {reason}")] * len(resources)
        except DoorwardError as reason:
            return [denied(f"sdk: {reason.message}")] * len(resources)
        if not isinstance(answers, list) or len(answers) != len(resources):
            return [denied("sdk: the answer does not fit the question")] * len(resources)
        return [_decision(one) for one in answers]

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.reveal()}"
        try:
            payload = msgspec.json.encode(body)
            status, content = exchange(self._target, path, payload, headers, timeout=self._timeout)
            document = msgspec.json.decode(content)
        except TimeoutError:
            raise _UnansweredError(f"no answer within {self._timeout:g} seconds") from None
        except (OSError, http.client.HTTPException) as reason:
            raise _UnansweredError(
                f"the decision point cannot be reached ({type(reason).__name__})"
            ) from reason
        except (ValueError, TypeError, RecursionError) as reason:
            raise _UnansweredError("question or answer is no JSON") from reason
        if not isinstance(document, dict):
            raise _UnansweredError("the answer is not an object")
        if status != http.client.OK:
            raise _UnansweredError(f"the decision point answered {status}: {document.get('detail', '')}")
        return document


class _UnansweredError(Exception):
    """The question was not answered."""


def _target(url: str, ca: str | Path | None) -> Target:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host or parts.username or parts.query or parts.fragment:
        raise InvalidConfigError(f"`{url}` is not an http or https address")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise InvalidConfigError(
            f"`{url}` is plain HTTP to another machine", hint="Use https: keys would be readable on the way."
        )
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    return Target(
        host=host, port=port, tls=tls, path=parts.path.rstrip("/"), ca=None if ca is None else str(ca)
    )


def _question(principal: Name, action: str, resource: Name) -> dict[str, Any]:
    return {"subject": _named(principal), "action": {"name": action}, "resource": _named(resource)}


def _named(name: Name) -> dict[str, str]:
    uid: EntityUid = uid_of(name)
    return {"type": uid.kind, "id": uid.id}


def _decision(answer: Any) -> Decision:
    """Read `{decision, context}`; what is not exactly true, or obliges to something unknown, is a denial."""
    if not isinstance(answer, dict) or not isinstance(answer.get("decision"), bool):
        return denied("sdk: the answer holds no decision")
    context = answer.get("context", {})
    try:
        obligations = tuple(map(_obligation, context.get("obligations", ())))
        why = context.get("reason_admin", {})
        said = context.get("reason_user", {}).get("en")
        decision = Decision(
            effect=Effect.ALLOW if answer["decision"] else Effect.DENY,
            determining=tuple(map(str, why.get("determining", ()))),
            obligations=obligations,
            errors=tuple(map(str, why.get("errors", ()))),
            advice=() if said is None else (str(said),),
            bundle=str(why.get("bundle", "")),
            entities=str(why.get("entities", "")),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as reason:
        return denied(f"sdk: the answer cannot be read ({type(reason).__name__})")
    if not decision.allowed and "error" in context:
        return msgspec.structs.replace(decision, errors=(*decision.errors, f"sdk: {context['error']}"))
    return decision


def _obligation(one: Mapping[str, Any]) -> AnyObligation:
    kind, fields = str(one["type"]), dict(one["properties"])
    match kind:
        case "step-up":
            plain = {"type": "stepup", "acr": fields["acr_value"], "max_age": fields.get("max_age")}
        case "notification":
            plain = {"type": "notify", "who": fields["to"]}
        case "custom" if fields.pop("vendor") == _VENDOR:
            plain = {"type": fields.pop("obligation"), **fields}
        case _:
            raise ValueError(kind)
    obligation: AnyObligation = msgspec.convert(plain, AnyObligation)
    return obligation
