"""Where people come from: how each source stands, and the word that lets many leave at once."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from doorward.console import issuance
from doorward.console.authorise import Actor, govern
from doorward.console.services import Services
from doorward.core.errors import NotFoundError
from doorward.core.model import Action, EntityUid


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["sources"])

    @routes.get("/sources")
    def list_sources(
        _actor: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))],
    ) -> list[dict[str, Any]]:
        """Return every source with what it provisions; of a followed one also how fresh it is."""
        registry = services.directory.registry
        counts: dict[str, dict[str, int]] = {}
        for one in registry.objects.values():
            if one.gone is None:
                of_kind = counts.setdefault(one.source, {})
                of_kind[one.kind] = of_kind.get(one.kind, 0) + 1
        named = {section.source for section in services.settings.provisioning}
        return [_shown(services, name, counts) for name in sorted({*counts, *services.followed, *named})]

    @routes.post("/sources/{name}/confirm")
    async def confirm(
        name: str,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ASSIGN, "directory"))],
    ) -> dict[str, Any]:
        """Let the next reading of a followed directory take out what it held back."""
        followed = services.followed.get(name)
        if followed is None:
            raise NotFoundError(f"no directory `{name}` is followed", hint="See `doorward people sources`.")
        held = followed.state.held_back
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.ASSIGN,
            resource=EntityUid.of("Control", "directory"),
            detail=f"{name} may take out what it held back",
            changes={"source": name, "held_back": held},
        )
        await asyncio.to_thread(followed.confirm)
        return {"name": name, "held_back": held, "confirmed": True}

    return routes


def _shown(services: Services, name: str, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": name, "objects": counts.get(name, {})}
    followed = services.followed.get(name)
    if followed is None:
        return shown
    state = followed.state
    age = None if state.seen is None else int((services.clock.now() - state.seen).total_seconds())
    return shown | {"age": age, "problem": state.problem, "held_back": state.held_back}
