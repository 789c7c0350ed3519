"""What is left of the policies when everything but the resource is known: a filter of resources.

What does not name the resource is evaluated, exactly; what does becomes a `core.filters` tree, and what
that cannot say becomes `Unknown`. An error is never a verdict of a filter: an attribute that is not there
leaves the resource to be decided by itself, where an erring forbid denies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from doorward.cedar import scope
from doorward.cedar.closures import chain
from doorward.cedar.data import Fault
from doorward.cedar.engine import Loaded
from doorward.core import filters
from doorward.core.decision import AccessRequest
from doorward.core.errors import DoorwardError
from doorward.core.feed import PolicyText
from doorward.core.filters import Comparison, Filter, Residual
from doorward.core.model import EntityUid, Value
from doorward.decisions.filtering import conjunction, disjunction, negation
from doorward.decisions.point import Standpoint
from doorward.decisions.schema_actions import actions_of, groups_of
from doorward.directory import effective

_ALWAYS, _NEVER = filters.Constant(value=True), filters.Constant(value=False)
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_RESOURCE = {"Var": "resource"}
_NOTHING = object()
_MILLISECOND = timedelta(milliseconds=1)


class Allowed:
    """Tell which resources one question allows: `residual` is the tree, `verdict` applies it.

    `rules` are the policies that speak of the question, each with what is left of it.
    `fits` is False where the question fits no action of the schema: then every answer is a denial, and
    the residual says nothing.
    """

    def __init__(
        self, request: AccessRequest, standpoint: Standpoint, *, world: Loaded | None = None
    ) -> None:
        """Evaluate everything that does not depend on the resource; the request's own is not read."""
        self._request, self._standpoint = request, standpoint
        bundle = standpoint.bundle
        applies = actions_of(bundle.schema).get(request.action)
        fits = applies is not None and request.principal.type in applies.principals
        self.types = applies.resources if applies is not None and fits else frozenset[str]()
        self._groups = groups_of(bundle.schema).get(request.action, frozenset())
        world = standpoint.world() if world is None else world
        try:
            self._partial = Partial(standpoint.values(request, world))
            self._named = world.above(request.principal)
            self.fits = True
        except DoorwardError:
            self.fits, self.residual = False, Residual((filters.Unknown("the question does not fit"),))
            self.rules: tuple[tuple[PolicyText, Filter], ...] = ()
            return
        self.rules = tuple(self._rules((*bundle.policies, *bundle.guardrails)))
        self.residual = Residual(
            permits=tuple(one for policy, one in self.rules if policy.effect == "permit"),
            forbids=tuple(one for policy, one in self.rules if policy.effect != "permit"),
        )

    def verdict(self, uid: EntityUid, *, residual: Residual | None = None) -> bool | None:
        """Return what the policies, or another residual, say of a known resource; None: decide it."""
        if self._standpoint.refused(self._request) is not None:
            return False
        entity = self._standpoint.snapshot.resolve(uid)
        # Entities of an installation's own types were not checked against the schema when stated.
        trusted = self.fits and effective.is_principal(self._request.principal) and effective.is_asset(uid)
        if entity is None or not trusted or uid.type not in self.types:
            return None
        try:
            above = self._standpoint.world().above(uid)
        except DoorwardError:
            return None
        return (self.residual if residual is None else residual).verdict(entity, above)

    def _rules(self, policies: Iterable[PolicyText]) -> Iterator[tuple[PolicyText, Filter]]:
        for policy in policies:
            tree = policy.tree
            if not self._speaks(tree):
                continue
            parts = [_side(scope.side(tree["resource"]))]
            for condition in tree.get("conditions", ()):
                part = self._partial.of(condition["body"])
                parts.append(part if condition["kind"] == "when" else negation(part))
            whole = conjunction(parts)
            if whole != _NEVER:
                yield policy, whole

    def _speaks(self, tree: Mapping[str, Any]) -> bool:
        """Return whether a policy's scope holds for principal and action."""
        if not scope.side(tree["principal"]).matches(self._request.principal, self._named):
            return False
        named, within = scope.actions(tree["action"])
        if named is None or self._request.action in named:
            return True
        return within and not self._groups.isdisjoint(named)


