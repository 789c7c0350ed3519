"""Long lists page by page, and answers that say which state they show (RFC 8288, RFC 9110 8.8 and 13).

A page's `Link: <…>; rel="next"` leads to the next one. Every answer that shows the directory carries its
version as `ETag`; sent back in `If-None-Match` an unchanged answer is 304, and in `If-Match` a change is
made only onto that version (412 otherwise).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

from fastapi import Header, HTTPException, Query, Request, Response

from doorward.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from doorward.console.services import Services

MOST = 1000
_TAG = re.compile(r'(?:W/)?"v(\d{1,18})"')
_STRONG = re.compile(r'"v(\d{1,18})"')
Item = TypeVar("Item")
Order = tuple[str, ...]


class Listing:
    """What a list route needs: the page asked for, and the answer's headers."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=MOST, description="at most this many")] = MOST,
        after: Annotated[str, Query(max_length=4096, description="taken from `Link`")] = "",
        if_none_match: Annotated[str, Header(max_length=1024)] = "",
    ) -> None:
        """Take the page from the address; one listing serves one request."""
        self._request, self._response = request, response
        self._limit, self._after, self._known = limit, _position(after), if_none_match

    def page(self, items: Sequence[Item], order: Callable[[Item], Order]) -> Sequence[Item]:
        """Return this page's items, in `order`; raise HTTPException (304) if the caller has this state."""
        services: Services = self._request.app.state.services
        tag = etag(services)
        if _matches(self._known, tag):
            raise HTTPException(304, headers={"ETag": tag})
        self._response.headers["ETag"] = tag
        rest = sorted((item for item in items if order(item) > self._after), key=order)
        if len(rest) > self._limit:
            self._response.headers["Link"] = self._next(order(rest[self._limit - 1]))
        return rest[: self._limit]

    def _next(self, last: Order) -> str:
        text = base64.urlsafe_b64encode("\0".join(last).encode()).decode().rstrip("=")
        url = self._request.url.include_query_params(limit=self._limit, after=text)
        return f'<{url.path}?{url.query}>; rel="next"'


def etag(services: Services) -> str:
    """Return the directory's version as a strong entity tag."""
    return f'"v{services.directory.snapshot.version}"'


def tagged(request: Request, response: Response, if_none_match: Annotated[str, Header()] = "") -> None:
    """Tag one object's answer with the state it shows; 304 if the caller has it."""
    tag = etag(request.app.state.services)
    if _matches(if_none_match, tag):
        raise HTTPException(304, headers={"ETag": tag})
    response.headers["ETag"] = tag


def versions_of(if_match: str | None) -> frozenset[int] | None:
    """Return the versions an `If-Match` names; None without one and for `*`, which any state satisfies.

    Raises InvalidRequestError for a tag that is not one of ours: weak ones never match (RFC 9110 13.1.1).
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tags = [_STRONG.fullmatch(part.strip()) for part in if_match.split(",")]
    if not all(tags):
        raise InvalidRequestError(
            "`If-Match` names no state of this directory",
            hint='Send the ETag of an earlier answer as it was: If-Match: "v42".',
        )
    return frozenset(int(tag[1]) for tag in tags if tag)


def _matches(if_none_match: str, tag: str) -> bool:
    if if_none_match.strip() == "*":
        return True
    return any(found[0].removeprefix("W/") == tag for found in _TAG.finditer(if_none_match))


def _position(after: str) -> Order:
    if not after:
        return ()
    try:
        text = base64.b64decode(after + "=" * (-len(after) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            "`after` is not a position in this list", hint='Follow the `Link` header with rel="next".'
        ) from error
    return tuple(text.split("\0"))
