"""People who just came in with a token that maps or provisions: told by gateways, verified here once more."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from doorward.console import issuance
from doorward.console.authorise import Actor, govern
from doorward.core.errors import DeniedError, InvalidRequestError, UnavailableError
from doorward.core.feed import Delta
from doorward.core.model import Action, EntityUid
from doorward.decisions.governing import new_governors
from doorward.directory.arrivals import settle
from doorward.identity.strict_jose import TokenFaultError

if TYPE_CHECKING:
    from doorward.console.services import Services
    from doorward.core.arrival import Arrival


class Announcement(BaseModel):
    """An access token, exactly as it came in; it is verified, read and forgotten."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token: Annotated[str, Field(max_length=16 * 1024, repr=False)]


def router(services: Services) -> APIRouter:
    """Build the route."""
    routes = APIRouter(tags=["arrivals"])
    # What one arrival reads is what it then changes.
    one_at_a_time = asyncio.Lock()

    @routes.post("/arrivals")
    async def announce(
        wanted: Announcement,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ASSIGN, "directory", recovery=True, socket_only=True))],
    ) -> dict[str, Any]:
        """Keep what the token's issuer says of its subject; answer with the version that shows it."""
        arrival = await _read(services, wanted.token)
        async with one_at_a_time:
            principal = services.directory.snapshot.principal_of(arrival.issuer, arrival.subject)
            if principal is not None or arrival.provision:
                await _record(services, request, actor, arrival, principal)
                settled = partial(settle, now=services.clock.now(), object_to=partial(_object, services))
                principal = await asyncio.to_thread(settled, services.directory, arrival)
        return {
            "principal": None if principal is None else str(principal),
            "version": services.directory.snapshot.version,
        }

    return routes


async def _read(services: Services, token: str) -> Arrival:
    if services.tokens is None:
        raise UnavailableError("this control plane reads no tokens")
    try:
        kept = await services.tokens.verify(token)
    except TokenFaultError as fault:
        raise InvalidRequestError(f"the token does not verify here: {fault}") from None
    if kept.token.arrival is None:
        raise InvalidRequestError("nothing of this issuer's tokens is mapped")
    return kept.token.arrival


def _object(services: Services, delta: Delta, principal: EntityUid) -> None:
    """Raise DeniedError for a change by which somebody could govern Doorward and could not before."""
    if new_governors(services.point.pin(), delta, principals=(principal,), rebound=()):
        raise DeniedError(
            f"{principal} could govern Doorward by what her token says",
            hint="An administrator gives such rights, in the org file or the console.",
        )


async def _record(
    services: Services, request: Request, actor: Actor, arrival: Arrival, principal: EntityUid | None
) -> None:
    concerned = principal or EntityUid.of("User", arrival.name or arrival.subject)
    await issuance.put_on_record(
        services,
        request,
        actor,
        action=Action.ASSIGN,
        resource=concerned,
        detail=f"{arrival.source} speaks of {'somebody new, ' if principal is None else ''}{concerned}",
        changes={"issuer": arrival.issuer, "subject": arrival.subject, "groups": list(arrival.groups or ())},
    )
