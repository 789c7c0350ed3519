"""Console sessions: who is signed in, and ending one at once."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from doorward.console import issuance
from doorward.console.authorise import Actor, govern
from doorward.core.accounts import ConsoleSession
from doorward.core.errors import NotFoundError
from doorward.core.model import Action, EntityUid

if TYPE_CHECKING:
    from doorward.console.services import Services

_NAMING = 16


class SessionAnswer(BaseModel):
    """One sign-in; `id` names it and opens nothing."""

    id: str
    principal: str
    method: str
    zone: str
    created: datetime
    last_seen: datetime
    expires: datetime
    mfa_at: datetime | None


def shown(session: ConsoleSession) -> SessionAnswer:
    """Return what may be shown of a session: its id is a part of a digest of its cookie."""
    return SessionAnswer(
        id=session.hash[:_NAMING],
        principal=str(session.principal or session.operator),
        method=session.method,
        zone=session.zone,
        created=session.created,
        last_seen=session.last_seen,
        expires=session.expires,
        mfa_at=session.mfa_at,
    )


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["sessions"])
    accounts = services.directory.accounts

    @routes.get("/sessions")
    def list_sessions(
        _: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))],
    ) -> list[SessionAnswer]:
        """Return who is signed in to the console."""
        return [shown(session) for session in accounts.sessions(services.clock.now())]

    @routes.delete("/sessions/{session_id}")
    async def end(
        session_id: str,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.CONTAIN, "directory"))],
    ) -> dict[str, Any]:
        """End one session; its open pages end within a second."""
        found = await asyncio.to_thread(accounts.sessions, services.clock.now())
        session = next((one for one in found if shown(one).id == session_id), None)
        if session is None:
            raise NotFoundError(f"there is no session `{session_id}`", hint="See `GET /api/v1/sessions`.")
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.CONTAIN,
            resource=session.principal or EntityUid.of("Control", "directory"),
            detail=f"end the session {session_id}",
            changes={},
        )
        await asyncio.to_thread(accounts.end_session, session.hash)
        return {"id": session_id, "ended": True}

    return routes