class Partial:
    """Turn conditions into filters; `values` evaluates what does not name the resource."""

    def __init__(self, values: Callable[[Mapping[str, Any]], Value]) -> None:
        """Keep the evaluation."""
        self._values = values
        # By the identity of trees, which the bundle keeps.
        self._naming: dict[int, bool] = {}

    def of(self, tree: Mapping[str, Any]) -> Filter:  # noqa: PLR0911, C901 -- one case per form
        """Return an expression that should be true or false as a filter."""
        if not self._names(tree):
            return self._constant(tree)
        match tree:
            case {"&&": _}:
                return conjunction([self.of(part) for part in chain("&&", tree)])
            case {"||": _}:
                return disjunction([self.of(part) for part in chain("||", tree)])
            case {"!": {"arg": inner}}:
                return negation(self.of(inner))
            case {"if-then-else": {"if": test, "then": then, "else": other}}:
                asked = self.of(test)
                return disjunction(
                    [conjunction([asked, self.of(then)]), conjunction([negation(asked), self.of(other)])]
                )
            case {".": {"left": left, "attr": str(name)}} if left == _RESOURCE:
                return filters.Flag(name)
            case {"has": {"left": left, "attr": str(name)}} if left == _RESOURCE:
                return filters.Has(name)
            case {"is": {"left": left, "entity_type": kind, **rest}} if left == _RESOURCE:
                typed = filters.Typed(kind)
                return conjunction([typed, self._within(rest["in"])]) if "in" in rest else typed
            case {"like": {"left": left, "pattern": pattern}} if (field := _field(left)) is not None:
                return filters.Like(field, _pieces(pattern))
            case {"isEmpty": {"arg": inner}} if (field := _field(inner)) is not None:
                return filters.Inside(field, frozenset())
        return self._binary(tree)

    def _constant(self, tree: Mapping[str, Any]) -> Filter:
        try:
            value = self._values(tree)
        except Fault as fault:
            return filters.Errs(str(fault))
        except (DoorwardError, ValueError, RecursionError) as reason:
            return filters.Unknown(str(reason))
        return filters.Constant(value) if isinstance(value, bool) else filters.Errs("it is not true or false")

    def _value(self, tree: Any) -> Any:
        """Return what an expression stands for, where that is a constant a filter can hold."""
        if self._names(tree):
            return _NOTHING
        try:
            return self._values(tree)
        except (Fault, DoorwardError, ValueError, RecursionError):
            return _NOTHING

    def _names(self, tree: Any) -> bool:
        """Return whether an expression names the resource."""
        if not isinstance(tree, (Mapping, list)):
            return False
        known = self._naming.get(id(tree))
        if known is None:
            parts = tree.values() if isinstance(tree, Mapping) else tree
            known = self._naming[id(tree)] = tree == _RESOURCE or any(self._names(part) for part in parts)
        return known

    def _binary(self, tree: Mapping[str, Any]) -> Filter:
        ((form, body),) = tree.items()
        if not isinstance(body, Mapping) or set(body) != {"left", "right"}:
            return filters.Unknown(form)
        left, right = body["left"], body["right"]
        if form in _FLIPPED:
            return self._comparison(form, left, right)
        if form == "in" and left == _RESOURCE:
            return self._within(right)
        if form == "hasTag" and left == _RESOURCE and isinstance(name := self._value(right), str):
            return filters.HasTag(name)
        if form in {"contains", "containsAny", "containsAll"}:
            return self._contains(form, left, right)
        return filters.Unknown(form)

    def _within(self, right: Any) -> Filter:
        match self._value(right):
            case EntityUid() as uid:
                return filters.Within(uid)
            case frozenset() as uids if all(isinstance(uid, EntityUid) for uid in uids):
                return disjunction([filters.Within(uid) for uid in sorted(uids)])
        return filters.Unknown("in")

    def _comparison(self, form: str, left: Any, right: Any) -> Filter:
        for form_, one, other in ((form, left, right), (_FLIPPED[form], right, left)):
            value = self._value(other)
            if value is _NOTHING:
                continue
            if (field := _field(one)) is not None:
                return _compared(field, form_, value)
            if one == _RESOURCE and form_ in {"==", "!="} and isinstance(value, EntityUid):
                return filters.Same(value) if form_ == "==" else filters.Not(filters.Same(value))
            if (tag := self._tag(one)) is not None and form_ in {"==", "!="} and isinstance(value, str):
                found = filters.TagIs(tag, value)
                return found if form_ == "==" else filters.Not(found)
        return filters.Unknown(form)

    def _tag(self, tree: Any) -> str | None:
        match tree:
            case {"getTag": {"left": left, "right": right}} if left == _RESOURCE:
                name = self._value(right)
                return name if isinstance(name, str) else None
        return None

    def _contains(self, form: str, left: Any, right: Any) -> Filter:
        field, value = _field(left), self._value(right)
        if field is not None and value is not _NOTHING:
            if form == "contains":
                return filters.Contains(field, value) if _plain(value) else filters.Unknown(form)
            if isinstance(value, frozenset) and value and all(map(_plain, value)):
                each = [filters.Contains(field, one) for one in sorted(value, key=repr)]
                return disjunction(each) if form == "containsAny" else conjunction(each)
        field, values = _field(right), self._value(left)
        if field is not None and isinstance(values, frozenset) and all(map(_plain, values)):
            if form == "contains":
                return filters.OneOf(field, values)
            if form == "containsAll":
                return filters.Inside(field, values)
            if values:
                return disjunction([filters.Contains(field, one) for one in sorted(values, key=repr)])
        return filters.Unknown(form)


