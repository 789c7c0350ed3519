"""Answer AuthZEN questions on one standpoint, within what the asking enforcement point may ask.

What lies outside its scope is `decision: false` without a reason. The directory wins over what it
states; what it may not state is ignored, and noted in the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import chain, islice
from typing import Any

import msgspec

from doorward.core.context import Context
from doorward.core.decision import AccessRequest, Decision, Effect
from doorward.core.errors import DoorwardError
from doorward.core.model import Entity, EntityUid, Value
from doorward.core.obligation import AnyObligation, Notify, StepUp
from doorward.decisions import search, together
from doorward.decisions.authzen_scope import Kind, Scope
from doorward.decisions.authzen_wire import Act, Evaluation, Named
from doorward.decisions.point import Standpoint
from doorward.decisions.question import context_of
from doorward.decisions.schema_actions import actions_of

VENDOR = "doorward"
_LONG = 2**63
_NOTICE = "A policy asks that you be told of this request."


class StatedContext(Context, frozen=True):
    """Circumstances with what an enforcement point stated of the action (`context.properties`)."""

    properties: Mapping[str, Value] | None = None


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One answer: the decision, what was asked as Doorward names it, and what was ignored."""

    decision: Decision
    principal: str
    action: str
    resource: str
    request: AccessRequest | None = None
    ignored: tuple[str, ...] = ()
    standpoint: Standpoint | None = None


