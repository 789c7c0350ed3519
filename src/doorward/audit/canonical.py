"""The one byte form of a record, and the chain of SHA-256 over it.

A line is JSON with sorted keys, no spaces, no floats, and only printable ASCII: everything else is
escaped, so that a log shown on a terminal cannot act on it and one record is always one line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

GENESIS = "0" * 64
_fast = msgspec.json.Encoder(order="sorted")
_slow = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_UNPRINTABLE = re.compile(rb"[^\x20-\x7e]")
_LONGEST_INTEGER = 2**63


class NotCanonicalError(ValueError):
    """A line is not the canonical form of any record; the message says how."""


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return the canonical bytes of plain data (what `plain` returns)."""
    encoded = _fast.encode(document)
    # Both encoders agree byte for byte on printable ASCII; only the slow one escapes the rest.
    return encoded if _UNPRINTABLE.search(encoded) is None else _slow.encode(document).encode("ascii")


def plain(value: Any) -> Any:
    """Return data that has exactly one JSON form and reads back as itself.

    Floats and integers beyond 64 bits become decimal text; a lone surrogate (from a path that is
    not UTF-8) becomes its escape. Nothing a caller sends can keep its record from being written.
    """
    match value:
        case bool() | None:
            return value
        case str():
            return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
        case int():
            return value if -_LONGEST_INTEGER <= value < _LONGEST_INTEGER else str(value)
        case Mapping():
            return {str(plain(str(key))): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return str(value)


def chained(previous: str, data: bytes) -> str:
    """Return SHA-256 (hex) over the previous record's hash and this record's canonical bytes."""
    return hashlib.sha256(bytes.fromhex(previous) + data).hexdigest()


def sealed(document: Mapping[str, Any], *, seq: int, writer: str, previous: str) -> tuple[bytes, str]:
    """Return a record's line (with its newline) and its hash.

    The hash covers everything in the line but itself, and the hash before it.
    """
    body = {**document, "prev": previous, "seq": seq, "writer": writer}
    digest = chained(previous, canonical(body))
    body["hash"] = digest
    return canonical(body) + b"\n", digest


def opened(line: bytes) -> dict[str, Any]:
    """Read one line without its newline; raise NotCanonicalError unless it is exact to the byte."""
    try:
        document = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as reason:
        raise NotCanonicalError("it is not JSON") from reason
    if not isinstance(document, dict):
        raise NotCanonicalError("it is not a record")
    # A duplicate key, a space or another escape would read the same and hash differently.
    if canonical(document) != line:
        raise NotCanonicalError("its bytes are not the canonical form of what they say")
    seq, names = document.get("seq"), ("hash", "prev", "writer", "id", "kind", "time", "request_id")
    if not isinstance(seq, int) or not all(isinstance(document.get(name), str) for name in names):
        raise NotCanonicalError("a field every record has is missing")
    return document


def hash_of(document: Mapping[str, Any]) -> str:
    """Recompute the hash a record must carry; raise NotCanonicalError if `prev` is no hash."""
    body = {key: value for key, value in document.items() if key != "hash"}
    try:
        return chained(str(document["prev"]), canonical(body))
    except ValueError as reason:
        raise NotCanonicalError("its `prev` is not a hash") from reason