def _compared(field: str, form: str, value: Value) -> Filter:
    if isinstance(value, datetime):
        return _timed(field, form, value)
    if _plain(value) or (isinstance(value, frozenset) and all(map(_plain, value))):
        return filters.Compare(field, Comparison(form), value)
    return filters.Unknown(form)


def _timed(field: str, form: str, moment: datetime) -> Filter:
    """Compare with `<` and `>=` only: a moment is known to the microsecond and compared by milliseconds."""
    try:
        after = moment + _MILLISECOND
    except OverflowError:
        return filters.Unknown(form)
    before = filters.Compare(field, Comparison.LESS, moment)
    until = filters.Compare(field, Comparison.LESS, after)
    match form:
        case "<":
            return before
        case "<=":
            return until
        case ">=":
            return filters.Not(before)
        case ">":
            return filters.Not(until)
    same = filters.All((filters.Not(before), until))
    return same if form == "==" else filters.Not(same)


def _plain(value: Any) -> bool:
    return isinstance(value, (bool, int, str, EntityUid))


def _pieces(pattern: Iterable[Any]) -> tuple[str, ...]:
    pieces = [""]
    for part in pattern:
        if part == "Wildcard":
            pieces.append("")
        else:
            pieces[-1] += part["Literal"]
    return tuple(pieces)


def _field(tree: Any) -> str | None:
    match tree:
        case {".": {"left": left, "attr": str(name)}} if left == _RESOURCE:
            return name
    return None


def _side(side: scope.Side) -> Filter:
    parts: list[Filter] = []
    if side.type is not None:
        parts.append(filters.Typed(side.type))
    if side.equal is not None:
        parts.append(filters.Same(side.equal))
    if side.within is not None:
        parts.append(filters.Within(side.within))
    return conjunction(parts)
