"""Paging tokens of searches: opaque, and good only for the query they were made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

import msgspec

from doorward.core.errors import InvalidRequestError
from doorward.decisions.authzen_wire import Page

_MAC = hashlib.sha256().digest_size


class _Place(msgspec.Struct, frozen=True):
    query: str
    after: str
    limit: int


class Paging:
    """Make and read tokens; the key lives as long as the process, so a restart ends every search."""

    def __init__(self, key: bytes | None = None) -> None:
        """Take a key, or make one."""
        self._key = key or secrets.token_bytes(32)

    def start(self, page: Page | None, query: str, *, most: int) -> tuple[str, int]:
        """Return after which name a page begins and how many it holds.

        Raises InvalidRequestError for a token that is not ours or belongs to another query.
        """
        limit = most if page is None or page.limit is None else min(page.limit, most)
        if page is None or not page.token:
            return "", limit
        place = self._read(page.token)
        if place is None or not hmac.compare_digest(place.query, query):
            raise InvalidRequestError(
                "`page.token` does not belong to this query", hint="Repeat the query, or start over."
            )
        if page.limit is not None and limit != place.limit:
            raise InvalidRequestError(
                "`page.limit` must stay what it was", hint="Repeat it, leave it out, or start over."
            )
        return place.after, place.limit

    def token(self, query: str, after: str, limit: int) -> str:
        """Return the token of the page after one name."""
        content = msgspec.json.encode(_Place(query, after, limit))
        return base64.urlsafe_b64encode(self._mac(content) + content).decode("ascii")

    def _read(self, token: str) -> _Place | None:
        try:
            raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            return None
        mac, content = raw[:_MAC], raw[_MAC:]
        if not hmac.compare_digest(mac, self._mac(content)):
            return None
        return msgspec.json.decode(content, type=_Place)

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")
