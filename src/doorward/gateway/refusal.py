"""Refusals in words: from an error or a decision to a `Refusal`, and its generic shape (RFC 9457)."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from doorward.core.decision import Decision
from doorward.core.errors import DoorwardError
from doorward.core.model import EntityUid
from doorward.core.wire import Answer
from doorward.gateway.adapter import Refusal

# code -> (HTTP status, title). A code that is not here is answered as an internal error.
_SHAPES: dict[str, tuple[int, str]] = {
    "invalid_request": (400, "Invalid request"),
    "malformed_xml": (400, "Malformed XML"),
    "unauthenticated": (401, "Unauthenticated"),
    "insufficient_user_authentication": (401, "Stronger sign-in needed"),
    "denied": (403, "Denied"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "request_timeout": (408, "Request timed out"),
    "conflict": (409, "Conflict"),
    "payload_too_large": (413, "Payload too large"),
    "unsupported_media_type": (415, "Unsupported media type"),
    "limit_exceeded": (429, "Limit reached"),
    "headers_too_large": (431, "Headers too large"),
    "internal": (500, "Internal error"),
    "upstream_unavailable": (502, "Upstream unavailable"),
    "unavailable": (503, "Unavailable"),
    "overloaded": (503, "Overloaded"),
    "audit_unavailable": (503, "Unavailable"),
    "upstream_timeout": (504, "Upstream timed out"),
}
_INTERNAL = (
    "Doorward could not carry this request out; nothing was allowed. Quote the request id to your operator."
)


def status_of(code: str) -> int:
    """Return the HTTP status of a refusal's code; 500 for an unknown one."""
    return _SHAPES.get(code, _SHAPES["internal"])[0]


def refusal(code: str, detail: str, request_id: str, **fields: Any) -> Refusal:
    """Build a refusal with the status and title its code has; `fields` are the optional ones."""
    if code not in _SHAPES:
        code, detail = "internal", _INTERNAL
    status, title = _SHAPES[code]
    return Refusal(status=status, code=code, title=title, detail=detail, request_id=request_id, **fields)


def of_error(error: BaseException, request_id: str) -> Refusal:
    """Say an error to the caller: a DoorwardError in its own words, anything else in none."""
    if not isinstance(error, DoorwardError):
        return refusal("internal", _INTERNAL, request_id)
    detail = f"{error.message}. {error.hint}" if error.hint else error.message
    challenge = str(getattr(error, "challenge", "")) if error.code == "unauthenticated" else ""
    if status_of(error.code) == status_of("unauthenticated") and not challenge:
        challenge = 'Bearer realm="doorward"'
    headers = tuple(getattr(error, "headers", ()))
    wait = getattr(error, "retry_after", None)
    return refusal(
        error.code, _sentence(detail), request_id, challenge=challenge, headers=headers, retry_after=wait
    )


def of_decision(
    decision: Decision, *, principal: EntityUid, action: str, resource: EntityUid, request_id: str
) -> Refusal:
    """Say a denial: the policy's own advice if it has any, and what would let the caller in.

    `decision` must be the explained one: it holds only what this caller may be told.
    """
    said = " ".join(_sentence(text) for text in decision.advice)
    return refusal(
        "denied",
        said or f"You may not {action} {resource}.",
        request_id,
        principal=str(principal),
        action=action,
        resource=str(resource),
        would_allow=decision.would_allow,
    )


def sentence(refused: Refusal) -> str:
    """Return what happened and what would let the caller in, as one text for a stock client to print.

    All changes of `would_allow` are needed together.
    """
    text = refused.detail or refused.title
    ways = [change.say.rstrip(".") for change in refused.would_allow]
    if ways := [way for way in ways if way not in text]:
        text = f"{text} To be let in: {', and '.join(ways)}."
    if refused.request_access:
        text = f"{text} Request access: {refused.request_access}"
    return text


def _sentence(text: str) -> str:
    text = text.strip()
    if not text:
        return ""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."


def extra_headers(refused: Refusal) -> list[tuple[str, str]]:
    """Return the headers a refusal carries in every protocol: challenge and Retry-After."""
    headers: list[tuple[str, str]] = []
    if refused.challenge:
        headers.append(("WWW-Authenticate", refused.challenge))
    if refused.retry_after is not None:
        headers.append(("Retry-After", str(refused.retry_after)))
    return headers


def problem(refused: Refusal) -> Answer:
    """Return a refusal as `application/problem+json` (RFC 9457), the shape without a protocol."""
    document: dict[str, Any] = {
        "type": f"urn:doorward:{refused.code}",
        "title": refused.title,
        "status": refused.status,
        "code": refused.code,
        "detail": refused.detail,
        "request_id": refused.request_id,
    }
    for name in ("principal", "action", "resource", "request_access"):
        if value := getattr(refused, name):
            document[name] = value
    if refused.would_allow:
        # `change` is Cedar and may name attributes; the caller is told the sentence.
        document["would_allow"] = [{"say": change.say} for change in refused.would_allow]
    body = msgspec.json.encode(document)
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        *extra_headers(refused),
    ]
    return Answer(status=refused.status, headers=headers, body=body)


def event(refused: Refusal) -> bytes:
    """Return a refusal as a server-sent event of the generic shape."""
    return b"event: error\ndata: " + cast("bytes", problem(refused).body) + b"\n\n"
