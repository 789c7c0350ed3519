"""AuthZEN questions and answers as values: what is not exactly true, or cannot be read, is a denial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from doorward.core.decision import Decision, Effect
from doorward.core.model import EntityUid
from doorward.core.obligation import AnyObligation
from doorward.sdk.asking import Name, denied, uid_of

_VENDOR = "doorward"


def question_of(principal: Name, action: str, resource: Name) -> dict[str, Any]:
    """Return one evaluation; raise InvalidRequestError for what is no name."""
    return {"subject": named(principal), "action": {"name": action}, "resource": named(resource)}


def named(name: Name) -> dict[str, str]:
    """Return a subject or resource: the type is the AuthZEN one, ours by its short name."""
    uid: EntityUid = uid_of(name)
    return {"type": uid.kind, "id": uid.id}


def decision_of(answer: Any) -> Decision:
    """Read `{decision, context}`; anything but a plain true is a denial, with the reason in `errors`."""
    if not isinstance(answer, dict) or not isinstance(answer.get("decision"), bool):
        return denied("sdk: the answer holds no decision")
    context = answer.get("context", {})
    try:
        obligations = tuple(map(_obligation, context.get("obligations", ())))
        why = context.get("reason_admin", {})
        said = context.get("reason_user", {}).get("en")
        decision = Decision(
            effect=Effect.ALLOW if answer["decision"] else Effect.DENY,
            determining=tuple(map(str, why.get("determining", ()))),
            obligations=obligations,
            errors=tuple(map(str, why.get("errors", ()))),
            advice=() if said is None else (str(said),),
            bundle=str(why.get("bundle", "")),
            entities=str(why.get("entities", "")),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as reason:
        return denied(f"sdk: the answer cannot be read ({type(reason).__name__})")
    if not decision.allowed and "error" in context:
        return msgspec.structs.replace(decision, errors=(*decision.errors, f"sdk: {context['error']}"))
    return decision


def _obligation(one: Mapping[str, Any]) -> AnyObligation:
    kind, fields = str(one["type"]), dict(one["properties"])
    match kind:
        case "step-up":
            plain = {"type": "stepup", "acr": fields["acr_value"], "max_age": fields.get("max_age")}
        case "notification":
            plain = {"type": "notify", "who": fields["to"]}
        case "custom" if fields.pop("vendor") == _VENDOR:
            plain = {"type": fields.pop("obligation"), **fields}
        case _:
            raise ValueError(kind)
    obligation: AnyObligation = msgspec.convert(plain, AnyObligation)
    return obligation
