"""Decide for everyone an answer is for: the principal, each agent that acts, and who owns an agent alone.

The gateway, questions and enforcement points of AuthZEN share this, so that all answer alike. With agents,
each must be allowed, and all obligations hold. An agent on its own may not do what its owner is forbidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from doorward.core.context import Context
from doorward.core.decision import AccessRequest, Decision, Effect
from doorward.core.model import Entity, EntityUid
from doorward.decisions.joining import join

# Stands in `determining` where an agent may not because its owner is forbidden the same.
OWNER_FORBIDDEN = "agent:owner"
_AGENT, _USER = EntityUid.of("Agent", "").type, EntityUid.of("User", "").type
_ADVICE = "An agent on its own may not do what its owner is forbidden: have somebody delegate to it."


class World(Protocol):
    """What is known at one version."""

    def entity(self, uid: EntityUid) -> Entity | None:
        """Return a registered entity, None for any other name."""

    def purposes_of(self, principal: EntityUid) -> frozenset[str]:
        """Return what a principal may use data for."""


Decide = Callable[[AccessRequest], Decision]


def with_agent(request: AccessRequest, world: World) -> Iterator[AccessRequest]:
    """Yield the request as it stands, then as the agent's own where its context names one that acts.

    Who acts is judged as a principal of its own: in its own environment, for a purpose only if it is its own.
    """
    actor = request.context.actor
    if actor is None:
        yield request
        return
    depth = max(1, request.context.depth)
    context = msgspec.structs.replace(request.context, depth=depth)
    yield msgspec.structs.replace(request, context=context)
    yield msgspec.structs.replace(request, principal=actor, context=_as_agent(actor, context, world))


def judged(request: AccessRequest, decide: Decide, world: World) -> tuple[AccessRequest, Decision]:
    """Decide a request for the principal and the agent its context names, and for the owner of an agent.

    Returns what was asked with the decision: of those asked the first that denies, else the request itself
    with the obligations of all.
    """
    if is_alone(request):
        return request, decide(request)
    decisions: list[Decision] = []
    for asked in with_agent(request, world):
        decision = decide(asked)
        if not decision.allowed:
            return asked, decision
        decisions.append(decision)
    forbidden = owner_forbids(request, decide, world)
    if forbidden is not None:
        return request, forbidden
    return request, decisions[0] if len(decisions) == 1 else _joined(decisions)


def is_alone(request: AccessRequest) -> bool:
    """Return whether deciding the request itself is all there is to decide."""
    return request.context.actor is None and request.principal.type != _AGENT


def owned_by(request: AccessRequest, world: World) -> AccessRequest | None:
    """Return the request as its agent's owner would make it, None where there is no such owner.

    She is judged in the agent's circumstances: she is not there to show MFA or a device.
    """
    agent = world.entity(request.principal)
    owner = None if agent is None else agent.attrs.get("owner")
    if not isinstance(owner, EntityUid) or owner.type != _USER:
        return None
    context = msgspec.structs.replace(request.context, environment=None, actor=None)
    if context.purpose is not None and context.purpose not in world.purposes_of(owner):
        context = msgspec.structs.replace(context, purpose=None)
    return msgspec.structs.replace(request, principal=owner, context=context)


def owner_forbids(request: AccessRequest, decide: Decide, world: World) -> Decision | None:
    """Return the denial of what an agent asks on its own while its owner is forbidden it; None otherwise.

    That nothing permits it to the owner is no forbid.
    """
    if request.principal.type != _AGENT:
        return None
    owners = owned_by(request, world)
    if owners is None:
        return Decision(Effect.DENY, determining=(OWNER_FORBIDDEN,), advice=(_ADVICE,))
    decision = decide(owners)
    if decision.allowed or not (decision.determining or decision.errors):
        return None
    return Decision(
        Effect.DENY,
        determining=(OWNER_FORBIDDEN, *decision.determining),
        errors=decision.errors,
        advice=(_ADVICE,),
        bundle=decision.bundle,
        entities=decision.entities,
    )


def _as_agent(actor: EntityUid, context: Context, world: World) -> Context:
    agent = world.entity(actor)
    place = None if agent is None else agent.attrs.get("environment")
    purpose = context.purpose
    if purpose is not None and purpose not in world.purposes_of(actor):
        purpose = None
    environment = place if isinstance(place, EntityUid) else None
    return msgspec.structs.replace(context, actor=None, environment=environment, purpose=purpose)


def _joined(decisions: list[Decision]) -> Decision:
    first = decisions[0]
    return msgspec.structs.replace(
        first,
        determining=tuple(dict.fromkeys(name for one in decisions for name in one.determining)),
        obligations=join(obligation for one in decisions for obligation in one.obligations),
        errors=tuple(dict.fromkeys(error for one in decisions for error in one.errors)),
    )
