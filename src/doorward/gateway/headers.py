"""Which headers pass the door in each direction; everything about identity stays outside."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

# RFC 9110 §7.6.1 and the ones that were never standardised.
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
        "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
    }
)  # fmt: skip
# A caller's credentials: they open our door, never the upstream's.
CREDENTIALS = frozenset(
    {"authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "dpop", "x-amz-security-token"}
)
_FORWARDING = frozenset(
    {
        "forwarded", "via", "x-real-ip", "true-client-ip", "x-client-ip", "x-cluster-client-ip",
        "cf-connecting-ip", "fastly-client-ip", "x-original-url", "x-original-uri", "x-original-host",
        "x-original-method", "x-rewrite-url", "x-host", "x-http-method-override", "x-http-method",
        "x-method-override", "x-custom-host", "expect", "content-length", "host",
    }
)  # fmt: skip
_IDENTITY_PREFIXES = (
    "x-forwarded", "x-user", "x-remote", "remote-", "x-auth", "x-role", "x-group", "x-email", "x-identity",
    "x-principal", "x-tenant", "x-account", "x-webauth", "x-ssl-", "ssl-client", "x-client-cert",
    "x-client-verify", "x-client-dn", "x-envoy", "x-original-", "x-portkey", "x-litellm", "doorward-",
    "x-doorward",
)  # fmt: skip
_USER_METADATA = "x-amz-meta-"
_INTERNAL_ANSWER = frozenset(
    {
        "set-cookie", "set-cookie2", "server", "x-powered-by", "x-aspnet-version", "x-aspnetmvc-version",
        "x-runtime", "via", "alt-svc", "www-authenticate", "x-served-by", "x-backend", "x-backend-server",
        "x-upstream", "strict-transport-security", "public-key-pins", "clear-site-data", "nel", "report-to",
    }
)  # fmt: skip
_INTERNAL_ANSWER_PREFIXES = (
    "access-control-",
    "x-envoy",
    "x-forwarded",
    "doorward-",
    "x-accel-",
    "x-internal-",
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSAFE_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_NEVER_UP = _HOP_BY_HOP | _FORWARDING | CREDENTIALS
_NEVER_DOWN = _HOP_BY_HOP | _INTERNAL_ANSWER
_CONNECTION, _NOTHING = len("connection"), frozenset[str]()
# What is remembered of names that were judged before, each way.
_NAMES = 1024

Pairs = Iterable[tuple[str, str]]


def _named_in_connection(headers: list[tuple[str, str]]) -> frozenset[str]:
    named: list[str] = []
    for name, value in headers:
        if len(name) == _CONNECTION and name.lower() == "connection":
            named += [token.strip().lower() for token in value.split(",")]
    return frozenset(named) if named else _NOTHING


def upward(headers: Pairs) -> list[tuple[str, str]]:
    """Return the headers of a caller that may go to an upstream: no credential, no claim, no hop.

    Names with `_` go too: servers that map `-` and `_` to one variable would read them as another header.
    Metadata of objects keeps them: its prefix is its own, and it is signed as it stands.
    """
    pairs = list(headers)
    named = _named_in_connection(pairs)
    return [
        pair for pair in pairs if _goes_up(pair[0]) and _is_clean(pair[1]) and pair[0].lower() not in named
    ]


@lru_cache(maxsize=_NAMES)
def _goes_up(name: str) -> bool:
    low = name.lower()
    return (
        low not in _NEVER_UP
        and ("_" not in low or low.startswith(_USER_METADATA))
        and not low.startswith(_IDENTITY_PREFIXES)
        and _NAME.fullmatch(name) is not None
    )


def downward(headers: Pairs) -> list[tuple[str, str]]:
    """Return the headers of an upstream's answer that may go to the caller."""
    pairs = list(headers)
    named = _named_in_connection(pairs)
    return [
        pair for pair in pairs if _goes_down(pair[0]) and _is_clean(pair[1]) and pair[0].lower() not in named
    ]


@lru_cache(maxsize=_NAMES)
def _goes_down(name: str) -> bool:
    low = name.lower()
    return (
        low not in _NEVER_DOWN
        and not low.startswith(_INTERNAL_ANSWER_PREFIXES)
        and _NAME.fullmatch(name) is not None
    )


def _is_clean(value: str) -> bool:
    # Lone surrogates (bytes that were not UTF-8) cannot be written back as they came.
    return _UNSAFE_VALUE.search(value) is None


def relocated(location: str, *, url: str, name: str) -> str | None:
    """Return a redirect's target as seen from outside, or None when it leads anywhere else.

    `url` is the upstream's own, `name` its path segment at the gateway.
    """
    if location.startswith("/") and not location.startswith("//"):
        path = location
    elif not url.startswith("unix:") and urlsplit(location)[:2] == urlsplit(url)[:2]:
        path = "/" + location.split("://", 1)[1].partition("/")[2]
    else:
        return None
    base = "" if url.startswith("unix:") else urlsplit(url).path.rstrip("/")
    if base and not (path + "/").startswith(base + "/"):
        return None
    return f"/{name}{path[len(base) :]}"
