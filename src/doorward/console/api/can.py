"""Ask the decision point a question, exactly as the gateway would be answered."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from doorward.console.authorise import Actor, govern
from doorward.console.services import Services
from doorward.core.errors import InvalidRequestError
from doorward.core.feed import Known
from doorward.core.model import Action
from doorward.decisions.grounds import explained
from doorward.decisions.question import Question


class Asked(BaseModel):
    """A question in words; what is not said takes a neutral value. `why` adds the grounds."""

    model_config = ConfigDict(extra="forbid")

    principal: str = Field(max_length=2048)
    action: str = Field(max_length=256)
    resource: str = Field(max_length=16_384)
    context: dict[str, Any] = Field(default_factory=dict)
    device: str | None = None
    zone: str | None = None
    purpose: str | None = None
    mfa_age: int | None = None
    at: str | None = None
    why: bool = False


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["can"])

    @routes.post("/can")
    async def can(
        asked: Asked, _actor: Annotated[Actor, Depends(govern(Action.INSPECT, "policies"))]
    ) -> dict[str, Any]:
        """Return the decision as the audit record would have it; nothing is recorded."""
        return await asyncio.to_thread(_decide, services, asked)

    @routes.get("/can/world")
    async def world(
        _actor: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))],
    ) -> dict[str, Any]:
        """Return the entities, zones and lowered names that policy tests run against; no credentials."""
        return await asyncio.to_thread(_world, services)

    return routes


def _decide(services: Services, asked: Asked) -> dict[str, Any]:
    standpoint = services.point.pin()
    try:
        question = msgspec.convert(asked.model_dump(exclude={"why"}), Question)
    except msgspec.ValidationError as reason:
        raise InvalidRequestError(f"the question cannot be read: {reason}") from reason
    decision, grounds = explained(question, standpoint, services.clock.now())
    return {**decision.to_json(), **(grounds.to_json() if asked.why else {})}


def _world(services: Services) -> dict[str, Any]:
    known = services.directory.known()
    shown = Known(
        version=known.version,
        entities=known.entities,
        zones=known.zones,
        places=known.places,
        lowered=known.lowered,
    )
    document: dict[str, Any] = msgspec.to_builtins(shown)
    return document
