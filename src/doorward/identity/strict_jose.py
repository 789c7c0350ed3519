"""Read a JWS in its one strict form (RFC 7515, 7.1): what two readers could read differently is refused.

Libraries forgive base64 padding, duplicate members and UTF-16; each has been a way around a check.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import Any, NoReturn

import msgspec

MAX_TOKEN = 16 * 1024
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SEGMENTS = 3
_REMAINDER_OF_NOTHING = 1


class TokenFaultError(ValueError):
    """A token cannot be accepted; the message is a reason for the record, never for the caller."""


class SignedParts(msgspec.Struct, frozen=True):
    """A JWS taken apart but not yet believed."""

    header: dict[str, Any]
    payload: dict[str, Any]
    signing_input: bytes
    signature: bytes

    @property
    def digest(self) -> str:
        """Return what names this token in records, if it names itself by nothing: 128 bits of its SHA-256."""
        return hashlib.sha256(self.signing_input).hexdigest()[:32]


def take_apart(token: str) -> SignedParts:
    """Split and decode a compact JWS; raise TokenFaultError. Nothing in it is verified."""
    # 1. A token beyond the cap is not looked at.
    if len(token) > MAX_TOKEN:
        raise TokenFaultError("token_too_long")
    # 2. Exactly three segments of base64url, none of them empty (an empty signature is `none`).
    segments = token.split(".")
    if len(segments) != _SEGMENTS or not all(map(_SEGMENT.fullmatch, segments)):
        raise TokenFaultError("token_not_compact_jws")
    # 3. Header and payload are JSON objects without duplicate members.
    return SignedParts(
        header=read_object(decode_segment(segments[0])),
        payload=read_object(decode_segment(segments[1])),
        signing_input=token.rpartition(".")[0].encode("ascii"),
        signature=decode_segment(segments[2]),
    )


def decode_segment(text: str) -> bytes:
    """Decode base64url without padding; raise TokenFaultError unless it is the canonical form."""
    if len(text) % 4 == _REMAINDER_OF_NOTHING or not _SEGMENT.fullmatch(text):
        raise TokenFaultError("token_base64_invalid")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as reason:
        raise TokenFaultError("token_base64_invalid") from reason
    # Left-over bits must be zero, else several texts stand for the same bytes.
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text.encode("ascii"):
        raise TokenFaultError("token_base64_not_canonical")
    return data


def read_object(data: bytes) -> dict[str, Any]:
    """Read one JSON object in strict UTF-8, no duplicates, no NaN; raise TokenFaultError."""
    try:
        document = json.loads(
            data.decode("utf-8", "strict"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as reason:
        raise TokenFaultError("token_json_invalid") from reason
    if not isinstance(document, dict):
        raise TokenFaultError("token_json_not_object")
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
