"""Who can do this, what can she do: for auditors and operators, owners of the asset, and oneself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from doorward.console.authorise import Actor, Rule, admit, authenticate
from doorward.console.services import Services
from doorward.core.errors import InvalidRequestError
from doorward.core.model import Action, EntityUid
from doorward.decisions import inquiry
from doorward.decisions.inquiry import Circumstances
from doorward.decisions.point import Standpoint

_LOOK = Rule(Action.INSPECT, "policies")


class Given(BaseModel):
    """One fixed set of circumstances; with nothing given the answer stands in three groups."""

    model_config = ConfigDict(extra="forbid")

    context: dict[str, Any] = Field(default_factory=dict)
    device: str | None = None
    zone: str | None = None
    purpose: str | None = None
    mfa_age: int | None = None
    at: str | None = None


class WhoAsked(Given):
    """Ask who may do `action` to `resource`."""

    action: str = Field(max_length=256)
    resource: str = Field(max_length=16_384)


class WhatAsked(Given):
    """Ask what `principal` may do."""

    principal: str = Field(max_length=2048)


async def _who(request: Request, asked: WhoAsked) -> Actor:
    """Let in the resource's owner, and whoever may inspect policies."""
    return await _let_in(request, lambda standpoint, me: _owns(standpoint, me, asked.resource))


async def _what(request: Request, asked: WhatAsked) -> Actor:
    """Let in oneself, and whoever may inspect policies."""
    return await _let_in(request, lambda _standpoint, me: EntityUid.parse(asked.principal) == me)


# Read by `is_governed`: both end in `admit` unless the question is about one's own.
_who.rule = _LOOK  # type: ignore[attr-defined]
_what.rule = _LOOK  # type: ignore[attr-defined]


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["questions"])

    @routes.post("/who-can")
    async def who_can(asked: WhoAsked, _actor: Annotated[Actor, Depends(_who)]) -> dict[str, Any]:
        """Return who may do this: always, only if (with its condition), never; nothing is recorded."""
        given = _circumstances(asked, {"action", "resource"})
        standpoint, now = services.point.pin(), services.clock.now()
        return await asyncio.to_thread(inquiry.who_can, asked.action, asked.resource, given, standpoint, now)

    @routes.post("/what-can")
    async def what_can(asked: WhatAsked, actor: Annotated[Actor, Depends(_what)]) -> dict[str, Any]:
        """Return what a principal may do; to herself, what she cannot see does not exist."""
        given = _circumstances(asked, {"principal"})
        standpoint, now = services.point.pin(), services.clock.now()
        me = EntityUid.parse(asked.principal)
        sees = (lambda uid: standpoint.visible(me, uid)) if actor.principal == me else None
        return await asyncio.to_thread(inquiry.what_can, asked.principal, given, standpoint, now, sees=sees)

    return routes


async def _let_in(request: Request, hers: Callable[[Standpoint, EntityUid], bool]) -> Actor:
    services: Services = request.app.state.services
    actor, _session = await authenticate(request, services)
    # What is one's own is asked by oneself: not by an agent, nor with a token made for less.
    lent = actor.caller is not None and bool(actor.caller.actors or actor.caller.bounds)
    if actor.principal is not None and not lent:
        standpoint = services.point.pin()
        if standpoint.snapshot.is_active(actor.principal) and hers(standpoint, actor.principal):
            return actor
    return await admit(request, _LOOK)


def _owns(standpoint: Standpoint, me: EntityUid, resource: str) -> bool:
    found = standpoint.snapshot.resolve(EntityUid.parse(resource))
    return found is not None and found.attrs.get("owner") == me


def _circumstances(asked: Given, named: set[str]) -> Circumstances:
    try:
        return msgspec.convert(asked.model_dump(exclude=named), Circumstances)
    except msgspec.ValidationError as reason:
        raise InvalidRequestError(f"the question cannot be read: {reason}") from reason
