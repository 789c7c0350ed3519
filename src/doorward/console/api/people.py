"""Who is known: users, services and agents, with everything that holds of them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from doorward.console import issuance
from doorward.console.authorise import Actor, govern
from doorward.console.paging import Listing, tagged
from doorward.console.services import Services
from doorward.core.model import Action
from doorward.directory import views


class SignOutRequest(BaseModel):
    """Say whether only MFA is to be shown again."""

    model_config = ConfigDict(extra="forbid")

    mfa_only: bool = False


class SignOutAnswer(BaseModel):
    """Since when what was signed in with before counts no more."""

    principal: str
    before: datetime | None
    mfa_before: datetime | None


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["people"])

    @routes.get("/people")
    def people(
        _actor: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))],
        listing: Annotated[Listing, Depends()],
        name: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return users, services and agents, or those of one name."""
        found = [entity for entity in services.directory.people() if views.is_called(entity, name)]
        return views.principals(listing.page(found, views.position), services.directory.snapshot)

    @routes.get("/people/{name:path}", dependencies=[Depends(tagged)])
    def person(
        name: str, _actor: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))]
    ) -> dict[str, Any]:
        """Return the user, service or agent of this name: its id alone, or in full where two share it."""
        found = views.only(services.directory.people(), name)
        known = views.principals([found], services.directory.snapshot)[0]
        return known | {"sources": services.directory.sources(found.uid)}

    @routes.post("/people/{name:path}/sign-out")
    async def sign_out(
        name: str,
        wanted: SignOutRequest,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.CONTAIN, "directory"))],
    ) -> SignOutAnswer:
        """End every token and console session of a principal, or only the MFA of them, within a second."""
        who = views.only(services.directory.people(), name).uid
        now = services.clock.now()
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.CONTAIN,
            resource=who,
            detail=f"sign {who} out" + (" of MFA" if wanted.mfa_only else ""),
            changes={"mfa_only": wanted.mfa_only},
        )
        directory = services.directory
        out = await asyncio.to_thread(
            directory.sign_out, who, before=now, mfa_only=wanted.mfa_only, operator=actor.name
        )
        return SignOutAnswer(principal=str(who), before=out.before, mfa_before=out.mfa_before)

    return routes
