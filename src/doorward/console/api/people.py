"""Who is known: users, services and agents, with everything that holds of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from doorward.console.authorise import Actor, govern
from doorward.console.services import Services
from doorward.core.model import Action
from doorward.directory import views


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["people"])

    @routes.get("/people")
    def people(
        _actor: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))], name: str | None = None
    ) -> list[dict[str, Any]]:
        """Return users, services and agents, or those of one name."""
        snapshot = services.directory.snapshot
        found = (entity for entity in services.directory.people() if views.is_called(entity, name))
        return views.principals(found, snapshot)

    return routes
