"""Ready-made packs: add one's policies to the policies directory and its people to the directory."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from doorward.console.api.apply import ApplyRequest, parsed, record_of
from doorward.console.authorise import Actor, govern, request_id
from doorward.console.services import Services
from doorward.core.errors import ConflictError
from doorward.core.model import Action
from doorward.directory.plan import document
from doorward.policies import packs
from doorward.policies.adoption import adoption_of, write
from doorward.policies.workspace import Workspace


class Wanted(BaseModel):
    """Whether only to say what would be done."""

    model_config = ConfigDict(extra="forbid")

    plan: bool = False


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["packs"])

    @routes.get("/packs")
    async def listed(_actor: Annotated[Actor, Depends(govern(Action.INSPECT, "policies"))]) -> list[str]:
        """Return the names of the packs that come with Doorward."""
        return packs.names()

    @routes.post("/packs/{name}")
    async def add(
        name: str,
        wanted: Wanted,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.PUBLISH, "policies"))],
        _too: Annotated[Actor, Depends(govern(Action.ASSIGN, "directory"))],
    ) -> dict[str, Any]:
        """Add a pack: its policies once all are admitted, then its people and entities."""
        if services.settings.policies.mode == "reviewed":
            raise ConflictError(
                "policies are reviewed here, so a pack cannot rule at once",
                hint="Add its files to a draft and publish that.",
            )
        directory = services.settings.resolve(services.settings.policies.path)
        adoption = await asyncio.to_thread(adoption_of, name, directory)
        stated = await asyncio.to_thread(
            parsed, services, ApplyRequest(org=adoption.org, source=f"pack {name}")
        )
        plan = await asyncio.to_thread(services.directory.plan, stated, schema=adoption.schema)
        applied = bool(adoption.files or plan.items) and not wanted.plan
        if applied:
            await services.audit.write(record_of(services, request_id(request), actor, plan))
            if adoption.files:
                await asyncio.to_thread(write, adoption, directory)
                # Gateways hear of it from the watcher; here it rules from this moment.
                bundle = await asyncio.to_thread(Workspace(directory).load)
                await asyncio.to_thread(services.directory.conform, bundle.schema)
                services.point.publish(bundle)
            await asyncio.to_thread(services.directory.apply, stated, False, actor.name)  # noqa: FBT003 -- `prune`
        return {
            "files": sorted(map(str, adoption.files)),
            "plan": document(plan),
            "applied": applied,
            "bundle": services.point.pin().bundle_digest,
            "version": services.directory.snapshot.version,
        }

    return routes
