"""Which resources a question allows, as a tree over their attributes: what a list is filtered by.

A filter answers True, False, or None: None means that it cannot tell, and the resource is decided by
itself. So a target that cannot express a part of a tree treats it as `Unknown` and loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec

from doorward.core.model import Entity, EntityUid, Value

Above = Callable[[Entity], frozenset[EntityUid]]


class Comparison(StrEnum):
    """Name the comparisons of an attribute with a constant."""

    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


class Node(msgspec.Struct, frozen=True, tag_field="kind"):
    """Base of all filters."""


class Constant(Node, frozen=True, tag="constant"):
    """Hold for every resource, or for none."""

    value: bool


class Unknown(Node, frozen=True, tag="unknown"):
    """Say nothing: the resource must be decided by itself; `why` is for people."""

    why: str


class Same(Node, frozen=True, tag="same"):
    """Hold for one resource."""

    uid: EntityUid


class Within(Node, frozen=True, tag="within"):
    """Hold for an entity and everything that lies in it."""

    uid: EntityUid


class Typed(Node, frozen=True, tag="typed"):
    """Hold for the resources of one type."""

    type: str


class Has(Node, frozen=True, tag="has"):
    """Hold where an attribute is known."""

    field: str


class Compare(Node, frozen=True, tag="compare"):
    """Compare an attribute with a constant; where it is not known, nothing is said."""

    field: str
    comparison: Comparison
    value: Value


class Contains(Node, frozen=True, tag="contains"):
    """Hold where a set attribute contains a constant."""

    field: str
    value: Value


class OneOf(Node, frozen=True, tag="one-of"):
    """Hold where an attribute is one of some constants."""

    field: str
    values: frozenset[Value]


class Not(Node, frozen=True, tag="not"):
    """Hold where the part does not."""

    part: Filter


class All(Node, frozen=True, tag="all"):
    """Hold where all parts do. Read left to right: the first that is not True is the answer."""

    parts: tuple[Filter, ...]


class AnyOf(Node, frozen=True, tag="any"):
    """Hold where one part does. Read left to right: the first that is not False is the answer."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = (
    Constant | Unknown | Same | Within | Typed | Has | Compare | Contains | OneOf | Not | All | AnyOf
)


class Residual(msgspec.Struct, frozen=True):
    """What is left of a set of policies: permits and forbids, each a filter."""

    permits: tuple[Filter, ...] = ()
    forbids: tuple[Filter, ...] = ()

    def verdict(self, resource: Entity, above: frozenset[EntityUid]) -> bool | None:
        """Return whether the policies allow the resource whose ancestors are `above`; None: decide it."""
        forbidden = [holds(one, resource, above) for one in self.forbids]
        if True in forbidden:
            return False
        permitted = [holds(one, resource, above) for one in self.permits]
        if not any(verdict is not False for verdict in permitted):
            return False
        return True if True in permitted and None not in forbidden else None


def holds(one: Filter, resource: Entity, above: frozenset[EntityUid]) -> bool | None:  # noqa: PLR0911, PLR0912, C901 -- one case per form
    """Return whether a filter holds for a resource; None when it cannot tell."""
    match one:
        case Constant(value):
            return value
        case Same(uid):
            return resource.uid == uid
        case Within(uid):
            return resource.uid == uid or uid in above
        case Typed(kind):
            return resource.uid.type == kind
        case Has(field):
            return field in resource.attrs
        case Compare(field, comparison, value):
            return _compared(resource.attrs, field, comparison, value)
        case Contains(field, value):
            held = resource.attrs.get(field)
            return _alike(value) in map(_alike, held) if isinstance(held, frozenset) else None
        case OneOf(field, values):
            found = resource.attrs.get(field)
            return None if found is None else _alike(found) in map(_alike, values)
        case Not(part):
            inner = holds(part, resource, above)
            return None if inner is None else not inner
        case All(parts):
            for part in parts:
                if (verdict := holds(part, resource, above)) is not True:
                    return verdict
            return True
        case AnyOf(parts):
            for part in parts:
                if (verdict := holds(part, resource, above)) is not False:
                    return verdict
            return False
    return None


def _compared(attrs: Mapping[str, Value], field: str, comparison: Comparison, value: Value) -> bool | None:  # noqa: PLR0911 -- one per comparison
    if field not in attrs:
        return None
    found = attrs[field]
    match comparison:
        case Comparison.EQUAL:
            return _alike(found) == _alike(value)
        case Comparison.UNEQUAL:
            return _alike(found) != _alike(value)
    if type(found) is not int or type(value) is not int:
        return None
    match comparison:
        case Comparison.LESS:
            return found < value
        case Comparison.AT_MOST:
            return found <= value
        case Comparison.MORE:
            return found > value
    return found >= value


def _alike(value: Value) -> object:
    """Return something equal exactly when Cedar says so: true and 1 are different."""
    if isinstance(value, frozenset):
        return ("set", frozenset(map(_alike, value)))
    if isinstance(value, Mapping):
        return ("record", frozenset((name, _alike(item)) for name, item in value.items()))
    return (type(value).__name__, value)
