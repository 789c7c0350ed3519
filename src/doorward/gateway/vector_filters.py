"""A filter as a vector store's query: what may be found at all, said in the store's own words.

`chroma` makes a Chroma `where`; `conditions` makes `must` / `should` / `must_not` as Qdrant and its kin
take them. Each gives a query that lets through at least everything that is allowed, and says whether it
is the answer (`exact`) or what it finds must still be decided record by record.

Bounds speak of records as what they say of themselves: names the directory knows (`Listing.names`) are
the caller's to decide. Metadata is written by whoever adds a record, so nothing proves that it fits the
schema: a query is exact only where its caller vouches for that (`Metadata.fits`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from doorward.core import filters
from doorward.core.filters import Comparison, Leaf
from doorward.core.formula import Both, Bounds, Either, Formula, Literal
from doorward.core.model import EntityUid, Value
from doorward.core.shapes import Form, ResourceShape, Shape

Query = dict[str, Any]
_CHROMA = {
    Comparison.EQUAL: "$eq", Comparison.UNEQUAL: "$ne", Comparison.LESS: "$lt", Comparison.AT_MOST: "$lte",
    Comparison.MORE: "$gt", Comparison.AT_LEAST: "$gte",
}  # fmt: skip
_RANGES = {
    Comparison.LESS: "lt", Comparison.AT_MOST: "lte", Comparison.MORE: "gt", Comparison.AT_LEAST: "gte",
}  # fmt: skip
_OPPOSITE = {
    Comparison.EQUAL: Comparison.UNEQUAL, Comparison.UNEQUAL: Comparison.EQUAL,
    Comparison.LESS: Comparison.AT_LEAST, Comparison.AT_LEAST: Comparison.LESS,
    Comparison.MORE: Comparison.AT_MOST, Comparison.AT_MOST: Comparison.MORE,
}  # fmt: skip
# Ranges are compared as floating-point numbers, which hold every whole number up to this one.
_WHOLE = 2**53


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """Say under which key each attribute stands in a record; what is not named is not known.

    A name stands as its id, a set as an array. With `fits`, every record is known to fit the schema.
    """

    shape: ResourceShape
    keys: Mapping[str, str]
    fits: bool = False

    def form(self, field: str) -> Shape | None:
        """Return what an attribute holds, None for one no record has."""
        return self.shape.attributes.get(field) if field in self.keys else None

    def always(self, field: str) -> bool:
        """Return whether every record that can be allowed has an attribute."""
        form = self.form(field)
        return form is not None and form.required


class VectorFilter(msgspec.Struct, frozen=True):
    """A query; `nothing` when no record is allowed (do not ask), `where` None when nothing is to be said."""

    where: Query | None
    exact: bool
    nothing: bool = False


def chroma(bounds: Bounds, metadata: Metadata) -> VectorFilter:
    """Return a Chroma `where`.

    Versions differ on whether `$ne` finds records without the key: it is used for attributes only that
    every record has. Names, tags, sets, patterns and moments are left to the record.
    """
    return _filter(bounds, metadata, lambda one: _in_chroma(one, metadata), _chroma_joined)


def conditions(bounds: Bounds, metadata: Metadata) -> VectorFilter:
    """Return `must` / `should` / `must_not` conditions on a record's payload."""
    return _filter(bounds, metadata, lambda one: _in_conditions(one, metadata), _conditions_joined)


def _filter(
    bounds: Bounds,
    metadata: Metadata,
    say: Callable[[Literal], Query | bool | None],
    join: Callable[[Formula, Callable[[Literal], Query | bool | None]], Query | bool],
) -> VectorFilter:
    within = bounds.within(lambda one: say(one) is not None)
    said = join(within.possible, say)
    if isinstance(said, bool):
        return VectorFilter(None, exact=not said or (within.exact and metadata.fits), nothing=not said)
    return VectorFilter(said, exact=within.exact and metadata.fits)


def _joined(
    one: Formula, say: Callable[[Literal], Query | bool | None], both: str, either: str
) -> Query | bool:
    """Join with two words; what is true or false by itself disappears."""
    match one:
        case Literal():
            said = say(one)
            return said if said is not None else True
        case Both(parts) | Either(parts):
            neutral = isinstance(one, Both)
            found = [_joined(part, say, both, either) for part in parts]
            if (not neutral) in found:
                return not neutral
            left = [part for part in found if not isinstance(part, bool)]
            word = both if neutral else either
            return neutral if not left else left[0] if len(left) == 1 else {word: left}
    return bool(one)


def _chroma_joined(one: Formula, say: Callable[[Literal], Query | bool | None]) -> Query | bool:
    return _joined(one, say, "$and", "$or")


