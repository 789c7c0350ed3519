"""What is governed: models, datasets, endpoints and tools, with everything that holds of them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from doorward.console.authorise import Actor, govern
from doorward.console.paging import Listing, tagged
from doorward.console.services import Services
from doorward.core.errors import DeniedError, NotFoundError
from doorward.core.model import Action, EntityUid
from doorward.directory import views


class LowerRequest(BaseModel):
    """Name the asset that may be less sensitive than what covers it, and say why."""

    model_config = ConfigDict(extra="forbid")

    asset: str = Field(max_length=2048)
    reason: str = Field(min_length=1, max_length=1024)


class RaiseRequest(BaseModel):
    """Name the asset whose lowering ends."""

    model_config = ConfigDict(extra="forbid")

    asset: str = Field(max_length=2048)


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["assets"])

    @routes.get("/assets")
    def assets(
        _actor: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))],
        listing: Annotated[Listing, Depends()],
        name: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return the registered assets, or those of one name."""
        snapshot = services.directory.snapshot
        found = [asset for asset in services.directory.assets() if views.is_called(asset, name)]
        return [views.asset(asset, snapshot) for asset in listing.page(found, views.position)]

    @routes.get("/assets/{name:path}", dependencies=[Depends(tagged)])
    def one_asset(
        name: str, _actor: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))]
    ) -> dict[str, Any]:
        """Return the asset of this name: its id alone, or in full where two share it."""
        return views.asset(views.only(services.directory.assets(), name), services.directory.snapshot)

    @routes.post("/assets/lower")
    async def lower(
        wanted: LowerRequest, actor: Annotated[Actor, Depends(govern(Action.ASSIGN, "directory"))]
    ) -> dict[str, Any]:
        """Let an asset be less sensitive than what covers it; of people, only its owner may."""
        uid = _owned(services, actor, wanted.asset)
        await asyncio.to_thread(services.directory.lower, uid, reason=wanted.reason, operator=actor.name)
        return _shown(services, uid)

    @routes.post("/assets/raise")
    async def raise_again(
        wanted: RaiseRequest, actor: Annotated[Actor, Depends(govern(Action.ASSIGN, "directory"))]
    ) -> dict[str, Any]:
        """End a lowering: the asset is again at least as sensitive as what covers it."""
        uid = _owned(services, actor, wanted.asset)
        await asyncio.to_thread(services.directory.raise_again, uid, operator=actor.name)
        return _shown(services, uid)

    return routes


def _owned(services: Services, actor: Actor, name: str) -> EntityUid:
    uid = EntityUid.parse(name)
    asset = services.directory.entity(uid)
    if asset is None:
        raise NotFoundError(f"{uid} is not registered", hint="See `doorward assets`.")
    if actor.principal is not None and asset.attrs.get("owner") != actor.principal:
        raise DeniedError(f"only the owner of {uid} may change how sensitive it is", hint="Ask its owner.")
    return uid


def _shown(services: Services, uid: EntityUid) -> dict[str, Any]:
    snapshot = services.directory.snapshot
    asset = snapshot.entity(uid)
    if asset is None:
        raise NotFoundError(f"{uid} is gone", hint="See `doorward assets`.")
    return views.asset(asset, snapshot)
