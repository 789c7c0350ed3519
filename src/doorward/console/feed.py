"""Read decisions from the audit log for the page: the newest, one request's, and new ones as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import TYPE_CHECKING

from doorward.audit.follow import Follower
from doorward.audit.query import Query
from doorward.audit.reader import AuditEntry, read_cursor, write_cursor

if TYPE_CHECKING:
    from doorward.console.services import Services

_DECISIONS = Query(kind="decision")
_PAGE = 500
_PAGES = 10
_POLL_SECONDS = 0.25
_POLLS_PER_HEARTBEAT = 4
_MOST_AT_ONCE = 100

Match = Callable[[AuditEntry], bool]


async def newest(services: Services, match: Match, limit: int) -> tuple[list[AuditEntry], str]:
    """Return the newest matching decisions and the position after which `follow` continues without a gap.

    Looks through the newest 5,000 decisions.
    """
    return await asyncio.to_thread(_newest, services, match, limit)


def _newest(services: Services, match: Match, limit: int) -> tuple[list[AuditEntry], str]:
    position = services.reader.position()
    found: list[AuditEntry] = []
    older = ""
    for _ in range(_PAGES):
        page = services.reader.latest(_PAGE, _DECISIONS, older_than=older)
        # What came after the position was taken arrives by `follow`.
        known = (one for one in page.records if one["seq"] <= position.get(one["writer"], 0))
        found += islice(filter(match, known), limit - len(found))
        older = page.older
        if len(found) >= limit or not older:
            break
    return found, write_cursor(position)


async def about(services: Services, request_id: str) -> list[AuditEntry]:
    """Return everything on record about one request, oldest first."""
    return await asyncio.to_thread(services.reader.request, request_id)


async def follow(services: Services, after: str) -> AsyncIterator[tuple[str, list[AuditEntry]]]:
    """Yield (position, new decisions, newest first) as they come, and each second even if none did.

    After a long absence only the newest hundred are given.
    """
    cursor = read_cursor(after) if after else None
    follower = await asyncio.to_thread(Follower, services.reader, cursor, query=_DECISIONS)
    quiet = 0
    while True:
        found = await asyncio.to_thread(follower.poll)
        quiet = 0 if found else quiet + 1
        if found or quiet % _POLLS_PER_HEARTBEAT == 0:
            yield write_cursor(follower.cursor), found[: -_MOST_AT_ONCE - 1 : -1]
        await asyncio.sleep(_POLL_SECONDS)
