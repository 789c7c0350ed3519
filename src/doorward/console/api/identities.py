"""Linked identities: which (issuer, subject) signs in as whom. Linking it to another is two governed acts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from doorward.console import issuance
from doorward.console.authorise import Actor, govern
from doorward.console.paging import Listing
from doorward.core.errors import ConflictError, NotFoundError
from doorward.core.identity import IdentityLink
from doorward.core.model import Action
from doorward.directory import views

if TYPE_CHECKING:
    from doorward.console.services import Services

Words = Annotated[str, Field(min_length=1, max_length=2048)]


class LinkRequest(BaseModel):
    """Say who signs in as whom: exactly the issuer's and the token's own words, and a name here."""

    model_config = ConfigDict(extra="forbid")

    issuer: Words
    subject: Words
    principal: Words


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["identities"])
    directory = services.directory

    @routes.get("/identities")
    def identities(
        _: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))],
        listing: Annotated[Listing, Depends()],
    ) -> list[dict[str, Any]]:
        """Return every linked identity and who signs in with it."""
        held = directory.snapshot.identities
        links = [IdentityLink(issuer, subject, uid) for (issuer, subject), uid in held.items()]
        return [_shown(link) for link in listing.page(links, lambda link: (link.issuer, link.subject))]

    @routes.post("/identities", status_code=201)
    async def link(
        wanted: LinkRequest,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ASSIGN, "directory"))],
    ) -> dict[str, Any]:
        """Let an identity sign in as somebody; 409 if it is another's, until it is unlinked there."""
        principal = views.only(directory.people(), wanted.principal).uid
        linked = IdentityLink(wanted.issuer, wanted.subject, principal)
        held = directory.snapshot.principal_of(linked.issuer, linked.subject)
        if held is not None and held != principal:
            raise ConflictError(f"this identity is linked to {held}", hint="Unlink it there first.")
        if held is None:
            await _record(services, request, actor, "link", linked)
            await asyncio.to_thread(directory.link_identity, linked, operator=actor.name)
        return _shown(linked)

    @routes.delete("/identities")
    async def unlink(
        issuer: Annotated[str, Query(max_length=2048)],
        subject: Annotated[str, Query(max_length=2048)],
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ASSIGN, "directory"))],
    ) -> dict[str, Any]:
        """Take a link away; requests and streams of its tokens end within a second."""
        principal = directory.snapshot.principal_of(issuer, subject)
        if principal is None:
            raise NotFoundError(
                f"no identity ({issuer}, {subject}) is linked", hint="See `doorward people identities`."
            )
        gone = IdentityLink(issuer, subject, principal)
        await _record(services, request, actor, "unlink", gone)
        await asyncio.to_thread(directory.unlink_identity, issuer, subject, operator=actor.name)
        return _shown(gone)

    return routes


def _shown(link: IdentityLink) -> dict[str, Any]:
    return {"issuer": link.issuer, "subject": link.subject, "principal": str(link.principal)}


async def _record(services: Services, request: Request, actor: Actor, what: str, link: IdentityLink) -> None:
    await issuance.put_on_record(
        services,
        request,
        actor,
        action=Action.ASSIGN,
        resource=link.principal,
        detail=f"{what} an identity of {link.principal}",
        changes={"issuer": link.issuer, "subject": link.subject},
    )
