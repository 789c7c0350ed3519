"""Remember tokens that verified, under the whole of their text; never what a request itself must show."""

from __future__ import annotations

import hashlib
from typing import Protocol

import msgspec

from doorward.core.identity import Caller
from doorward.core.ports import CredentialRegistry
from doorward.identity.claims import VerifiedToken
from doorward.identity.key_sets import KeySet

ENTRIES = 4096
_LONG = 2048  # characters; a longer token is kept by the SHA-256 of all of it


class Source(Protocol):
    """What a token was verified by."""

    def current(self) -> KeySet:
        """Return, without waiting, the keys that count now: the same object for as long as none changes."""


class Kept(msgspec.Struct):
    """A token that verified, and what must still be as it was.

    `keys` are the ones it was verified with, `until` is on the monotonic clock. `caller` is who it
    stood for in `registry`, if that hung on nothing but the token. Of an `introspected` one only its
    issuer knows whether it was revoked.
    """

    token: VerifiedToken
    source: Source
    keys: KeySet
    until: float
    caller: Caller | None = None
    registry: CredentialRegistry | None = None
    introspected: bool = False


class TokenCache:
    """Hold a bounded number of tokens, short and long ones; the oldest goes first."""

    def __init__(self, entries: int = ENTRIES) -> None:
        """Bound the entries; each holds at most 2 KiB of text."""
        self._entries = entries
        self._kept: dict[str, Kept] = {}
        self._long: dict[bytes, Kept] = {}

    def __len__(self) -> int:
        """Return how many tokens are held."""
        return len(self._kept) + len(self._long)

    def get(self, text: str) -> Kept | None:
        """Return what is held for exactly this text."""
        kept = self._kept.get(text)
        return kept if kept is not None or len(text) <= _LONG else self._long.get(_digest(text))

    def put(self, text: str, kept: Kept) -> None:
        """Hold a token, and let go of the oldest if there are too many."""
        if len(text) <= _LONG:
            if len(self._kept) >= self._entries:
                del self._kept[next(iter(self._kept))]
            self._kept[text] = kept
        else:
            if len(self._long) >= self._entries:
                del self._long[next(iter(self._long))]
            self._long[_digest(text)] = kept

    def drop(self, text: str) -> None:
        """Forget one token."""
        self._kept.pop(text, None)
        if len(text) > _LONG:
            self._long.pop(_digest(text), None)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
