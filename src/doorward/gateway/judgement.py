"""Decide (step 5): every name a request touches, for the caller and for each agent that acts for her."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec
import structlog

from doorward.core.decision import AccessRequest, Decision, Effect
from doorward.core.model import Action, EntityUid
from doorward.core.obligation import AnyObligation
from doorward.decisions.together import OWNER_FORBIDDEN, owner_forbids
from doorward.gateway.adapter import Ask, Refusal
from doorward.gateway.circumstances import Circumstances, context_of
from doorward.gateway.faults import origin_of
from doorward.gateway.ports import Standpoint
from doorward.gateway.prefixes import Place, Prefixes
from doorward.gateway.refusal import of_decision

# Stands in `determining` where a credential's own bounds deny.
CREDENTIAL_BOUNDS = "credential:bounds"
# Denials that no policy about the caller explains: their advice says all there is to say.
UNEXPLAINED = frozenset({CREDENTIAL_BOUNDS, OWNER_FORBIDDEN})
_log = structlog.get_logger()


class Judged(msgspec.Struct, frozen=True):
    """One question and its decision."""

    request: AccessRequest
    decision: Decision


class Judgement(msgspec.Struct, frozen=True):
    """All decisions of one request; it is allowed only if there is one and all of them allow."""

    checks: tuple[Judged, ...]

    @property
    def allowed(self) -> bool:
        """Return whether every check allows; no checks at all is a denial."""
        return bool(self.checks) and all(check.decision.allowed for check in self.checks)

    @property
    def denied(self) -> tuple[Judged, ...]:
        """Return the checks that deny."""
        return tuple(check for check in self.checks if not check.decision.allowed)

    @property
    def obligations(self) -> tuple[AnyObligation, ...]:
        """Return the obligations of all checks together, each once."""
        return tuple(dict.fromkeys(o for check in self.checks for o in check.decision.obligations))


def principals_of(circumstances: Circumstances) -> tuple[EntityUid, ...]:
    """Return everyone who must be allowed: the caller, then each agent of the delegation chain."""
    caller = circumstances.caller
    return tuple(dict.fromkeys((caller.principal, *caller.actors)))


def judge(
    standpoint: Standpoint, asks: Iterable[Ask], *, circumstances: Circumstances, now: datetime
) -> Judgement:
    """Decide all asks for all principals on one standpoint; a decision that fails is a deny."""
    wanted = tuple(dict.fromkeys(asks))
    checks: list[Judged] = []
    for principal in principals_of(circumstances):
        context = context_of(circumstances, principal=principal, world=standpoint.snapshot, now=now)
        checks += [
            _decide(
                standpoint,
                AccessRequest(principal, ask.action.uid, ask.resource, context),
                within=within_bounds(circumstances, ask),
            )
            for ask in wanted
        ]
        if principal == circumstances.caller.principal:
            checks = [_held_to_owner(standpoint, check) for check in checks]
    return Judgement(tuple(checks))


def _held_to_owner(standpoint: Standpoint, check: Judged) -> Judged:
    """Deny what an agent asks on its own while its owner is forbidden it."""
    if check.request.principal.kind != "Agent" or not check.decision.allowed:
        return check
    try:
        forbidden = owner_forbids(check.request, standpoint.decide, standpoint.snapshot)
    except Exception as error:  # noqa: BLE001 -- whatever fails while deciding is a deny
        _log.error("decision_failed", action=str(check.request.action), error=origin_of(error))
        forbidden = _failed(standpoint, error)
    return check if forbidden is None else Judged(check.request, forbidden)


def sees(standpoint: Standpoint, uid: EntityUid, *, circumstances: Circumstances, now: datetime) -> bool:
    """Decide `view` of one name of a listing."""
    return judge(standpoint, (Ask(Action.VIEW, uid),), circumstances=circumstances, now=now).allowed


def within_bounds(circumstances: Circumstances, ask: Ask) -> bool:
    """Return whether a credential may be used for an ask: its own upper bound, whatever policies allow."""
    action, max_tokens = ask.action.value, circumstances.facts.max_tokens
    return all(
        bounds.permits(action, ask.resource)
        and bounds.holds_to(action, max_tokens=max_tokens, arguments=circumstances.arguments)
        for bounds in circumstances.caller.bounds
    )


def outlook(
    standpoint: Standpoint, place: Place, *, circumstances: Circumstances, now: datetime
) -> Prefixes | None:
    """Return what may be viewed under a name, by prefix; None where nothing is said of it.

    It spares reading what nobody here may see. It shows nothing: each name shown is decided by `sees`.
    """
    try:
        return Prefixes.of(
            standpoint.regions(
                AccessRequest(
                    principal,
                    Action.VIEW.uid,
                    place.uid_of(place.name),
                    context_of(circumstances, principal=principal, world=standpoint.snapshot, now=now),
                ),
                place.name,
                uid_of=place.uid_of,
                also=place.also,
            )
            for principal in principals_of(circumstances)
        )
    except Exception as error:  # noqa: BLE001 -- without an outlook every name is read and decided
        _log.error("outlook_failed", error=origin_of(error))
        return None


def _decide(standpoint: Standpoint, request: AccessRequest, *, within: bool) -> Judged:
    if not within:
        out = Decision(
            Effect.DENY,
            determining=(CREDENTIAL_BOUNDS,),
            advice=("The credential this was sent with is not for that: it is bound to less than you may.",),
            bundle=standpoint.bundle_digest,
            entities=standpoint.entities_version,
        )
        return Judged(request, out)
    try:
        return Judged(request, standpoint.decide(request))
    except Exception as error:  # noqa: BLE001 -- whatever fails while deciding is a deny
        _log.error("decision_failed", action=str(request.action), error=origin_of(error))
        return Judged(request, _failed(standpoint, error))


def _failed(standpoint: Standpoint, error: Exception) -> Decision:
    return Decision(
        Effect.DENY,
        errors=(f"evaluator: {type(error).__name__}",),
        bundle=standpoint.bundle_digest,
        entities=standpoint.entities_version,
    )


def is_hidden(standpoint: Standpoint, judgement: Judgement, circumstances: Circumstances) -> bool:
    """Return whether a denied name must not seem to exist; a visibility that fails hides."""
    try:
        return not all(
            standpoint.visible(principal, check.request.resource)
            for check in judgement.denied
            for principal in principals_of(circumstances)
        )
    except Exception as error:  # noqa: BLE001 -- what cannot be judged visible is hidden
        _log.error("visibility_failed", error=origin_of(error))
        return True


def said_of(denied: Judged, explained: Decision, *, resource: EntityUid, request_id: str) -> Refusal:
    """Return the refusal of a denied question, with what may be told of it; `resource` as it is named."""
    return of_decision(
        explained,
        principal=denied.request.principal,
        action=denied.request.action.id,
        resource=resource,
        request_id=request_id,
    )
