"""The custodian's keys: which generation signs, and the next one."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from doorward.console import issuance
from doorward.console.authorise import Actor, govern
from doorward.core.model import Action, EntityUid
from doorward.identity.custody import KeyUse

if TYPE_CHECKING:
    from doorward.console.services import Services


class RotateRequest(BaseModel):
    """Say whether the earlier keys end now, because one may be in wrong hands, or after their overlap."""

    model_config = ConfigDict(extra="forbid")

    distrust: bool = False


class KeyState(BaseModel):
    """One use: the generation that signs, and when each later one began."""

    use: str
    generation: int
    since: datetime | None
    distrusted_before: int


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["custodian"])

    @routes.get("/custodian")
    def list_uses(_: Annotated[Actor, Depends(govern(Action.INSPECT, "keys"))]) -> list[KeyState]:
        """Return the uses and their generations; nothing of a key itself."""
        return [_state(services, use) for use in KeyUse]

    @routes.post("/custodian/{use}/rotate")
    async def rotate(
        use: KeyUse,
        wanted: RotateRequest,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ISSUE, "keys"))],
    ) -> KeyState:
        """Start the next key of a use; what the earlier one signed counts for its overlap, or not at all."""
        following = services.custodian.generation(use) + 1
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.ISSUE,
            resource=EntityUid.of("Control", "keys"),
            detail=f"rotate the key `{use}` to generation {following}",
            changes={"use": str(use), "generation": following, "distrust": wanted.distrust},
        )
        now = services.clock.now()
        await asyncio.to_thread(services.custodian.rotate, use, now=now, distrust=wanted.distrust)
        return _state(services, use)

    return routes


def _state(services: Services, use: KeyUse) -> KeyState:
    rotations = services.custodian.rotations(use)
    distrusted = [number for number, each in enumerate(rotations, start=2) if each.distrusts]
    return KeyState(
        use=use.value,
        generation=len(rotations) + 1,
        since=rotations[-1].at if rotations else None,
        distrusted_before=max(distrusted, default=1),
    )