class Inquirer:
    """Answer one enforcement point on one standpoint at one time."""

    def __init__(self, standpoint: Standpoint, scope: Scope, now: datetime) -> None:
        """Keep what every answer rests on."""
        self._standpoint, self._scope, self._now = standpoint, scope, now

    def evaluate(self, asked: Evaluation) -> Judged:
        """Decide one evaluation; never raises on data: what cannot be asked is denied."""
        subject, resource = self._scope.subject(asked.subject.type), self._scope.resource(asked.resource.type)
        names: dict[str, Any] = {
            "principal": _shown(subject, asked.subject),
            "action": asked.action.name,
            "resource": _shown(resource, asked.resource),
        }
        action = self._action(asked.action.name, subject, resource)
        if (
            subject is None
            or resource is None
            or action is None
            or not (subject.covers(asked.subject.id) and resource.covers(asked.resource.id))
        ):
            return Judged(
                decision=self._refused("request: outside the scope of this enforcement point"), **names
            )
        notes: list[str] = []
        standpoint = self._supposing(asked, subject, resource, notes)
        principal = EntityUid(subject.type, asked.subject.id)
        try:
            context = self._context(principal, asked, standpoint, notes)
        except DoorwardError as reason:
            return Judged(decision=self._refused(f"request: {reason.message}"), ignored=tuple(notes), **names)
        request = AccessRequest(principal, action, EntityUid(resource.type, asked.resource.id), context)
        decisive, decision = together.judged(request, standpoint.decide, standpoint.snapshot)
        return Judged(
            decision=decision,
            request=decisive,
            ignored=tuple(notes),
            standpoint=standpoint,
            **names,
        )

    # Searches: what is not known or not in scope is not found

    def subjects(self, asked: Evaluation, after: str) -> Iterator[str]:
        """Yield the ids of subjects of a type that are allowed, in order, after one id."""
        kind = self._scope.subject(asked.subject.type)
        for name in () if kind is None else self._registered(kind, after):
            one = msgspec.structs.replace(asked, subject=msgspec.structs.replace(asked.subject, id=name))
            if self._allows(one):
                yield name

    def resources(self, asked: Evaluation, after: str) -> Iterator[str]:
        """Yield the ids of resources of a type that are allowed, in order, after one id."""
        kind = self._scope.resource(asked.resource.type)
        names = iter(()) if kind is None else self._registered(kind, after)
        if kind is not None and not asked.resource.properties:
            names = self._among(asked, kind, names)
            if not isinstance(asked.context.get("supported_obligations"), list):
                yield from names
                return
        # What is stated of each may differ from what the directory says of it; so may its obligations.
        yield from (name for name in names if self._allows(_of_resource(asked, name)))

    def _among(self, asked: Evaluation, kind: Kind, names: Iterator[str]) -> Iterator[str]:
        """Yield the names of a list on which a question is allowed: what they share is evaluated once."""
        one = next(names, None)
        judged = None if one is None else self.evaluate(_of_resource(asked, one))
        if one is None or judged is None or judged.request is None or judged.standpoint is None:
            return  # it cannot be asked, of whichever resource
        uids = (EntityUid(kind.type, name) for name in chain((one,), names))
        if together.is_alone(judged.request):
            yield from (uid.id for uid in judged.standpoint.among(judged.request, uids))
            return
        yield from (uid.id for uid in uids if self._allows(_of_resource(asked, uid.id)))

    def actions(self, asked: Evaluation, after: str) -> Iterator[str]:
        """Yield the names of actions that are allowed, in order, after one name."""
        subject, resource = self._scope.subject(asked.subject.type), self._scope.resource(asked.resource.type)
        if subject is None or resource is None:
            return
        fitting = sorted(
            action.id
            for action, applies in actions_of(self._standpoint.bundle.schema).items()
            if subject.type in applies.principals and resource.type in applies.resources
        )
        for name in fitting:
            if name > after and self._allows(msgspec.structs.replace(asked, action=Act(name))):
                yield name

    def _allows(self, asked: Evaluation) -> bool:
        """Return whether asking just this would be answered with true."""
        decision = self.evaluate(asked).decision
        return decision.allowed and not _unkept(decision, asked.context.get("supported_obligations"))

    def _registered(self, kind: Kind, after: str) -> Iterator[str]:
        for uid in search.registered(self._standpoint, frozenset({kind.type})):
            if uid.id > after and kind.covers(uid.id):
                yield uid.id

    def _action(self, name: str, subject: Kind | None, resource: Kind | None) -> EntityUid | None:
        """Return the one action of this name that the schema lets such a subject do to such a resource."""
        if subject is None or resource is None:
            return None
        found = [
            action
            for action, applies in actions_of(self._standpoint.bundle.schema).items()
            if action.id == name and subject.type in applies.principals and resource.type in applies.resources
        ]
        return found[0] if len(found) == 1 else None

    def _refused(self, reason: str) -> Decision:
        standpoint = self._standpoint
        return Decision(
            Effect.DENY,
            errors=(reason,),
            bundle=standpoint.bundle_digest,
            entities=standpoint.entities_version,
        )

    # What the enforcement point states

    def _supposing(self, asked: Evaluation, subject: Kind, resource: Kind, notes: list[str]) -> Standpoint:
        sides = (("subject", subject, asked.subject), ("resource", resource, asked.resource))
        supposed = [
            entity
            for where, kind, one in sides
            if (entity := self._supposed(kind, one, where, notes)) is not None
        ]
        return self._standpoint.supposing(supposed) if supposed else self._standpoint

    def _supposed(self, kind: Kind, one: Named, where: str, notes: list[str]) -> Entity | None:
        """Return the entity with what the directory leaves open, None where nothing is added."""
        uid = EntityUid(kind.type, one.id)
        snapshot = self._standpoint.snapshot
        known, stated = snapshot.resolve(uid), snapshot.stated.get(uid)
        added: dict[str, Value] = {}
        for name, raw in one.properties.items():
            place = f"{where}.properties.{name}"
            if name not in kind.properties:
                notes.append(f"{place}: not among what this enforcement point may state")
            elif known is not None and name in known.attrs:
                if _plain(known.attrs[name]) != raw:
                    notes.append(f"{place}: the directory says otherwise")
            elif (value := _value(raw)) is None:
                notes.append(f"{place}: not a truth value, whole number, text or list of texts")
            else:
                added[name] = value
        if known is None:
            return Entity(uid, added) if kind.unregistered else None
        if not added:
            return None
        base = stated or Entity(uid)
        return Entity(uid, {**base.attrs, **added}, base.parents, base.tags)

    def _context(
        self, principal: EntityUid, asked: Evaluation, standpoint: Standpoint, notes: list[str]
    ) -> Context:
        allowed = self._scope.context
        kept = {name: value for name, value in asked.context.items() if name in allowed}
        notes += [
            f"context.{name}: not among what this enforcement point may state"
            for name in asked.context
            if name not in allowed and name != "supported_obligations"
        ]
        snapshot = standpoint.snapshot
        purpose = kept.get("purpose")
        if isinstance(purpose, str) and purpose not in snapshot.purposes_of(principal):
            notes.append("context.purpose: not assigned to the subject")
            del kept["purpose"]
        context = context_of(principal, kept, snapshot, self._now)
        context = msgspec.structs.replace(context, device=_registered_device(context, standpoint))
        properties = self._action_properties(asked.action, notes)
        if not properties:
            return context
        fields = {name: getattr(context, name) for name in Context.__struct_fields__}
        return StatedContext(**fields, properties=properties)

    def _action_properties(self, action: Act, notes: list[str]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for name, raw in action.properties.items():
            value = _value(raw)
            if name not in self._scope.action_properties or value is None:
                notes.append(f"action.properties.{name}: not among what this enforcement point may state")
            else:
                found[name] = value
        return found


def answer_of(judged: Judged, *, supported: Any, reasons: bool) -> dict[str, Any]:
    """Return `{decision, context}`; `supported` are the obligation types the caller can keep, if it says.

    An obligation it cannot keep makes the answer false (obligations profile, draft). With `reasons`
    the determining policies and what would help stand in the context.
    """
    decision = judged.decision
    obligations = [obligation_of(one, n) for n, one in enumerate(decision.obligations)]
    unkept = _unkept(decision, supported)
    context: dict[str, Any] = {}
    if obligations:
        context["obligations"] = obligations
    if decision.allowed and unkept:
        context["error"] = f"obligations this enforcement point cannot keep: {', '.join(unkept)}"
    if judged.ignored:
        context["ignored"] = list(judged.ignored)
    if reasons:
        context["reason_admin"] = {
            "determining": list(decision.determining),
            "errors": list(decision.errors),
            "bundle": decision.bundle,
            "entities": decision.entities,
        }
        told = [*(change.say for change in decision.would_allow), *decision.advice]
        if told:
            context["reason_user"] = {"en": "; ".join(told)}
    answer: dict[str, Any] = {"decision": decision.allowed and not unkept}
    return answer | ({"context": context} if context else {})


def _unkept(decision: Decision, supported: Any) -> list[str]:
    """Return the types a caller says it cannot keep; one that says nothing is not asked (draft)."""
    types = [obligation_of(one, n)["type"] for n, one in enumerate(decision.obligations)]
    return [kind for kind in types if isinstance(supported, list) and kind not in supported]


def obligation_of(obligation: AnyObligation, number: int) -> dict[str, Any]:
    """Return one obligation in the draft's shape; kinds it does not name are `custom`, ours by vendor."""
    plain = msgspec.to_builtins(obligation)
    name, fields = plain["type"], {key: value for key, value in plain.items() if key != "type"}
    match obligation:
        case StepUp():
            age = {} if obligation.max_age is None else {"max_age": obligation.max_age}
            kind, fields = "step-up", {"acr_value": obligation.acr, **age}
        case Notify():
            kind, fields = "notification", {"to": obligation.who, "body": _NOTICE}
        case _:
            kind, fields = "custom", {"vendor": VENDOR, "obligation": name, **fields}
    return {"id": f"{name}-{number}", "type": kind, "properties": fields}


def _of_resource(asked: Evaluation, name: str) -> Evaluation:
    return msgspec.structs.replace(asked, resource=msgspec.structs.replace(asked.resource, id=name))


def first(
    results: Iterator[str], limit: int, entry: Callable[[str], dict[str, str]]
) -> tuple[list[dict[str, str]], str]:
    """Return one page of results, and the name after which the next begins (empty at the end)."""
    names = list(islice(results, limit + 1))
    return [entry(name) for name in names[:limit]], names[limit - 1] if len(names) > limit else ""


def _registered_device(context: Context, standpoint: Standpoint) -> Any:
    """Take a named device's posture from the directory; one that is not known there is unknown."""
    device = context.device
    if device.id is None:
        return device
    found = standpoint.snapshot.entity(device.id)
    if found is None or found.attrs.get("active") is not True:
        return type(device)()
    return msgspec.structs.replace(
        device,
        known=True,
        managed=found.attrs.get("managed") is True,
        compliant=found.attrs.get("compliant") is True,
    )


def _shown(kind: Kind | None, one: Named) -> str:
    return str(EntityUid(one.type if kind is None else kind.type, one.id))


def _value(raw: Any) -> Value | None:
    match raw:
        case bool() | str():
            return raw
        case int() if -_LONG <= raw < _LONG:
            return raw
        case list() if all(isinstance(item, str) for item in raw):
            return frozenset(raw)
    return None


def _plain(value: Value) -> Any:
    return sorted(map(str, value)) if isinstance(value, frozenset) else value
