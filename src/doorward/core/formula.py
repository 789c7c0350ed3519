"""What a residual says of resources in two values, so that a query of another system can say it.

A filter is true, false, an error, or unknown. A query knows rows it returns and rows it does not.
`bounds` makes two formulas of a residual: rows that are `sure` to be allowed, and rows that it is
`possible` to allow. Where they are the same the query alone is the answer; else what lies between is
decided row by row. Whatever a target cannot express is replaced (`limited`) by true in `possible` and
by false in `sure`: it is never dropped.

INVARIANT: sure => allowed => possible, for resources that fit the schema the policies were validated by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import msgspec

from doorward.core import filters
from doorward.core.filters import Filter, Leaf, Residual
from doorward.core.model import Entity, EntityUid

# A formula with more leaves is not worth a query: every row is decided instead.
MOST_LEAVES = 4000
# Parts that may err nest: so many of them in one chain are left to the row.
MOST_PARTS = 100


class Literal(msgspec.Struct, frozen=True, cache_hash=True):
    """Say that a leaf holds (`positive`) or that it does not hold, which an error does not either."""

    leaf: Leaf
    positive: bool = True


class Both(msgspec.Struct, frozen=True, cache_hash=True):
    """Hold where all parts do."""

    parts: tuple[Formula, ...]


class Either(msgspec.Struct, frozen=True, cache_hash=True):
    """Hold where one part does."""

    parts: tuple[Formula, ...]


Formula: TypeAlias = bool | Literal | Both | Either


class Bounds(msgspec.Struct, frozen=True):
    """Enclose what is allowed; `exact` when both formulas say the same."""

    sure: Formula
    possible: Formula
    exact: bool

    def within(self, expresses: Callable[[Literal], bool]) -> Bounds:
        """Return the bounds as a target can say them that expresses only some literals."""
        sure = limited(self.sure, expresses, otherwise=False)
        possible = limited(self.possible, expresses, otherwise=True)
        return Bounds(sure, possible, sure == possible)


UNDECIDED = Bounds(sure=False, possible=True, exact=False)
NOBODY = Bounds(sure=False, possible=False, exact=True)


class _Reading(msgspec.Struct, frozen=True):
    """State where a filter is true, false and an error for certain; elsewhere it is unknown."""

    true: Formula
    false: Formula
    error: Formula
    known: bool

    @property
    def twofold(self) -> bool:
        """Return whether there is only true and false."""
        return self.known and self.error is False


_UNKNOWN = _Reading(true=False, false=False, error=False, known=False)


def bounds(
    residual: Residual, *, kind: str, always: frozenset[str] = frozenset(), barred: Iterable[Filter] = ()
) -> Bounds:
    """Return what the policies allow among resources of one type.

    `always` are the attributes that every one of them has, `kind` is the full name of the type. What a
    filter of `barred` holds for is not allowed; unlike a forbid, one that errs bars nothing.
    """
    permits = [_read(one, kind, always) for one in residual.permits]
    forbids = [_read(one, kind, always) for one in residual.forbids]
    bars = [_read(one, kind, always) for one in barred]
    free = [either([one.false, one.error]) for one in bars]
    sure = both([either([one.true for one in permits]), *(one.false for one in forbids), *free])
    known = all(one.known for one in (*permits, *forbids, *bars))
    if known:
        possible = sure
    else:
        denied = either([both([either([p.false, p.error]) for p in permits])])
        forbidden = [*(either([one.true, one.error]) for one in forbids), *(one.true for one in bars)]
        possible = opposite(either([denied, *forbidden]))
    if leaves(sure) + leaves(possible) > MOST_LEAVES:
        return UNDECIDED
    return Bounds(sure, possible, sure == possible)


def both(parts: Iterable[Formula]) -> Formula:
    """Return the conjunction, simplified."""
    kept: dict[Formula, None] = {}
    for part in parts:
        if part is False:
            return False
        inner = part.parts if isinstance(part, Both) else (part,)
        kept |= dict.fromkeys(one for one in inner if one is not True)
    # What holds of an attribute says that it is there.
    told = {filters.Has(field) for one in kept if (field := _told(one)) is not None}
    left = tuple(one for one in kept if not (isinstance(one, Literal) and one.positive and one.leaf in told))
    return True if not left else left[0] if len(left) == 1 else Both(left)


def either(parts: Iterable[Formula]) -> Formula:
    """Return the disjunction, simplified."""
    kept: dict[Formula, None] = {}
    for part in parts:
        if part is True:
            return True
        inner = part.parts if isinstance(part, Either) else (part,)
        kept |= dict.fromkeys(one for one in inner if one is not False)
    return False if not kept else next(iter(kept)) if len(kept) == 1 else Either(tuple(kept))


def opposite(one: Formula) -> Formula:
    """Return what holds exactly where a formula does not."""
    match one:
        case Literal(leaf, positive):
            return Literal(leaf, not positive)
        case Both(parts):
            return either(map(opposite, parts))
        case Either(parts):
            return both(map(opposite, parts))
    return not one


def limited(one: Formula, expresses: Callable[[Literal], bool], *, otherwise: bool) -> Formula:
    """Return a formula with `otherwise` in place of every literal that cannot be expressed.

    Literals stand in no negation, so true makes it wider and false makes it narrower.
    """
    match one:
        case Literal():
            return one if expresses(one) else otherwise
        case Both(parts):
            return both(limited(part, expresses, otherwise=otherwise) for part in parts)
        case Either(parts):
            return either(limited(part, expresses, otherwise=otherwise) for part in parts)
    return one


def satisfied(one: Formula, resource: Entity, above: frozenset[EntityUid]) -> bool:
    """Return what a formula says of a resource: the plain reading that renderers are compared with."""
    match one:
        case Literal(leaf, positive):
            return (filters.holds(leaf, resource, above) is True) is positive
        case Both(parts):
            return all(satisfied(part, resource, above) for part in parts)
        case Either(parts):
            return any(satisfied(part, resource, above) for part in parts)
    return one


def _told(one: Formula) -> str | None:
    """Return the attribute that a literal tells something of, where it holds."""
    if not isinstance(one, Literal) or not one.positive or isinstance(one.leaf, filters.Has):
        return None
    return getattr(one.leaf, "field", None)


def leaves(one: Formula) -> int:
    """Return the number of literals."""
    return sum(map(leaves, one.parts)) if isinstance(one, (Both, Either)) else isinstance(one, Literal)


def _read(one: Filter, kind: str, always: frozenset[str]) -> _Reading:  # noqa: PLR0911, C901 -- one case per form
    match one:
        case filters.Constant(value):
            return _Reading(value, not value, error=False, known=True)
        case filters.Unknown():
            return _UNKNOWN
        case filters.Errs():
            return _Reading(true=False, false=False, error=True, known=True)
        case filters.Typed(wanted):
            return _twofold(wanted == kind)
        case filters.Same(uid):
            return _twofold(Literal(one) if uid.type == kind else False)
        case filters.Within() | filters.HasTag():
            return _twofold(Literal(one))
        case filters.Has(field):
            return _twofold(field in always or Literal(one))
        case filters.TagIs(name, _):
            return _partial(one, Literal(filters.HasTag(name)))
        case filters.Not(part):
            inner = _read(part, kind, always)
            return _Reading(inner.false, inner.true, inner.error, inner.known)
        case filters.All(parts):
            return _sequence([_read(part, kind, always) for part in parts])
        case filters.AnyOf(parts):
            swapped = [_read(filters.Not(part), kind, always) for part in parts]
            inner = _sequence(swapped)
            return _Reading(inner.false, inner.true, inner.error, inner.known)
    return _partial(one, one.field in always or Literal(filters.Has(one.field)))


def _twofold(true: Formula) -> _Reading:
    return _Reading(true, opposite(true), error=False, known=True)


def _partial(leaf: Leaf, there: Formula) -> _Reading:
    """Read a leaf that errs where its attribute is not there."""
    return _Reading(Literal(leaf), both([there, Literal(leaf, positive=False)]), opposite(there), known=True)


def _sequence(parts: Sequence[_Reading]) -> _Reading:
    """Read a conjunction from left to right: the first that is not true is the answer.

    Behind a part that is only ever true or false, "false here, or true here and false further on" is
    simply "false here or false further on".
    """
    if len(parts) > MOST_PARTS and not all(part.twofold for part in parts):
        return _UNKNOWN
    false: Formula = False
    error: Formula = False
    for part in reversed(parts):
        false = either([part.false, false if part.twofold else both([part.true, false])])
        error = either([part.error, both([part.true, error])])
    return _Reading(both(part.true for part in parts), false, error, all(part.known for part in parts))
