"""One canonical reading of a request's head, or a refusal (step 1).

What two servers could read differently is refused, not repaired: RFC 9112 §3 and §6, RFC 3986 §3.
A span that a protocol declares opaque (an object key) is decoded once, for naming, and forwarded as
received; it must have one spelling only, so a second decoding or cleaning changes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

import msgspec

from doorward.core.errors import InvalidRequestError
from doorward.core.wire import Body, Headers, Peer, Request

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SINGLE = frozenset(
    {
        "host", "authorization", "proxy-authorization", "content-length", "transfer-encoding", "content-type",
        "content-encoding", "content-range", "content-md5", "range", "expect", "x-api-key", "dpop", "cookie",
        "doorward-purpose", "x-amz-date", "x-amz-content-sha256", "x-amz-copy-source", "x-amz-security-token",
        "x-amz-decoded-content-length", "date", "origin", "mcp-session-id", "upgrade", "user-agent",
    }
)  # fmt: skip
_OVERRIDES = frozenset({"x-http-method-override", "x-http-method", "x-method-override", "x-original-method"})
# Headers that frame, identify or describe the request: naming one in Connection would make a hop drop it.
_NOT_HOP = frozenset(
    {
        "host", "authorization", "content-length", "content-type", "content-encoding", "transfer-encoding",
        "expect", "range", "cookie", "x-api-key", "dpop", "doorward-purpose",
        "x-amz-date", "x-amz-content-sha256",
    }
)  # fmt: skip
# Headers that may ask for something else than the request line says.
_TELLING = _OVERRIDES | {"upgrade", "expect", "connection"}
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE_UNSAFE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_LENGTH = re.compile(r"[0-9]{1,18}")
_PCHARS = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*")
_QUERY_CHARS = re.compile(r"[!-~]*")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SEPARATOR_IN_DISGUISE = re.compile(r"%(?:2e|2f|5c|00|25)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_KEY_SAFE = "/!$&'()*,=:@-._~"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a request as it stood on the wire: `target` undecoded, header bytes as received."""

    method: str
    target: str
    version: tuple[int, int]
    headers: tuple[tuple[bytes, bytes], ...]


def opaque_after(kind: str) -> int | None:
    """Return after how many path segments a kind of upstream has an opaque name, None for never.

    For S3: upstream name and bucket are strict, the object key is opaque.
    """
    return 2 if kind == "s3" else None


def read(head: Head, *, id: str, peer: Peer, body: Body, opaque: Mapping[str, int]) -> Request:  # noqa: A002 -- Request.id
    """Return the request in its one reading; raise InvalidRequestError if it has none or two.

    `opaque` maps an upstream's name to the number of strict segments before its opaque span.
    """
    if head.method not in METHODS:
        raise InvalidRequestError(
            f"method `{_printable(head.method)}` is not served",
            hint=f"Use one of {', '.join(sorted(METHODS))}.",
        )
    headers = _headers(head)
    table = dict(headers)
    _check_framing(table, head.version)
    if not _TELLING.isdisjoint(table):
        _check_intent(headers)
    host = _host(table.get("host"))
    raw_path, raw_query = _split(head.target)
    return Request(
        id=id,
        method=head.method,
        path=_path(raw_path, opaque),
        raw_path=raw_path,
        query=_query(raw_query),
        raw_query=raw_query,
        headers=headers,
        peer=peer,
        body=body,
        host=host,
    )


def _printable(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:40])


def _headers(head: Head) -> Headers:
    seen: set[str] = set()
    pairs: list[tuple[str, str]] = []
    for raw_name, raw_value in head.headers:
        name = _header_name(raw_name)
        if _VALUE_UNSAFE.search(raw_value) is not None:
            raise InvalidRequestError(f"header `{name}` holds control characters")
        try:
            value = raw_value.decode("utf-8").strip(" \t")
        except UnicodeDecodeError:
            raise InvalidRequestError(f"header `{name}` is not UTF-8") from None
        if name in _SINGLE and name in seen:
            raise InvalidRequestError(f"header `{name}` is given twice", hint="Send it once.")
        seen.add(name)
        pairs.append((name, value))
    return tuple(pairs)


@lru_cache(maxsize=1024)
def _header_name(raw: bytes) -> str:
    if _NAME.fullmatch(raw) is None:
        raise InvalidRequestError("a header name holds characters no header name may hold")
    return raw.decode("ascii").lower()


def _check_framing(headers: Mapping[str, str], version: tuple[int, int]) -> None:
    """Refuse a body whose end two servers could see in two places (RFC 9112 §6.3)."""
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if version not in ((1, 0), (1, 1)):
        raise InvalidRequestError("only HTTP/1.1 is served here")
    if length is not None and _LENGTH.fullmatch(length) is None:
        raise InvalidRequestError("header `content-length` is not a plain number")
    if coding is None:
        return
    if length is not None:
        raise InvalidRequestError("`content-length` and `transfer-encoding` are both given", hint="Send one.")
    if coding.lower() != "chunked" or version == (1, 0):
        raise InvalidRequestError("the only transfer coding served is `chunked`, on HTTP/1.1")


