"""AWS Signature Version 4 for S3: the canonical request, the key, the signature; no decision here."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from datetime import datetime
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from doorward.core.errors import InvalidRequestError

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
DATE_FORMAT = "%Y%m%dT%H%M%SZ"
_UNRESERVED = "-_.~"
_SPACES = re.compile(r"[ \t]+")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

Pairs = Iterable[tuple[str, str]]


class Scope(msgspec.Struct, frozen=True):
    """State the credential scope: what the signing key is good for."""

    date: str
    region: str
    service: str = "s3"

    def __str__(self) -> str:
        """Return it as it stands in the string to sign."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


class S3Keys(msgspec.Struct, frozen=True):
    """Hold one pair of S3 keys; the secret never prints."""

    access_key_id: str
    secret_access_key: str
    region: str = "us-east-1"

    def __repr__(self) -> str:
        """Return the public half only."""
        return f"S3Keys({self.access_key_id!r})"


def read_query(raw_query: str) -> tuple[tuple[str, str], ...]:
    """Read a raw query once, strictly; raise InvalidRequestError for what has two readings.

    A `+` is a space, as S3 reads it; what is signed and sent on is written anew, with `%20`.
    """
    if not raw_query:
        return ()
    return tuple(_read_pair(pair) for pair in raw_query.split("&") if pair)


def _read_pair(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    return _decode(name), _decode(value)


def _decode(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise InvalidRequestError("the query holds a broken escape", hint="Write a percent sign as %25.")
    try:
        return unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError:
        raise InvalidRequestError("the query is not UTF-8", hint="Percent-encode it as UTF-8.") from None


def encode(text: str, *, safe: str = "") -> str:
    """Percent-encode as SigV4 wants it: everything but unreserved characters and `safe`."""
    return quote_from_bytes(text.encode("utf-8", "surrogateescape"), safe=_UNRESERVED + safe)


def canonical_query(pairs: Pairs) -> str:
    """Return decoded pairs as the canonical query string, sorted after encoding."""
    return "&".join(f"{name}={value}" for name, value in sorted((encode(n), encode(v)) for n, v in pairs))


def canonical_value(value: str) -> str:
    """Trim a header value and fold its inner spaces to one."""
    return _SPACES.sub(" ", value.strip(" \t"))


def canonical_request(
    *, method: str, path: str, query: Pairs, headers: Iterable[tuple[str, str]], payload: str
) -> str:
    """Return the canonical request; `path` as on the wire, `headers` only the signed ones, lower case."""
    ordered = sorted((name, canonical_value(value)) for name, value in headers)
    return "\n".join(
        (
            method,
            path or "/",
            canonical_query(query),
            "".join(f"{name}:{value}\n" for name, value in ordered),
            ";".join(name for name, _ in ordered),
            payload,
        )
    )


def string_to_sign(canonical: str, *, date: str, scope: Scope) -> str:
    """Return what the signature covers: algorithm, time, scope, digest of the canonical request."""
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    return "\n".join((ALGORITHM, date, str(scope), digest))


def signing_key(secret: str, scope: Scope) -> bytes:
    """Derive the key of one day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in (scope.date, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def signature(key: bytes, text: str) -> str:
    """Return the signature of `text`, hex."""
    return hmac.digest(key, text.encode("utf-8", "surrogateescape"), "sha256").hex()


def sign(  # noqa: PLR0913 -- the parts of a request, all by name
    *,
    method: str,
    host: str,
    path: str,
    query: Pairs,
    headers: list[tuple[str, str]],
    payload: str,
    keys: S3Keys,
    now: datetime,
) -> list[tuple[str, str]]:
    """Return `headers` with date, payload hash and `authorization` of the gateway's own keys.

    `path` is encoded already; `payload` is a SHA-256 (hex) or UNSIGNED-PAYLOAD. Signed are the host and
    every `x-amz-` header, so nothing that changes the meaning can be changed on the way.
    """
    date = now.strftime(DATE_FORMAT)
    scope = Scope(date[:8], keys.region)
    dropped = {"authorization", "x-amz-date", "x-amz-content-sha256", "host"}
    kept = [(name, value) for name, value in headers if name.lower() not in dropped]
    kept += [("x-amz-date", date), ("x-amz-content-sha256", payload)]
    signed = [("host", host)]
    signed += [(name.lower(), value) for name, value in kept if name.lower().startswith("x-amz-")]
    canonical = canonical_request(method=method, path=path, query=query, headers=signed, payload=payload)
    text = string_to_sign(canonical, date=date, scope=scope)
    value = (
        f"{ALGORITHM} Credential={keys.access_key_id}/{scope}, "
        f"SignedHeaders={';'.join(sorted(name for name, _ in signed))}, "
        f"Signature={signature(signing_key(keys.secret_access_key, scope), text)}"
    )
    return [*kept, ("authorization", value)]
