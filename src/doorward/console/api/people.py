"""Who is known: users, services and agents, with everything that holds of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from doorward.console.authorise import Actor, govern
from doorward.console.paging import Listing, tagged
from doorward.console.services import Services
from doorward.core.model import Action
from doorward.directory import views


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

    return routes
