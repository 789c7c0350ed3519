"""What every masker does, how it says no, and how field names are compared."""

from __future__ import annotations

import unicodedata
from typing import Protocol

from doorward.core.errors import DeniedError

MAX_RECORD = 4 * 1024 * 1024
HEAD_BYTES = 64 * 1024


class MaskRefusedError(DeniedError):
    """The object cannot be masked for certain, so it is not given out (HTTP 403)."""


def refuse(reason: str) -> MaskRefusedError:
    """Return the refusal with its reason; the hint is the same for all."""
    return MaskRefusedError(
        f"This object must be masked for you, and {reason}",
        hint="Ask its owner for CSV with a header or JSON lines, in UTF-8, not compressed.",
    )


class Masker(Protocol):
    """Mask a stream of bytes. What comes out is as long as what went in, in order, whole records at a time.

    So the number of bytes given out is always a place where a fresh masker can take up the work.
    """

    redactions: int

    def feed(self, data: bytes) -> bytes:
        """Take any piece of input, return the masked records it completes; raise MaskRefusedError."""

    def finish(self) -> bytes:
        """Return the rest, masked; raise MaskRefusedError if the input ends in the middle of a record."""


def plain(name: str) -> str:
    """Return a field name as it is compared: no case, no invisible characters, no space around."""
    name = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in name if unicodedata.category(c) != "Cf").strip()


def utf8(data: bytes) -> str:
    """Decode whole records; raise MaskRefusedError where they are not UTF-8 text."""
    if b"\0" in data:
        raise refuse("it holds binary data")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise refuse("its text is not UTF-8") from None
