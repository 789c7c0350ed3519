"""What must be fulfilled for a permit to hold (step 6); what cannot be kept here turns it into a denial."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from doorward.core.identity import Caller
from doorward.core.model import Action, EntityUid
from doorward.core.obligation import AnyObligation, Budget, Limit, Obligation, Per, ReadOnly, StepUp
from doorward.gateway.adapter import Ask
from doorward.gateway.judgement import Judgement
from doorward.gateway.ports import KnownWorld

# Kept by the flow itself, for every protocol.
KEPT_BY_FLOW: frozenset[type[Obligation]] = frozenset({Limit, StepUp, ReadOnly})
_WRITES = frozenset({Action.CREATE, Action.MODIFY, Action.DELETE, Action.DEPLOY, Action.CONFIGURE})
_LEVELS = {"aal1": 1, "aal2": 2, "aal3": 3}
_MFA_LEVEL = 2


def impossible(
    obligations: Iterable[AnyObligation], keeps: frozenset[type[Obligation]]
) -> AnyObligation | None:
    """Return an obligation that neither the flow nor the protocol file keeps for this request."""
    kept = keeps | KEPT_BY_FLOW
    return next((o for o in obligations if type(o) not in kept), None)


def breaks_readonly(obligations: Iterable[AnyObligation], asks: Iterable[Ask]) -> bool:
    """Return whether a request that writes was permitted for reading only."""
    return any(isinstance(o, ReadOnly) for o in obligations) and any(ask.action in _WRITES for ask in asks)


def unmet_step_up(obligations: Iterable[AnyObligation], caller: Caller, now: datetime) -> StepUp | None:
    """Return a step-up the caller's sign-in does not meet (RFC 9470)."""
    steps = (o for o in obligations if isinstance(o, StepUp))
    return next((step for step in steps if not _meets(step, caller, now)), None)


def _meets(step: StepUp, shown: Caller, now: datetime) -> bool:
    caller = shown.as_vouched(now)
    level = max(_LEVELS.get(caller.acr, 0), _MFA_LEVEL if caller.mfa_at is not None else 0)
    wanted = _LEVELS.get(step.acr)
    if not (caller.acr == step.acr if wanted is None else level >= wanted):
        return False
    if step.max_age is None:
        return True
    # The age that counts is that of the strongest thing shown.
    since = caller.mfa_at if caller.mfa_at is not None else caller.signed_in_at
    return since is not None and (now - since).total_seconds() <= step.max_age


def challenge_of(step: StepUp, caller: Caller) -> str:
    """Return the WWW-Authenticate value that asks for a stronger sign-in (RFC 9470 §3).

    The scheme is the one the caller's token was sent with.
    """
    scheme = "DPoP" if caller.shown_by == "dpop" else "Bearer"
    parts = [
        f'{scheme} error="insufficient_user_authentication"',
        'error_description="A stronger or more recent sign-in is needed"',
        f'acr_values="{step.acr}"',
    ]
    if step.max_age is not None:
        parts.append(f'max_age="{step.max_age}"')
    return ", ".join(parts)


def counters(judgement: Judgement, world: KnownWorld) -> tuple[tuple[str, Limit | Budget], ...]:
    """Return the counters a request uses, each once: by default one per policy, principal and asset.

    The asset is the registered one that covers the name, else a caller would get a new counter with
    every new object.
    """
    found: dict[tuple[str, Limit | Budget], None] = {}
    for check in judgement.checks:
        for obligation in check.decision.obligations:
            if isinstance(obligation, Limit | Budget):
                owner = _owner(obligation.per, check.request.principal, check.request.resource, world)
                found[(f"{obligation.policy}|{owner}", obligation)] = None
    return tuple(found)


def _owner(per: Per, principal: EntityUid, resource: EntityUid, world: KnownWorld) -> str:
    asset = world.covering(resource.id, (resource.kind,)) or resource
    match per:
        case Per.PRINCIPAL:
            return str(principal)
        case Per.ASSET:
            return str(asset)
        case Per.PROJECT:
            entity = world.entity(asset)
            parents = entity.parents if entity is not None else frozenset()
            return ",".join(sorted(str(p) for p in parents if p.kind == "Project")) or str(asset)
        case Per.BOTH:
            return f"{principal}|{asset}"
