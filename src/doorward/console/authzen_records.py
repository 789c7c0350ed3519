"""Records of what enforcement points asked: one decision record per evaluation and per search."""

from __future__ import annotations

from typing import Any

import msgspec

from doorward.console.authzen_callers import Pep
from doorward.console.services import Services
from doorward.core.clock import rfc3339
from doorward.core.decision import Effect
from doorward.core.record import Check, DecisionRecord
from doorward.core.values import to_json
from doorward.decisions.authzen import Judged
from doorward.decisions.authzen_wire import Evaluation

_MAX_TEXT = 2048


def evaluation_record(  # noqa: PLR0913 -- what an evaluation was
    services: Services, pep: Pep, judged: Judged, *, name: str, allowed: bool, asked_as: str
) -> DecisionRecord:
    """Return the record of one evaluation; `name` is its id, `allowed` what the caller is told."""
    decision, request, standpoint = judged.decision, judged.request, judged.standpoint
    effect = Effect.ALLOW if allowed else Effect.DENY
    fields: dict[str, Any] = {}
    if request is not None and standpoint is not None:
        fields = {
            "context": to_json(request.context.to_record()),
            "inputs": standpoint.inputs(request),
            "purpose": request.context.purpose or "",
        }
    check = Check(
        _cut(judged.principal),
        _cut(judged.action),
        _cut(judged.resource),
        decision.effect.value,
        decision.determining,
    )
    return DecisionRecord(
        **_common(services, name, asked_as),
        decision=effect.value,
        code="allowed" if allowed else "denied",
        policy_decision=decision.effect.value,
        principal=check.principal,
        action=check.action,
        resource=check.resource,
        checks=(check,),
        determining=decision.determining,
        obligations=tuple(msgspec.to_builtins(one) for one in decision.obligations),
        errors=decision.errors,
        advice=decision.advice,
        detail="; ".join(judged.ignored)[:_MAX_TEXT],
        bundle=decision.bundle,
        entities=decision.entities,
        request={"pep": pep.name, "credential": pep.credential, "interface": "authzen"},
        **fields,
    )


def search_record(  # noqa: PLR0913 -- what a search was
    services: Services, pep: Pep, asked: Evaluation, *, wanted: str, shown: int, asked_as: str
) -> DecisionRecord:
    """Return the record of one search: what was looked for and how much was shown."""
    standpoint = services.point.pin()
    effect = Effect.ALLOW if pep.searches else Effect.DENY
    return DecisionRecord(
        **_common(services, services.ids.new(), asked_as),
        decision=effect.value,
        code="allowed" if pep.searches else "denied",
        principal=_cut(f"{asked.subject.type} {asked.subject.id}".strip()),
        action=_cut(asked.action.name or "*"),
        resource=_cut(f"{asked.resource.type} {asked.resource.id}".strip()),
        bundle=standpoint.bundle_digest,
        entities=standpoint.entities_version,
        request={
            "pep": pep.name,
            "credential": pep.credential,
            "interface": "authzen",
            "search": wanted,
            "shown": shown,
        },
    )


def _common(services: Services, name: str, asked_as: str) -> dict[str, Any]:
    return {
        "id": name,
        "kind": "decision",
        "time": rfc3339(services.clock.now()),
        "request_id": asked_as,
    }


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"
