"""What this installation is and at which versions it stands."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from doorward import __version__
from doorward.console.authorise import Actor, govern
from doorward.console.health import readiness
from doorward.console.services import Services
from doorward.core.model import Action


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["state"])

    @routes.get("/state")
    def state(actor: Annotated[Actor, Depends(govern(Action.INSPECT, "settings"))]) -> dict[str, Any]:
        """Return versions, upstreams and what the caller is; no secrets, no upstream addresses."""
        return {
            "version": __version__,
            **readiness(services),
            "actor": {"name": actor.name, "via": actor.via},
            "upstreams": [
                {"name": upstream.name, "kind": upstream.kind, "environment": upstream.environment}
                for upstream in services.settings.upstream
            ],
        }

    return routes
