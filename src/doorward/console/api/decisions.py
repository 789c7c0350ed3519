"""`/api/v1/decisions`: what was decided, page by page or as it happens, and why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from doorward.audit.follow import Follower
from doorward.audit.query import Query as AuditQuery
from doorward.audit.query import moment
from doorward.audit.reader import joined, read_cursor, write_cursor
from doorward.console.authorise import Actor, Rule, authenticate, govern, judge
from doorward.console.services import Services
from doorward.core.errors import DoorwardError, NotFoundError
from doorward.core.model import Action

_POLL = 0.25
_HEARTBEAT = 10.0
_LOOK = Rule(Action.INSPECT, "audit")
Looking = Annotated[Actor, Depends(govern(Action.INSPECT, "audit"))]
Text = Annotated[str, Field(max_length=300)]


class Wanted(BaseModel):
    """Which records; empty conditions hold. `kind` is `decision` unless said otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    older_than: Text = ""
    kind: Text = "decision"
    principal: Text = ""
    decision: Annotated[str, Field(pattern="^(allow|deny)?$")] = ""
    action: Text = ""
    resource: Text = ""
    code: Text = ""
    since: Text = ""
    until: Text = ""
    text: Text = ""

    def query(self, services: Services) -> AuditQuery:
        """Return the conditions; raise InvalidRequestError for a time that is none."""
        now = services.clock.now()
        plain = self.model_dump(exclude={"limit", "older_than", "since", "until"})
        return AuditQuery(**plain, since=moment(self.since, now), until=moment(self.until, now))


def router(services: Services) -> APIRouter:
    """Build the routes; every one of them is governed."""
    routes = APIRouter(tags=["decisions"])

    @routes.get("/decisions")
    async def decisions(actor: Looking, wanted: Annotated[Wanted, Query()]) -> dict[str, Any]:
        """Return matching records, newest first; `older` goes into `older_than` for the next page."""
        del actor
        page = await asyncio.to_thread(
            services.reader.latest, wanted.limit, wanted.query(services), older_than=wanted.older_than
        )
        return {"records": list(page.records), "older": page.older}

    @routes.get("/decisions/stream")
    async def stream(
        request: Request,
        actor: Looking,
        wanted: Annotated[Wanted, Query()],
        last_event_id: Annotated[str, Header(max_length=1000)] = "",
    ) -> StreamingResponse:
        """Send records as they happen (server-sent events); Last-Event-ID resumes without a gap."""
        del actor
        cursor = read_cursor(last_event_id) if last_event_id else None
        follower = await asyncio.to_thread(Follower, services.reader, cursor, query=wanted.query(services))
        return StreamingResponse(
            _events(request, services, follower),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @routes.get("/decisions/{request_id}")
    async def why(actor: Looking, request_id: str) -> dict[str, Any]:
        """Return one request's decision with its outcome, and every record about it."""
        del actor
        records = await asyncio.to_thread(services.reader.request, request_id)
        story = joined(records)
        if story is None:
            raise NotFoundError("no decision on record has this id", hint="Check the Doorward-Request-Id.")
        return {**story, "records": records}

    return routes


async def _events(request: Request, services: Services, follower: Follower) -> AsyncIterator[bytes]:
    yield b": welcome\n\n"
    silent = 0.0
    while True:
        records = await asyncio.to_thread(follower.poll)
        if records and not await _may_still_look(request, services):
            return
        for index, record in enumerate(records, start=1):
            # The position is that after the whole poll, so only its last event may carry it.
            position = f"id: {write_cursor(follower.cursor)}\n" if index == len(records) else ""
            yield f"{position}data: {msgspec.json.encode(record).decode()}\n\n".encode()
        silent = 0.0 if records else silent + _POLL
        if silent >= _HEARTBEAT:
            silent = 0.0
            if not await _may_still_look(request, services):
                return
            yield b": alive\n\n"
        await asyncio.sleep(_POLL)


async def _may_still_look(request: Request, services: Services) -> bool:
    """Judge again, as on a new request: an ended session or a lost role ends the stream."""
    try:
        actor, session = await authenticate(request, services, touch=False)
        ip = request.client.host if request.client else None
        return (await asyncio.to_thread(judge, services, actor, session, _LOOK, ip)).allowed
    except DoorwardError:
        return False
