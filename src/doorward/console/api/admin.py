"""One-time links: the first admin's and the local operator's, and those with which users enrol."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from doorward.console import issuance, links
from doorward.console.authorise import Actor, govern, local_operator
from doorward.console.services import Services
from doorward.core.accounts import LinkKind
from doorward.core.errors import DeniedError
from doorward.core.model import Action


class LinkRequest(BaseModel):
    """Say what the link is for: `enrol` an admin's passkey, or a `session` that may only look."""

    model_config = ConfigDict(extra="forbid")

    kind: LinkKind = LinkKind.ENROL


class LinkAnswer(BaseModel):
    """The address to open once, within `expires_in` seconds."""

    url: str
    kind: LinkKind
    expires_in: int


class InviteRequest(BaseModel):
    """Name the user."""

    model_config = ConfigDict(extra="forbid")

    user: str = Field(min_length=1, max_length=300)


class EnrolAnswer(BaseModel):
    """The address to open once, within `expires_in` seconds."""

    url: str
    principal: str
    expires_in: int


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["admin"])

    @routes.post("/admin/link")
    async def create_link(
        wanted: LinkRequest,
        actor: Annotated[Actor, Depends(govern(Action.ISSUE, "keys", recovery=True, socket_only=True))],
    ) -> LinkAnswer:
        """Make a one-time link; only over the Unix socket."""
        mode = await asyncio.to_thread(local_operator, services)
        if wanted.kind is LinkKind.SESSION and mode != "full":
            raise DeniedError(
                "the local operator may not open the console here",
                hint='Sign in with a passkey, or set `[control] local_operator = "full"`.',
            )
        url = await asyncio.to_thread(links.create, services, wanted.kind, actor.name)
        return LinkAnswer(url=url, kind=wanted.kind, expires_in=int(links.LIFETIME.total_seconds()))

    @routes.post("/enrol-links", status_code=201)
    async def invite(
        wanted: InviteRequest,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ISSUE, "keys"))],
    ) -> EnrolAnswer:
        """Make a link with which a user enrols a passkey or an authenticator app; it works once."""
        who = issuance.named(services.directory.snapshot, "User", wanted.user)
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.ISSUE,
            resource=who,
            detail=f"a link that enrols a factor of {who}",
            changes={},
        )
        url = await asyncio.to_thread(links.create, services, LinkKind.ENROL, actor.name, principal=who)
        return EnrolAnswer(url=url, principal=str(who), expires_in=int(links.LIFETIME.total_seconds()))

    return routes
