"""One-time links for the local operator: renew the first admin's, or open the console to look."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from doorward.console import links
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

    return routes
