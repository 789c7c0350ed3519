"""Which headers of a caller reach an S3 upstream, and which of its answer reach the caller."""

from __future__ import annotations

import re
from collections.abc import Iterable

from doorward.core.wire import Request
from doorward.gateway.adapter import UnknownRouteError

Headers = list[tuple[str, str]]

_WRITE = frozenset(
    {"content-type", "content-md5", "content-disposition", "content-language", "cache-control", "expires",
     "if-match", "if-none-match", "x-amz-storage-class", "x-amz-server-side-encryption",
     "x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm", "x-amz-checksum-type",
     "x-amz-mp-object-size", "x-amz-expected-bucket-owner"}
)  # fmt: skip
_COPY = frozenset(
    {"x-amz-metadata-directive", "x-amz-copy-source-range", "x-amz-copy-source-if-none-match",
     "x-amz-copy-source-if-modified-since", "x-amz-copy-source-if-unmodified-since"}
)  # fmt: skip
# Read or replaced here; everything else that starts with `x-amz-` changes what a request means.
_OWN = frozenset(
    {"x-amz-date", "x-amz-content-sha256", "x-amz-decoded-content-length", "x-amz-trailer",
     "x-amz-user-agent", "x-amz-checksum-mode", "x-amz-copy-source", "x-amz-copy-source-if-match"}
)  # fmt: skip
_FREE = ("x-amz-meta-", "x-amz-checksum-")
_ANSWER = frozenset(
    {"content-type", "content-length", "content-disposition", "content-encoding", "content-language",
     "cache-control", "expires", "etag", "last-modified", "accept-ranges", "content-range",
     "x-amz-version-id", "x-amz-storage-class", "x-amz-server-side-encryption", "x-amz-bucket-region",
     "x-amz-delete-marker", "x-amz-missing-meta"}
)  # fmt: skip
# Of an object whose bytes are changed, or of whose bytes nothing may be told.
_MASKED_ANSWER = frozenset(
    {"content-type", "content-disposition", "content-language", "cache-control", "last-modified",
     "x-amz-storage-class", "x-amz-server-side-encryption"}
)  # fmt: skip
_DIGEST = re.compile(r"md5|sha|crc|checksum|hash|digest|etag", re.IGNORECASE)


def check_headers(request: Request) -> None:
    """Raise UnknownRouteError for an `x-amz-` header that is not on the list: ACLs, tags, keys, redirects."""
    for name, _ in request.headers:
        if name.startswith("x-amz-") and not (
            name in _OWN or name in _WRITE or name in _COPY or name.startswith(_FREE)
        ):
            raise UnknownRouteError(f"the header {name}")


def written(request: Request, *, copy: bool = False) -> Headers:
    """Return the headers of a write that the upstream gets."""
    allowed = _WRITE | _COPY if copy else _WRITE
    headers = [(name, value) for name, value in request.headers if name in allowed or name.startswith(_FREE)]
    encoding = ",".join(
        part
        for name, value in request.headers
        if name == "content-encoding"
        for part in (piece.strip() for piece in value.split(","))
        if part and part.lower() != "aws-chunked"
    )
    return [*headers, ("content-encoding", encoding)] if encoding else headers


def answered(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return the headers of an upstream's answer that the caller gets."""
    lowered = [(name.lower(), value) for name, value in headers]
    return [
        (name, value)
        for name, value in lowered
        # Some stores say of a plain deletion that it left no marker; others, and we, say nothing.
        if (name in _ANSWER or name.startswith(_FREE)) and (name, value) != ("x-amz-delete-marker", "false")
    ]


def answered_masked(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return the headers that stay true of masked bytes; length, ETag and range are set anew."""
    return [(name.lower(), value) for name, value in headers if name.lower() in _MASKED_ANSWER]


def without_digests(headers: Headers) -> Headers:
    """Drop what is computed from the bytes: a checksum of hidden columns is a guess away from them."""
    return [
        (name, value)
        for name, value in headers
        if not name.startswith("x-amz-checksum-")
        and not (name.startswith("x-amz-meta-") and _DIGEST.search(name))
        and name != "content-md5"
    ]


def find(headers: Iterable[tuple[str, str]], name: str) -> str:
    """Return the first value of a header, or an empty text."""
    return next((value for key, value in headers if key.lower() == name), "")