def _check_intent(headers: Headers) -> None:
    for name, value in headers:
        if name in _OVERRIDES:
            raise InvalidRequestError(
                f"header `{name}` would change the method", hint="Send the method itself."
            )
        if name == "upgrade":
            raise InvalidRequestError("no route here may change the protocol", hint="Leave out `Upgrade`.")
        if name == "expect" and value.lower() != "100-continue":
            raise InvalidRequestError("the only expectation served is `100-continue`")
        if name == "connection":
            for token in value.lower().split(","):
                if token.strip() in _NOT_HOP:
                    raise InvalidRequestError(f"`Connection` may not name `{token.strip()}`")


def _host(value: str | None) -> str:
    if value is None:
        raise InvalidRequestError("header `host` is missing")
    if _HOST.fullmatch(value) is None:
        raise InvalidRequestError("header `host` is not a host name with an optional port")
    return value


def _split(target: str) -> tuple[str, str]:
    """Cut an origin-form target (RFC 9112 §3.2.1) at its first `?`; no other form is served."""
    if not target.startswith("/"):
        raise InvalidRequestError("the request target must be a path that starts with `/`")
    if "#" in target:
        raise InvalidRequestError("a request target has no fragment", hint="Write `#` as %23 in a query.")
    raw_path, _, raw_query = target.partition("?")
    if _PCHARS.fullmatch(raw_path) is None:
        raise InvalidRequestError("the path holds characters that must be percent-encoded")
    if _QUERY_CHARS.fullmatch(raw_query) is None:
        raise InvalidRequestError("the query holds characters that must be percent-encoded")
    if _PERCENT.search(target) is not None:
        raise InvalidRequestError("a `%` is not followed by two hexadecimal digits")
    return raw_path, raw_query


def _path(raw: str, opaque: Mapping[str, int]) -> str:
    if "//" in raw:
        raise InvalidRequestError("the path holds an empty segment (`//`)")
    segments = raw[1:].split("/")
    if "%" in segments[0]:
        # It is cut off before the rest is sent on, so it must be found as it stands.
        raise InvalidRequestError("the upstream's name is percent-encoded", hint="Write it as it is.")
    strict = opaque.get(segments[0], len(segments))
    decoded = [_strict_segment(segment) for segment in segments[:strict]]
    decoded += [_opaque_segment(segment) for segment in segments[strict:]]
    return "/" + "/".join(decoded)


# The same few names of routes come again and again.
@lru_cache(maxsize=4096)
def _strict_segment(raw: str) -> str:
    """Decode one segment in which nothing may hide: no encoded separator, no parameters, no dots alone."""
    if _SEPARATOR_IN_DISGUISE.search(raw) is not None:
        raise InvalidRequestError("the path holds an encoded dot, slash, backslash, percent sign or NUL")
    text = _decode(raw)
    if ";" in text:
        raise InvalidRequestError("the path holds `;` parameters")
    if unicodedata.normalize("NFKC", text) != text:
        raise InvalidRequestError("the path holds characters that have a second spelling (NFKC)")
    return text


def _opaque_segment(raw: str) -> str:
    """Decode one segment of an opaque name; its encoding must be the only one (RFC 3986 §6.2.2)."""
    if "+" in raw or ";" in raw:
        raise InvalidRequestError("`+` and `;` in an object name must be written %2B and %3B")
    text = _decode(raw)
    if "/" in text:
        raise InvalidRequestError("the object name holds an encoded slash")
    # Clients differ in which punctuation they encode; no server reads either form in another way.
    loose = re.sub(r"%(21|24|26|27|28|29|2A|2C|3D|3A|40)", lambda m: chr(int(m[1], 16)), raw)
    if quote(text, safe=_KEY_SAFE) != loose:
        raise InvalidRequestError(
            "the object name is not encoded in the one canonical way",
            hint="Encode it once, with upper-case hexadecimal digits, and only what must be.",
        )
    return text


def _decode(raw: str) -> str:
    text = _utf8(raw, "path")
    if _CONTROL.search(text) is not None:
        raise InvalidRequestError("the path holds control characters")
    if "\\" in text:
        raise InvalidRequestError("the path holds a backslash")
    # Also what becomes dots only after compatibility normalisation, or after trimming.
    if unicodedata.normalize("NFKC", text).strip() in {".", ".."}:
        raise InvalidRequestError("the path holds a dot segment")
    return text


def _utf8(raw: str, where: str) -> str:
    if "%" not in raw and raw.isascii():
        return raw
    data = bytearray()
    position = 0
    while position < len(raw):
        if raw[position] == "%":
            data.append(int(raw[position + 1 : position + 3], 16))
            position += 3
        else:
            data.append(ord(raw[position]))
            position += 1
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequestError(f"the {where} is not UTF-8 once decoded") from None


def _query(raw: str) -> tuple[tuple[str, str], ...]:
    if ";" in raw:
        raise InvalidRequestError("the query holds `;`, which some servers read as `&`", hint="Write it %3B.")
    pairs: list[tuple[str, str]] = []
    for part in raw.split("&"):
        if not part:
            continue
        name, _, value = part.replace("+", "%20").partition("=")
        pair = _utf8(name, "query"), _utf8(value, "query")
        if any(_CONTROL.search(text) for text in pair):
            raise InvalidRequestError("the query holds control characters")
        if pair[0] == "_method":
            raise InvalidRequestError("parameter `_method` would change the method")
        pairs.append(pair)
    return tuple(pairs)
