"""Filters as functions: one type's residual, simplified and composed once, applied to many resources.

Always the same verdict as `core.filters.Residual.verdict`, which is the plain reading of the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from doorward.core import filters
from doorward.core.filters import Comparison, Filter, Residual
from doorward.core.model import Entity, EntityUid

Test = Callable[[Entity, frozenset[EntityUid]], bool | None]
_ALWAYS, _NEVER = filters.Constant(value=True), filters.Constant(value=False)
_MISSING = object()


def verdict_of(residual: Residual, kind: str) -> Test:
    """Return the residual's verdict for resources of one type, as a function."""
    permits = [_composed(one) for one in _specialised(residual.permits, kind)]
    forbids = [_composed(one) for one in _specialised(residual.forbids, kind)]

    def verdict(resource: Entity, above: frozenset[EntityUid]) -> bool | None:
        permitted: bool | None = False
        for permit in permits:
            found = permit(resource, above)
            if found:
                permitted = True
                break
            if found is None:
                permitted = None
        if permitted is False:
            return False
        for forbid in forbids:
            found = forbid(resource, above)
            if found:
                return False
            if found is None:
                permitted = None
        return permitted

    return verdict


def _specialised(parts: Iterable[Filter], kind: str) -> list[Filter]:
    return [one for part in parts if (one := _of_type(part, kind)) != _NEVER]


def _of_type(one: Filter, kind: str) -> Filter:
    """Return a filter as it reads for one type of resources."""
    match one:
        case filters.Typed(wanted):
            return _ALWAYS if wanted == kind else _NEVER
        case filters.Same(uid) if uid.type != kind:
            return _NEVER
        case filters.Not(part):
            return negation(_of_type(part, kind))
        case filters.All(parts):
            return conjunction(_of_type(part, kind) for part in parts)
        case filters.AnyOf(parts):
            return disjunction(_of_type(part, kind) for part in parts)
    return one


def conjunction(parts: Iterable[Filter]) -> Filter:
    """Join parts that must all hold, read left to right."""
    kept: list[Filter] = []
    for part in parts:
        if part == _NEVER:
            kept.append(part)
            break  # what stands right of it is not evaluated; what stands left may still err
        if part != _ALWAYS:
            kept.append(part)
    if kept and kept[0] == _NEVER:
        return _NEVER
    return _ALWAYS if not kept else kept[0] if len(kept) == 1 else filters.All(tuple(kept))


def disjunction(parts: Iterable[Filter]) -> Filter:
    """Join parts of which one must hold, read left to right."""
    kept: list[Filter] = []
    for part in parts:
        if part == _ALWAYS:
            kept.append(part)
            break
        if part != _NEVER:
            kept.append(part)
    if kept and kept[0] == _ALWAYS:
        return _ALWAYS
    return _NEVER if not kept else kept[0] if len(kept) == 1 else filters.AnyOf(tuple(kept))


def negation(part: Filter) -> Filter:
    """Return the opposite of a filter."""
    match part:
        case filters.Constant(value):
            return filters.Constant(value=not value)
    return filters.Not(part)


def _composed(one: Filter) -> Test:  # noqa: PLR0911 -- one per form
    match one:
        case filters.Constant(verdict):
            return lambda _resource, _above: verdict
        case filters.Within(uid):
            return lambda resource, above: uid in above or resource.uid == uid
        case filters.Compare(field, Comparison.EQUAL, value) if not isinstance(value, frozenset):
            return _equal(field, value)
        case filters.OneOf(field, values) if {type(value) for value in values} <= {str, EntityUid}:
            return _one_of(field, values)
        case filters.Contains(field, value) if isinstance(value, (str, EntityUid)):
            return _contains(field, value)
        case filters.Not(part):
            inner = _composed(part)
            return lambda resource, above: None if (v := inner(resource, above)) is None else not v
        case filters.All(parts):
            return _while([_composed(part) for part in parts], going=True)
        case filters.AnyOf(parts):
            return _while([_composed(part) for part in parts], going=False)
    return lambda resource, above: filters.holds(one, resource, above)


def _while(tests: list[Test], *, going: bool) -> Test:
    """Go on while the verdict is `going`; the first that is not is the answer."""

    def test(resource: Entity, above: frozenset[EntityUid]) -> bool | None:
        for one in tests:
            if (verdict := one(resource, above)) is not going:
                return verdict
        return going

    return test


def _equal(field: str, value: object) -> Test:
    kind = type(value)

    def test(resource: Entity, _above: frozenset[EntityUid]) -> bool | None:
        found = resource.attrs.get(field, _MISSING)
        return None if found is _MISSING else type(found) is kind and found == value

    return test


def _one_of(field: str, values: frozenset[object]) -> Test:
    def test(resource: Entity, _above: frozenset[EntityUid]) -> bool | None:
        found = resource.attrs.get(field)
        if found is None:
            return None
        return isinstance(found, (str, EntityUid)) and found in values

    return test


def _contains(field: str, value: object) -> Test:
    def test(resource: Entity, _above: frozenset[EntityUid]) -> bool | None:
        held = resource.attrs.get(field)
        return value in held if isinstance(held, frozenset) else None

    return test
