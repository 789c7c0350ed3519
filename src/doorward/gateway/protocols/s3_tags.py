"""ETags the caller may see, and conditions on them; an original would tell what masked bytes hide."""

from __future__ import annotations

import hmac
import re
from datetime import datetime
from email.utils import parsedate_to_datetime

import msgspec

from doorward.core.wire import Request

_TAG = re.compile(r'(?:W/)?"[^"]*"|[^",\s]+')
_RANGE = re.compile(r"bytes=(?:([0-9]{1,15})-([0-9]{0,15})|-([0-9]{1,15}))")
# Shown to who may look at an object but not read it.
VIEWED = "viewed"
PLAIN = ""


class Window(msgspec.Struct, frozen=True):
    """State which bytes are asked for, end exclusive, of how many."""

    start: int
    stop: int
    total: int

    @property
    def whole(self) -> bool:
        """Return whether it is all of the object."""
        return self.start == 0 and self.stop == self.total


class UnsatisfiableError(Exception):
    """No byte of the object is in the range asked for (HTTP 416)."""


class TagVeil:
    """Derive ETags that follow the object and the way it is shown, and tell nothing about its bytes."""

    def __init__(self, key: bytes) -> None:
        """Take a secret that stays the same as long as ETags should."""
        self._key = key

    def shown(self, *, bucket: str, key: str, etag: str, form: str) -> str:
        """Return the strong ETag for one form (PLAIN, VIEWED, or a mask's name) of one version.

        Its shape is that of a multipart upload's, so that clients do not take it for an MD5.
        """
        if form == PLAIN or not etag:
            return etag
        text = msgspec.json.encode([bucket, key, etag, form])
        return f'"{hmac.digest(self._key, text, "sha256").hex()[:32]}-1"'


def mask_form(fields: frozenset[str]) -> str:
    """Return the form's name of a mask."""
    return "masked:" + msgspec.json.encode(sorted(fields)).decode()


class State(msgspec.Struct, frozen=True, kw_only=True):
    """State what conditions are checked against: the shown tag, others of the same version, and the date."""

    tag: str
    also: frozenset[str] = frozenset()
    modified: str = ""


def precondition(request: Request, state: State) -> int | None:
    """Return 412 or 304 if the request's conditions end it (RFC 9110 §13.2.2), else None."""
    match, none_match = request.header("if-match"), request.header("if-none-match")
    if match is not None:
        if not _names(match, state.also | {state.tag}):
            return 412
    elif _changed_since(request.header("if-unmodified-since"), state.modified) is True:
        return 412
    if none_match is not None:
        return 304 if _names(none_match, {state.tag}) else None
    return 304 if _changed_since(request.header("if-modified-since"), state.modified) is False else None


def _names(header: str, tags: set[str] | frozenset[str]) -> bool:
    bare = {tag.removeprefix("W/").strip('"') for tag in tags}
    return header.strip() == "*" or any(t.removeprefix("W/").strip('"') in bare for t in _TAG.findall(header))


def _changed_since(header: str | None, modified: str) -> bool | None:
    since, last = _date(header), _date(modified)
    return None if since is None or last is None else last > since


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def window(request: Request, *, total: int, state: State) -> Window:
    """Return the bytes asked for; a Range that is none, or whose If-Range fails, means all.

    Raise UnsatisfiableError for one outside the object.
    """
    everything = Window(0, total, total)
    header = request.header("range")
    match = _RANGE.fullmatch(header.strip().lower()) if header is not None else None
    if match is None or not _if_range(request, state):
        return everything
    first, last, suffix = match.groups()
    if suffix is not None:
        if int(suffix) == 0 or total == 0:
            raise UnsatisfiableError
        return Window(max(0, total - int(suffix)), total, total)
    start, stop = int(first), min(int(last) + 1, total) if last else total
    if last and int(last) < start:
        return everything
    if start >= total:
        raise UnsatisfiableError
    return Window(start, stop, total)


def _if_range(request: Request, state: State) -> bool:
    header = request.header("if-range")
    if header is None:
        return True
    if header.startswith(('"', "W/")):
        return not header.startswith("W/") and header == state.tag
    return bool(state.modified) and header == state.modified
