"""What is governed: models, datasets, endpoints and tools, with everything that holds of them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from doorward.console.authorise import Actor, govern
from doorward.console.services import Services
from doorward.core.errors import DeniedError, NotFoundError
from doorward.core.model import Action, EntityUid
from doorward.directory import views


class LowerRequest(BaseModel):
    """Name the asset that may be less sensitive than what covers it, and say why."""

    model_config = ConfigDict(extra="forbid")

    asset: str = Field(max_length=2048)
    reason: str = Field(min_length=1, max_length=1024)


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["assets"])

    @routes.get("/assets")
    def assets(
        _actor: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))], name: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the registered assets, or those of one name."""
        snapshot = services.directory.snapshot
        found = services.directory.assets()
        return [views.asset(e, snapshot) for e in found if views.is_called(e, name)]

    @routes.post("/assets/lower")
    async def lower(
        wanted: LowerRequest, actor: Annotated[Actor, Depends(govern(Action.ASSIGN, "directory"))]
    ) -> dict[str, Any]:
        """Let an asset be less sensitive than what covers it; of people, only its owner may."""
        uid = EntityUid.parse(wanted.asset)
        asset = services.directory.entity(uid)
        if asset is None:
            raise NotFoundError(f"{uid} is not registered", hint="See `doorward assets`.")
        if actor.principal is not None and asset.attrs.get("owner") != actor.principal:
            raise DeniedError(f"only the owner of {uid} may lower it", hint="Ask its owner.")
        await asyncio.to_thread(services.directory.lower, uid, reason=wanted.reason, operator=actor.name)
        snapshot = services.directory.snapshot
        return views.asset(snapshot.entity(uid) or asset, snapshot)

    return routes
