"""The console's one page: decisions as they happen, each with why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from doorward.console import feed, presentation
from doorward.console.authorise import Actor, Rule, govern, still_allowed
from doorward.console.render import fragment, page
from doorward.console.services import Services
from doorward.core.errors import NotFoundError
from doorward.core.model import Action

_SHOWN = 100
_LOOK = Rule(Action.INSPECT, "audit")
Looking = Annotated[Actor, Depends(govern(Action.INSPECT, "audit"))]
_HTMX = "hx-request"


class Filters(BaseModel):
    """What the page shows; empty means everything."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    decision: Annotated[str, Field(pattern="^(allow|deny)?$")] = ""
    principal: Annotated[str, Field(max_length=200)] = ""
    upstream: Annotated[str, Field(max_length=63)] = ""

    def match(self, record: dict[str, Any]) -> bool:
        """Return whether a decision record is among what is wanted."""
        return (
            self.decision in {"", record.get("decision")}
            and self.upstream in {"", record.get("upstream")}
            and self.principal.strip().lower() in str(record.get("principal", "")).lower()
        )

    @property
    def query(self) -> str:
        """Return the filters as a query string."""
        return urlencode({name: value for name, value in self.model_dump().items() if value})


Filtered = Annotated[Filters, Query()]


def router(services: Services) -> APIRouter:
    """Build the pages; every one of them is governed."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def decisions(request: Request, actor: Looking, filters: Filtered) -> Response:
        """Show the newest decisions; works without any script, by reloading."""
        records, after = await feed.newest(services, filters.match, _SHOWN)
        return page(
            request,
            "decisions.html",
            actor=actor,
            rows=[presentation.row(record) for record in records],
            fresh=False,
            filters=filters,
            after=after,
            upstreams=[upstream.name for upstream in services.settings.upstream],
        )

    @routes.get("/decisions/{request_id}")
    async def why(request: Request, actor: Looking, request_id: str) -> Response:
        """Show one request's records; a fragment for the side panel, a page of its own otherwise."""
        details = presentation.why(await feed.about(services, request_id))
        if details is None:
            raise NotFoundError("no decision on record has this id", hint="Check the Doorward-Request-Id.")
        if _HTMX in request.headers:
            return HTMLResponse(fragment("_why.html", why=details, alone=False))
        return page(request, "why.html", actor=actor, why=details, alone=True)

    @routes.get("/live")
    async def live(request: Request, actor: Looking, filters: Filtered, after: str = "") -> Response:
        """Send each new decision as a rendered row, until the session ends."""
        del actor
        after = request.headers.get("last-event-id") or after
        return StreamingResponse(
            _stream(request, services, filters, after[:200]), media_type="text/event-stream"
        )

    return routes


async def _stream(request: Request, services: Services, filters: Filters, after: str) -> AsyncIterator[str]:
    yield ": welcome\n\n"
    async for position, records in feed.follow(services, after):
        if not await still_allowed(request, _LOOK):
            yield "event: signed-out\ndata: over\n\n"
            return
        rows = [presentation.row(record) for record in records if filters.match(record)]
        yield _event(fragment("_rows.html", rows=rows, fresh=True), position) if rows else ": alive\n\n"


def _event(html: str, position: str) -> str:
    lines = "".join(f"data: {line}\n" for line in html.splitlines() if line.strip())
    return f"id: {position}\n{lines}\n"
