"""Under which circumstances (step 4): the context of a request, from what is known, never from claims."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_interface

import msgspec

from doorward.core.context import Context, DeviceContext, NetworkContext, RequestContext, SessionContext
from doorward.core.errors import DeniedError, InvalidRequestError
from doorward.core.identity import Caller
from doorward.core.model import EntityUid
from doorward.gateway.ports import KnownWorld

PURPOSE_HEADER = "doorward-purpose"
_WORST_RISK = 100
# A sign-in nobody can date is older than any policy accepts; seconds.
_UNKNOWN_AGE = 2**31 - 1


def purpose_of(caller: Caller, claimed: str | None, world: KnownWorld) -> str | None:
    """Return the purpose that counts: the credential's if it is bound, else the claimed one if assigned.

    Raises InvalidRequestError for a header beside a bound credential that names another purpose, and
    DeniedError for a purpose that is not the principal's.
    """
    bound = caller.bound_purpose
    if bound is not None and claimed is not None and claimed != bound:
        raise InvalidRequestError(
            f"this credential is bound to purpose `{bound}`, and the header names another",
            hint="Leave out Doorward-Purpose, or use a credential for that purpose.",
        )
    purpose = bound if bound is not None else claimed
    if purpose is None:
        return None
    own = world.purposes_of(caller.principal)
    if purpose not in own:
        listed = ", ".join(sorted(own))
        raise DeniedError(
            "the purpose this request names is not assigned to you",
            hint=f"Use one of your own purposes: {listed}."
            if own
            else "You have no purposes; request access.",
        )
    return purpose


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """State what one request brings along; everything else comes from what is known."""

    caller: Caller
    ip: str
    purpose: str | None = None
    facts: RequestContext = RequestContext()
    arguments: Mapping[str, str] | None = None
    country: str | None = None
    signals: frozenset[str] = frozenset()


def context_of(
    circumstances: Circumstances, *, principal: EntityUid, world: KnownWorld, now: datetime
) -> Context:
    """Return the context in which `principal` (the caller, or an agent acting for her) is decided.

    Attributes that cannot be established take their most restrictive value.
    """
    caller, purpose, ip = circumstances.caller, circumstances.purpose, circumstances.ip
    acting = principal != caller.principal
    if acting and purpose is not None and purpose not in world.purposes_of(principal):
        purpose = None
    device = _device(caller, world)
    return Context(
        now=now,
        device=device,
        network=NetworkContext(
            zone=world.zone_of(ip),
            ip=_interface(ip),
            country=circumstances.country or world.place_of(ip).country,
        ),
        session=_session(caller, now),
        request=circumstances.facts,
        risk=max(_risk(principal, world), _risk(caller.device, world) if caller.device else 0),
        depth=len(caller.actors),
        purpose=purpose,
        environment=_environment(principal, world),
        actor=caller.actors[0] if caller.actors and not acting else None,
        signals=circumstances.signals,
    )


# A caller's address comes back with each of its requests; reading one costs as much as a decision.
_interface = lru_cache(maxsize=4096)(ip_interface)


def _device(caller: Caller, world: KnownWorld) -> DeviceContext:
    entity = world.entity(caller.device) if caller.device is not None else None
    return DeviceContext.of(entity, proven=caller.device_proven)


def _session(shown: Caller, now: datetime) -> SessionContext:
    caller = shown.as_vouched(now)
    return SessionContext(
        # A plain string: the evaluator's quick reader takes no subclass of one.
        method=str(caller.method),
        acr=caller.acr,
        mfa=caller.mfa_at is not None,
        age=_UNKNOWN_AGE if caller.signed_in_at is None else _seconds(caller.signed_in_at, now) or 0,
        mfa_age=_seconds(caller.mfa_at, now),
        minted=caller.minted,
    )


def _seconds(since: datetime | None, now: datetime) -> int | None:
    # A sign-in from the future (clock skew) is as old as one made now, never younger.
    return None if since is None else max(0, int((now - since).total_seconds()))


def _risk(uid: EntityUid, world: KnownWorld) -> int:
    entity = world.entity(uid)
    risk = entity.attrs.get("risk") if entity is not None else None
    return risk if isinstance(risk, int) and not isinstance(risk, bool) else _WORST_RISK


def _environment(principal: EntityUid, world: KnownWorld) -> EntityUid | None:
    entity = world.entity(principal)
    value = entity.attrs.get("environment") if entity is not None else None
    return value if isinstance(value, EntityUid) else None