def _conditions_joined(one: Formula, say: Callable[[Literal], Query | bool | None]) -> Query | bool:
    said = _joined(one, say, "must", "should")
    whole = isinstance(said, bool) or not {"must", "should", "must_not"}.isdisjoint(said)
    return said if whole else {"must": [said]}


def _in_chroma(one: Literal, metadata: Metadata) -> Query | bool | None:
    leaf, positive = one.leaf, one.positive
    known = _known(leaf, metadata)
    if known is not None:
        return known is positive
    field = _field(leaf)
    if not positive and not metadata.always(field):
        return None
    key, shape = metadata.keys.get(field, ""), metadata.form(field)
    match leaf:
        case filters.Flag() if shape is not None and shape.form is Form.BOOL:
            return {key: {"$eq": positive}}
        case filters.Compare(_, comparison, value):
            meant = comparison if positive else _OPPOSITE[comparison]
            stored = _stored(value, shape)
            odd = meant is Comparison.UNEQUAL and not metadata.always(field)
            return None if stored is None or odd else {key: {_CHROMA[meant]: stored}}
        case filters.OneOf(_, values):
            among = _among(values, shape)
            return None if not among else {key: {"$in" if positive else "$nin": among}}
    return None


def _in_conditions(one: Literal, metadata: Metadata) -> Query | bool | None:
    known = _known(one.leaf, metadata)
    if known is not None:
        return known is one.positive
    said = _condition(one.leaf, metadata)
    return said if said is None or one.positive else {"must_not": [said]}


def _condition(leaf: Leaf, metadata: Metadata) -> Query | None:  # noqa: PLR0911 -- one per form
    field = _field(leaf)
    key, shape = metadata.keys.get(field, ""), metadata.form(field)
    if shape is None:
        return None
    match leaf:
        case filters.Has() if shape.form is not Form.SET:
            return {"must_not": [{"is_empty": {"key": key}}]}
        case filters.Flag() if shape.form is Form.BOOL:
            return {"key": key, "match": {"value": True}}
        case filters.Compare(_, comparison, value):
            return _comparison(key, shape, comparison, value)
        case filters.OneOf(_, values):
            among = _among(values, shape)
            return {"key": key, "match": {"any": among}} if among else None
        case filters.Contains(_, value) if shape.element is not None:
            stored = _stored(value, shape.element)
            return None if stored is None else {"key": key, "match": {"value": stored}}
        case filters.Inside(_, values) if shape.element is not None and shape.required:
            among = _among(values, shape.element)
            other: Query = {"match": {"except": among}} if among else {"values_count": {"gt": 0}}
            return {"must_not": [{"key": key, **other}]}
    return None


def _comparison(key: str, shape: Shape, comparison: Comparison, value: Value) -> Query | None:
    stored = _stored(value, shape)
    if stored is None:
        return None
    same: Query = {"key": key, "match": {"value": stored}}
    match comparison:
        case Comparison.EQUAL:
            return same
        case Comparison.UNEQUAL:
            return {"must": [{"must_not": [{"is_empty": {"key": key}}]}, {"must_not": [same]}]}
    whole = type(stored) is int and abs(stored) < _WHOLE
    # The bound and its neighbours are held exactly, so rounding moves no number across it.
    return {"key": key, "range": {_RANGES[comparison]: stored}} if whole else None


def _known(leaf: Leaf, metadata: Metadata) -> bool | None:
    """Return what holds of every record, None where records differ or nothing can be said."""
    match leaf:
        case filters.Typed(kind):
            return kind == metadata.shape.type
        case filters.Same() | filters.Within() | filters.HasTag() | filters.TagIs():
            return None
    if leaf.field not in metadata.keys:
        return False
    return True if isinstance(leaf, filters.Has) and metadata.always(leaf.field) else None


def _field(leaf: Leaf) -> str:
    return (
        ""
        if isinstance(leaf, (filters.Same, filters.Within, filters.Typed))
        else str(getattr(leaf, "field", ""))
    )


def _among(values: frozenset[Value], shape: Shape | None) -> list[Any]:
    found = [_stored(value, shape) for value in values]
    return sorted((one for one in found if one is not None), key=repr)


def _stored(value: Value, shape: Shape | None) -> bool | int | str | None:
    """Return a constant as a record holds it, None for one no record can hold, or not exactly."""
    match shape, value:
        case Shape(form=Form.ENTITY, entity=kind), EntityUid():
            return value.id if value.type == kind else None
        case Shape(form=Form.BOOL), bool():
            return value
        case Shape(form=Form.TEXT), str():
            return value
        case Shape(form=Form.LONG), int() if not isinstance(value, bool):
            return value
    return None
