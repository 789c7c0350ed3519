"""What is left of the policies when everything but the resource is known: a filter of resources.

Conditions are evaluated as far as they go; what depends on the resource becomes a `core.filters` tree,
what that cannot say exactly becomes `Unknown`. An error is never a verdict here: it is `Unknown` too,
so that the resource is decided by itself, where an erring forbid denies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from doorward.cedar import scope
from doorward.cedar.possible import certain
from doorward.core import filters
from doorward.core.decision import AccessRequest
from doorward.core.filters import Comparison, Filter, Residual
from doorward.core.model import Entity, EntityUid, Value
from doorward.core.values import from_json
from doorward.decisions.filtering import Test, conjunction, disjunction, negation, verdict_of
from doorward.decisions.point import Standpoint
from doorward.decisions.schema_actions import actions_of, groups_of
from doorward.directory import effective

_ALWAYS, _NEVER = filters.Constant(value=True), filters.Constant(value=False)
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_RESOURCE = {"Var": "resource"}
_NOTHING = object()


class Allowed:
    """Tell which resources one question allows; `residual` is the tree, `among` applies it."""

    def __init__(self, request: AccessRequest, standpoint: Standpoint) -> None:
        """Evaluate everything that does not depend on the resource; the request's own is not read."""
        self._request, self._standpoint = request, standpoint
        self._known = _Known(standpoint.snapshot.closure(_named(request)))
        self._variables: Mapping[str, Any] = {
            "principal": request.principal,
            "action": request.action,
            "context": request.context.to_record(),
        }
        self._verdicts: dict[str, Test] = {}
        self._above: dict[frozenset[EntityUid], frozenset[EntityUid]] = {}
        bundle = standpoint.bundle
        applies = actions_of(bundle.schema).get(request.action)
        fits = applies is not None and request.principal.type in applies.principals
        self._types = applies.resources if applies is not None and fits else frozenset[str]()
        self._groups = groups_of(bundle.schema).get(request.action, frozenset())
        trees = [policy.tree for policy in (*bundle.policies, *bundle.guardrails)]
        self.residual = Residual(
            permits=tuple(self._rules(trees, "permit")), forbids=tuple(self._rules(trees, "forbid"))
        )

    def among(self, resources: Iterable[EntityUid]) -> Iterator[EntityUid]:
        """Yield those that are allowed: by the filter where it can tell, else decided one by one."""
        if self._refused():
            return
        # Entities of an installation's own types were not checked against the schema when stated.
        trusted = effective.is_principal(self._request.principal)
        for uid in resources:
            entity = self._standpoint.snapshot.resolve(uid)
            verdict = None
            if entity is not None and trusted and effective.is_asset(uid) and uid.type in self._types:
                verdict = self._verdict(uid.type)(entity, self._ancestors(entity))
            if verdict is None:
                asked = msgspec.structs.replace(self._request, resource=uid)
                verdict = self._standpoint.decide(asked).allowed
            if verdict:
                yield uid

    def _verdict(self, kind: str) -> Test:
        found = self._verdicts.get(kind)
        if found is None:
            found = self._verdicts[kind] = verdict_of(self.residual, kind)
        return found

    def _refused(self) -> bool:
        """Return whether nobody is asked for: what is denied before any policy is read."""
        snapshot, actor = self._standpoint.snapshot, self._request.context.actor
        principal = snapshot.resolve(self._request.principal)
        known = principal is not None and principal.attrs.get("active") is True
        return not known or (actor is not None and not snapshot.is_active(actor))

    def _ancestors(self, resource: Entity) -> frozenset[EntityUid]:
        found = self._above.get(resource.parents)
        if found is None:
            closure = self._standpoint.snapshot.closure(resource.parents)
            parents = {uid: entity.parents for uid, entity in closure.items()}
            found = resource.parents.union(*(scope.ancestors(parents, uid) for uid in resource.parents))
            self._above[resource.parents] = found
        return found

    def _rules(self, trees: Iterable[Mapping[str, Any]], effect: str) -> Iterator[Filter]:
        for tree in trees:
            if tree["effect"] != effect or not self._speaks(tree):
                continue
            parts = [_side(scope.side(tree["resource"]))]
            for condition in tree.get("conditions", ()):
                part = self._of(condition["body"])
                parts.append(part if condition["kind"] == "when" else negation(part))
            whole = conjunction(parts)
            if whole != _NEVER:
                yield whole

    def _speaks(self, tree: Mapping[str, Any]) -> bool:
        """Return whether a policy's scope holds for principal and action."""
        principal = self._request.principal
        if not scope.side(tree["principal"]).matches(principal, self._known.above(principal)):
            return False
        named, within = scope.actions(tree["action"])
        if named is None or self._request.action in named:
            return True
        return within and not self._groups.isdisjoint(named)

    # Expressions

    def _of(self, tree: Mapping[str, Any]) -> Filter:  # noqa: PLR0911 -- one per form
        outcome = certain({"conditions": [{"kind": "when", "body": tree}]}, self._variables, self._known)
        match (outcome.true, outcome.false, outcome.error):
            case (True, False, False):
                return _ALWAYS
            case (False, True, False):
                return _NEVER
            case (False, False, True):
                return filters.Unknown("the condition errs")
        match tree:
            case {"&&": {"left": left, "right": right}}:
                return conjunction([self._of(left), self._of(right)])
            case {"||": {"left": left, "right": right}}:
                return disjunction([self._of(left), self._of(right)])
            case {"!": {"arg": inner}}:
                return negation(self._of(inner))
            case {"has": {"left": left, "attr": name}} if left == _RESOURCE:
                return filters.Has(name)
            case {"is": {"left": left, "entity_type": kind, **rest}} if left == _RESOURCE and not rest:
                return filters.Typed(kind)
        return self._binary(tree)

    def _binary(self, tree: Mapping[str, Any]) -> Filter:
        ((form, body),) = tree.items()
        if not isinstance(body, Mapping) or set(body) != {"left", "right"}:
            return filters.Unknown(form)
        left, right = body["left"], body["right"]
        if form == "in" and left == _RESOURCE and isinstance(uid := self._value(right), EntityUid):
            return filters.Within(uid)
        if form in _FLIPPED:
            return self._comparison(form, left, right)
        if form == "contains":
            return self._contains(left, right)
        return filters.Unknown(form)

    def _comparison(self, form: str, left: Any, right: Any) -> Filter:
        for form_, one, other in ((form, left, right), (_FLIPPED[form], right, left)):
            value = self._value(other)
            if value is _NOTHING:
                continue
            if (field := _field(one)) is not None:
                return filters.Compare(field, Comparison(form_), value)
            if one == _RESOURCE and form_ in {"==", "!="} and isinstance(value, EntityUid):
                same = filters.Same(value)
                return same if form_ == "==" else filters.Not(same)
        return filters.Unknown(form)

    def _contains(self, left: Any, right: Any) -> Filter:
        field = _field(left)
        if field is not None and (value := self._value(right)) is not _NOTHING:
            return filters.Contains(field, value)
        field, values = _field(right), self._value(left)
        if field is not None and isinstance(values, frozenset):
            return filters.OneOf(field, values)
        return filters.Unknown("contains")

    def _value(self, tree: Any) -> Any:
        """Return what an expression stands for, where that is a constant a filter can hold."""
        value = self._found(tree)
        plain = isinstance(value, (bool, int, str, EntityUid, frozenset))
        return value if plain else _NOTHING

    def _found(self, tree: Any) -> Any:
        match tree:
            case {"Value": raw}:
                return _plain(raw)
            case {"Set": items}:
                values = [self._value(item) for item in items]
                return _NOTHING if any(v is _NOTHING for v in values) else frozenset(values)
            case {"Var": name} if name in {"principal", "action"}:
                return self._variables[name]
            case {".": {"left": {"Var": "context"}, "attr": name}}:
                return self._variables["context"].get(name, _NOTHING)
            case {".": {"left": left, "attr": name}}:
                return self._attribute(self._found(left), name)
        return _NOTHING

    def _attribute(self, value: Any, name: str) -> Any:
        if isinstance(value, EntityUid):
            entity = self._known.entities.get(value)
            return _NOTHING if entity is None else entity.attrs.get(name, _NOTHING)
        return value.get(name, _NOTHING) if isinstance(value, Mapping) else _NOTHING


class _Known:
    """The entities the question names, with their ancestors."""

    def __init__(self, entities: Mapping[EntityUid, Entity]) -> None:
        self.entities = entities
        self._parents = {uid: entity.parents for uid, entity in entities.items()}

    def above(self, uid: EntityUid) -> frozenset[EntityUid]:
        return scope.ancestors(self._parents, uid)


def _named(request: AccessRequest) -> Iterator[EntityUid]:
    context = request.context
    named = (context.device.id, context.actor, context.environment, context.request.arguments)
    yield request.principal
    yield from (uid for uid in named if uid is not None)


def _field(tree: Any) -> str | None:
    match tree:
        case {".": {"left": left, "attr": str(name)}} if left == _RESOURCE:
            return name
    return None


def _plain(raw: Any) -> Value | object:
    match raw:
        case bool() | int() | str() | {"__entity": _}:
            return from_json(raw)
    return _NOTHING  # sets are written as expressions; extension values are not computed with


def _side(side: scope.Side) -> Filter:
    parts: list[Filter] = []
    if side.type is not None:
        parts.append(filters.Typed(side.type))
    if side.equal is not None:
        parts.append(filters.Same(side.equal))
    if side.within is not None:
        parts.append(filters.Within(side.within))
    return conjunction(parts)
