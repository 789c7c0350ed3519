"""AuthZEN Authorization API 1.0 on the wire: what a request must hold, and nothing more.

Unknown fields are ignored (section 5.5 of the specification); a missing or mistyped one that is
required is InvalidRequestError.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from doorward.core.errors import InvalidRequestError

MAX_EVALUATIONS = 1000
MAX_TEXT = 4096


class Semantic(StrEnum):
    """Say when a batch stops."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"


class Named(msgspec.Struct, frozen=True):
    """A subject or resource as named; `id` is empty where a search looks for it."""

    type: str
    id: str = ""
    properties: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Act(msgspec.Struct, frozen=True):
    """An action as named."""

    name: str
    properties: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Evaluation(msgspec.Struct, frozen=True):
    """One question."""

    subject: Named
    action: Act
    resource: Named
    context: Mapping[str, Any]


class Page(msgspec.Struct, frozen=True):
    """Which part of a search's answer is wanted."""

    token: str = ""
    limit: int | None = None


def document_of(body: bytes) -> dict[str, Any]:
    """Read a body; raise InvalidRequestError for what is no JSON object."""
    try:
        document = msgspec.json.decode(body)
        json.loads(body, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as reason:  # msgspec's and Unicode's errors are ValueErrors too
        raise InvalidRequestError("the body is not JSON", hint="Send one JSON object.") from reason
    if not isinstance(document, dict):
        raise InvalidRequestError("the body is not a JSON object", hint="Send one JSON object.")
    return document


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice in one object: two readers could take different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def evaluation_of(document: Mapping[str, Any]) -> Evaluation:
    """Read one evaluation."""
    return Evaluation(
        subject=named(document, "subject"),
        action=act(document),
        resource=named(document, "resource"),
        context=mapping(document, "context"),
    )


def named(document: Mapping[str, Any], key: str, *, wanted: bool = False) -> Named:
    """Read a subject or resource; one a search looks for (`wanted`) has a type, its id is ignored."""
    body = _object(document, key)
    return Named(
        type=_text(body, "type", key),
        id="" if wanted else _text(body, "id", key),
        properties=mapping(body, "properties", f"{key}."),
    )


def act(document: Mapping[str, Any]) -> Act:
    """Read the action."""
    body = _object(document, "action")
    return Act(_text(body, "name", "action"), mapping(body, "properties", "action."))


def batch_of(document: Mapping[str, Any]) -> tuple[list[Any], Semantic] | None:
    """Return the items of a batch and when it stops; None where it is a single evaluation."""
    items = document.get("evaluations")
    if items is None or items == []:
        return None
    if not isinstance(items, list):
        raise InvalidRequestError("`evaluations` must be a list")
    if len(items) > MAX_EVALUATIONS:
        raise InvalidRequestError(
            f"{len(items)} evaluations in one request; at most {MAX_EVALUATIONS}",
            hint="Send several requests.",
        )
    wanted = mapping(document, "options").get("evaluations_semantic", Semantic.EXECUTE_ALL.value)
    if wanted not in {semantic.value for semantic in Semantic}:
        raise InvalidRequestError(
            "`options.evaluations_semantic` is not known", hint=f"Known: {', '.join(Semantic)}."
        )
    return items, Semantic(wanted)


def merged(document: Mapping[str, Any], item: Any) -> dict[str, Any]:
    """Return an item with the batch's defaults: each of the four keys is taken whole or not at all."""
    if not isinstance(item, dict):
        raise InvalidRequestError("an evaluation must be an object")
    keys = ("subject", "action", "resource", "context")
    return {
        key: source[key] for key in keys for source in [item if key in item else document] if key in source
    }


def page_of(document: Mapping[str, Any]) -> Page | None:
    """Read `page`; None when there is none."""
    if "page" not in document:
        return None
    body = mapping(document, "page")
    token, limit = body.get("token", ""), body.get("limit")
    if not isinstance(token, str) or len(token) > MAX_TEXT:
        raise InvalidRequestError("`page.token` must be text")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise InvalidRequestError("`page.limit` must be a whole number from 1")
    return Page(token, limit)


def digest_of(*parts: Any) -> str:
    """Return the sha256 (hex) of the canonical JSON of a query."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def mapping(document: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
    """Return an optional object; raise InvalidRequestError for another type."""
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise InvalidRequestError(f"`{where}{key}` must be an object")
    return value


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if key not in document:
        raise InvalidRequestError(f"`{key}` is missing")
    return mapping(document, key)


def _text(body: Mapping[str, Any], key: str, where: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
        raise InvalidRequestError(f"`{where}.{key}` must be text of 1 to {MAX_TEXT} characters")
    return value
