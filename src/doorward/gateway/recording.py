"""Records of a visit (steps 7 and 10): what was decided, and what became of it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec
import structlog

from doorward.core.clock import rfc3339
from doorward.core.decision import Decision, Effect
from doorward.core.identity import Caller
from doorward.core.model import EntityUid
from doorward.core.record import Check, DecisionRecord, OutcomeRecord
from doorward.core.values import context_to_json
from doorward.gateway.adapter import Refusal
from doorward.gateway.faults import origin_of
from doorward.gateway.floods import Bursts
from doorward.gateway.judgement import Judged
from doorward.gateway.ports import Standpoint
from doorward.gateway.visit import Visit
from doorward.identity import api_keys

_log = structlog.get_logger()
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_TEXT = 2048
_MAX_SOURCES = 20


def _cut(text: str) -> str:
    text = api_keys.hidden(text)
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"


def decision_record(
    visit: Visit,
    *,
    record_id: str,
    now: datetime,
    refusal: Refusal | None,
    explained: Decision | None = None,
) -> DecisionRecord:
    """Return the record of the final verdict; `refusal` is None when the request is allowed."""
    return DecisionRecord(
        id=record_id,
        kind="decision",
        time=rfc3339(now),
        request_id=visit.request.id,
        decision=Effect.DENY.value if refusal is not None else Effect.ALLOW.value,
        code=refusal.code if refusal is not None else "allowed",
        detail=_cut(refusal.detail) if refusal is not None else "",
        upstream=visit.upstream,
        environment=str(visit.adapter.settings.environment) if visit.adapter is not None else "",
        network=_network(visit),
        request=_request(visit),
        trace=_trace(visit),
        **_who(visit, now),
        **_what(visit),
        **_why(visit, explained),
    )


def _who(visit: Visit, now: datetime) -> dict[str, Any]:
    caller = visit.caller
    if caller is None:
        return {}
    known = caller.as_vouched(now)
    return {
        "principal": str(caller.principal),
        "actor": tuple(str(actor) for actor in caller.actors),
        "device": str(caller.device) if caller.device is not None else "",
        "session": {
            "method": str(caller.method),
            "credential": caller.credential,
            "acr": known.acr,
            "minted": caller.minted,
            "device_proven": caller.device_proven,
            **_provenance(caller, now),
        },
    }


def _provenance(caller: Caller, now: datetime) -> dict[str, Any]:
    """Return who said how the caller signed in, how long ago, and whether that is still believed."""
    if not caller.vouched_by:
        return {}
    age = {} if caller.vouched_at is None else {"source_age": int((now - caller.vouched_at).total_seconds())}
    stale = caller.vouched_until is not None and now >= caller.vouched_until
    return {"source": caller.vouched_by, **age, "stale": stale, "shown_by": caller.shown_by}


def _what(visit: Visit) -> dict[str, Any]:
    if visit.naming is None:
        return {}
    if not visit.naming.asks:
        return {"action": "view", "resource": str(EntityUid.of("Upstream", visit.upstream))}
    shown = visit.naming.asks[0]
    if visit.judgement is not None and visit.judgement.denied:
        asked = visit.judgement.denied[0].request
        return {"action": asked.action.id, "resource": str(asked.resource)}
    return {"action": shown.action.value, "resource": str(shown.resource)}


def _why(visit: Visit, explained: Decision | None) -> dict[str, Any]:
    if visit.circumstances is None or visit.standpoint is None:
        return {}
    fields: dict[str, Any] = {
        "purpose": visit.circumstances.purpose or "",
        "bundle": visit.standpoint.bundle_digest,
        "entities": visit.standpoint.entities_version,
    }
    if visit.judgement is None or not visit.judgement.checks:
        return fields
    checks = visit.judgement.checks
    decisive = visit.judgement.denied or checks
    fields |= {
        "policy_decision": Effect.DENY.value if visit.judgement.denied else Effect.ALLOW.value,
        "checks": tuple(_check(check) for check in checks),
        "determining": tuple(dict.fromkeys(p for check in decisive for p in check.decision.determining)),
        "obligations": tuple(msgspec.to_builtins(o) for o in visit.obligations),
        "errors": tuple(dict.fromkeys(e for check in checks for e in check.decision.errors)),
        "context": context_to_json(decisive[0].request.context),
        "inputs": _inputs(visit.standpoint, decisive[0]),
    }
    if explained is not None:
        fields["advice"] = explained.advice
        fields["would_allow"] = tuple(msgspec.to_builtins(change) for change in explained.would_allow)
    return fields


def _inputs(standpoint: Standpoint, check: Judged) -> str:
    try:
        return standpoint.inputs(check.request)
    except Exception as error:  # noqa: BLE001 -- a verdict must be recorded even if its inputs cannot be
        _log.error("inputs_failed", error=origin_of(error))
        return ""


def _check(check: Judged) -> Check:
    asked, decision = check.request, check.decision
    return Check(
        str(asked.principal),
        asked.action.id,
        str(asked.resource),
        decision.effect.value,
        decision.determining,
    )


def _network(visit: Visit) -> dict[str, Any]:
    peer = visit.request.peer
    network: dict[str, Any] = {"ip": peer.ip, "tls": peer.tls}
    if visit.standpoint is not None:
        network["zone"] = visit.standpoint.snapshot.zone_of(peer.ip)
        if (country := visit.standpoint.snapshot.place_of(peer.ip).country) is not None:
            network["country"] = country
    if peer.proxy:
        network["proxy"] = peer.proxy
    return network


def _request(visit: Visit) -> dict[str, Any]:
    # The query stays out: presigned URLs carry signatures there, and filters carry personal data.
    found: dict[str, Any] = {
        "method": visit.request.method,
        "path": _cut(visit.request.path),
        "bytes": len(visit.body),
    }
    if visit.reason:
        found["reason"] = visit.reason
    if visit.naming is not None:
        found["route"] = visit.naming.route
        found["bytes"] = visit.naming.facts.bytes
        if visit.naming.model:
            found["model"] = _cut(visit.naming.model)
        if visit.naming.facts.tools:
            found["tools"] = sorted(visit.naming.facts.tools)
    return found


def _trace(visit: Visit) -> str:
    for name, value in visit.request.headers:
        if name == "traceparent" and (match := _TRACEPARENT.fullmatch(value)):
            return match[1]
    return ""


def outcome_record(visit: Visit, *, record_id: str, now: datetime, outcome: dict[str, Any]) -> OutcomeRecord:
    """Return the record of what became of an allowed request."""
    who, what = _who(visit, now), _what(visit)
    return OutcomeRecord(
        id=record_id,
        kind="outcome",
        time=rfc3339(now),
        request_id=visit.request.id,
        principal=who.get("principal", ""),
        upstream=visit.upstream,
        action=what.get("action", ""),
        resource=what.get("resource", ""),
        outcome={**visit.outcome, **outcome},
    )


def flood_record(bursts: Bursts, *, record_id: str, now: datetime) -> DecisionRecord:
    """Return the one record of everything that was only counted."""
    largest = sorted(bursts.sources, key=lambda burst: -burst.count)[:_MAX_SOURCES]
    codes = sorted({burst.code for burst in bursts.sources})
    total = sum(burst.count for burst in bursts.sources)
    return DecisionRecord(
        id=record_id,
        kind="decision",
        time=rfc3339(now),
        request_id=record_id,
        decision=Effect.DENY.value,
        code=codes[0] if len(codes) == 1 else "refused",
        detail=f"{total} further refusals of callers that were not known",
        request={
            "repeated": total,
            "seconds": list(bursts.seconds),
            "sources": [msgspec.to_builtins(burst) for burst in largest],
        },
    )
