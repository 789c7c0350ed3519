"""The URLs this gateway is known by: what a proof made for one request must name (RFC 9449, 4.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from doorward.settings import is_loopback

_PORTS = {"http": 80, "https": 443}
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_MAX_URL = 8192


def origin_of(url: str) -> str | None:
    """Return `scheme://host:port` of an http(s) URL in one spelling (RFC 3986, 6.2); None for any other."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc:
        return None
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port or _PORTS[parts.scheme]}"


def _one_spelling(path: str) -> str:
    def decoded(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()

    return _ESCAPE.sub(decoded, path) or "/"


class OwnAddresses:
    """Every origin this gateway answers to; a Host header alone proves nothing, its sender chose it."""

    def __init__(self, urls: Iterable[str]) -> None:
        """Take the configured URLs; one on loopback counts under all of loopback's names."""
        self._origins = frozenset(alias for url in urls for alias in _aliases(url))

    def is_request(self, url: str, *, raw_path: str) -> bool:
        """Return whether `url`, its query and fragment ignored, is that of a request to us."""
        if len(url) > _MAX_URL or not url.isascii() or not url.isprintable():
            return False
        origin = origin_of(url)
        if origin is None or origin not in self._origins:
            return False
        return _one_spelling(urlsplit(url).path) == _one_spelling(raw_path)


def _aliases(url: str) -> Iterable[str]:
    origin = origin_of(url)
    if origin is None:
        return ()
    scheme, _, authority = origin.partition("://")
    host, _, port = authority.rpartition(":")
    names = _LOOPBACK_NAMES if is_loopback(host) else (host,)
    return tuple(f"{scheme}://{name}:{port}" for name in names)
