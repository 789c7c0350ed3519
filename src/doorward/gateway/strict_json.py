"""Read a JSON body once, so that no later reader can read it differently (RFC 8259, RFC 7493).

Every JSON parser we measured takes the last of two equal keys, and several accept what others refuse.
Here a body has one reading or none: what is decided on is what the upstream will read in the same bytes.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

import msgspec

from doorward.core.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedMediaError
from doorward.core.wire import Request

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_KEYS = 50_000
# What a document may hold beside text: millions of tiny values keep every other request waiting.
MAX_CONTAINERS = 50_000
MAX_VALUES = 500_000
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

_CHARSETS = ("utf-8", "utf8", '"utf-8"')


def read_json_body(request: Request, body: bytes, *, known: Collection[str] = ()) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    `known` are the keys the caller of this function knows at the top level: another spelling of one of
    them is refused. Raise UnsupportedMediaError (415) for another type or a coding, PayloadTooLargeError
    (413) for size, InvalidRequestError (400) for anything that is not one strict JSON object.
    """
    require_json_type(request)
    return read_json(body, known=known)


def require_json_type(request: Request) -> None:
    """Refuse a body that is not declared as plain `application/json`, in UTF-8 if it says so."""
    coding = request.header("content-encoding")
    if coding is not None and coding.strip().lower() != "identity":
        raise UnsupportedMediaError(
            f"the body is encoded as `{coding}`, which is not read here",
            hint="Send it without Content-Encoding.",
        )
    declared = request.header("content-type")
    if declared is None:
        raise UnsupportedMediaError(
            "the body has no Content-Type", hint="Send `Content-Type: application/json`."
        )
    media, *parameters = [part.strip().lower() for part in declared.split(";")]
    if media != "application/json" or any(not _is_utf8_charset(part) for part in parameters):
        raise UnsupportedMediaError(
            f"the body is declared as `{declared}`", hint="Send `Content-Type: application/json`, in UTF-8."
        )


def _is_utf8_charset(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name == "charset" and value in _CHARSETS


def read_json(body: bytes, *, known: Collection[str] = (), max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the one JSON object in `body`; raise InvalidRequestError where two readers could differ."""
    if len(body) > max_bytes:
        raise PayloadTooLargeError(
            f"the JSON body has {len(body)} bytes, more than the {max_bytes} allowed",
            hint="Send it in parts.",
        )
    _bound_values(body)
    _require_strict_grammar(body)
    document = _decode_without_duplicates(body)
    if type(document) is not dict:
        _refuse("the body is not a JSON object", hint="Send one object: { ... }.")
    _bound_depth(document)
    refuse_variants(document, known)
    return document


def _bound_values(body: bytes) -> None:
    """Refuse a body of too many values before any of them is built; what stands in strings is no value."""
    if _containers(body) <= MAX_CONTAINERS and body.count(b",") <= MAX_VALUES:
        return
    bare = _STRINGS.sub(b"", body)
    if _containers(bare) > MAX_CONTAINERS or bare.count(b",") > MAX_VALUES:
        raise PayloadTooLargeError(
            f"the JSON body has more than {MAX_CONTAINERS} objects and lists, or {MAX_VALUES} values",
            hint="Send it in parts.",
        )


def _containers(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _require_strict_grammar(body: bytes) -> None:
    # msgspec refuses BOM, UTF-16, bad UTF-8, lone surrogates, NaN, numbers out of range, trailing text.
    try:
        msgspec.json.decode(body)
    except RecursionError:
        _refuse("the JSON body is nested too deeply", hint=f"Nest at most {MAX_DEPTH} levels.")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse(f"the body is not strict JSON: {error}", hint="Send valid JSON (RFC 8259) in UTF-8.")


def _decode_without_duplicates(body: bytes) -> Any:
    keys = 0

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal keys
        keys += len(pairs)
        if keys > MAX_KEYS:
            _refuse(f"the JSON body has more than {MAX_KEYS} keys", hint="Send it in parts.")
        members = dict(pairs)
        if len(members) != len(pairs):
            _refuse_duplicate(pairs)
        return members

    try:
        return json.loads(body.decode(), object_pairs_hook=collect)
    except RecursionError:
        _refuse("the JSON body is nested too deeply", hint=f"Nest at most {MAX_DEPTH} levels.")
    except ValueError as error:  # integers of thousands of digits
        _refuse(f"the body is not strict JSON: {error}")


def _refuse_duplicate(pairs: list[tuple[str, Any]]) -> NoReturn:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            _refuse(f"the key `{_shown(key)}` is given twice in one object", hint="Send each key once.")
        seen.add(key)
    raise AssertionError("no duplicate key")  # pragma: no cover -- called only when there is one


def _bound_depth(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            value
            for container in level
            for value in (container.values() if type(container) is dict else container)
            if type(value) is dict or type(value) is list
        ]
        if not level:
            return
    _refuse("the JSON body is nested too deeply", hint=f"Nest at most {MAX_DEPTH} levels.")


def refuse_variants(members: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a key that some reader may take for a known one, such as `Model` for `model`.

    Spellings are the same when they agree after compatibility normalisation, case folding and without
    anything but letters and digits: protobuf reads `runId` as `run_id`, others fold the Kelvin sign to k.
    """
    strange = [key for key in members if key not in known]
    folded = {_fold(name): name for name in known} if strange else {}
    for key in strange:
        if (name := folded.get(_fold(key))) is not None:
            _refuse(f"the key `{_shown(key)}` can be read as `{name}`", hint=f"Write it `{name}`.")


def _fold(key: str) -> str:
    if key.isascii():
        folded = key.lower()
        return folded if folded.isalnum() else "".join(c for c in folded if c.isalnum())
    normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", key).casefold())
    return "".join(c for c in unicodedata.normalize("NFKD", normal) if c.isalnum())


def _shown(key: str) -> str:
    text = key if len(key) <= 64 else key[:61] + "..."  # noqa: PLR2004 -- enough to recognise it
    return text if text.isprintable() else ascii(text)[1:-1]


def _refuse(message: str, *, hint: str = "") -> NoReturn:
    raise InvalidRequestError(message, hint=hint)
