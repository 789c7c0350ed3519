"""Which resources a question allows, as a tree over their attributes: what a list is filtered by.

A filter answers True, False, or None: None means that it cannot tell, and the resource is decided by
itself. So a target that cannot express a part of a tree treats it as `Unknown` and loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

import msgspec

from doorward.core.model import Entity, EntityUid, Value


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


class Errs(Node, frozen=True, tag="errs"):
    """Err for every resource, for certain: no permit permits, every forbid forbids; `why` is for people."""

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


class HasTag(Node, frozen=True, tag="has-tag"):
    """Hold where a tag is set."""

    name: str


class TagIs(Node, frozen=True, tag="tag-is"):
    """Hold where a tag has a value; where it is not set, nothing is said."""

    name: str
    value: str


class Flag(Node, frozen=True, tag="flag"):
    """Be what a boolean attribute is; where it is not known, nothing is said."""

    field: str


class Like(Node, frozen=True, tag="like"):
    """Hold where a text attribute matches: literal pieces, with anything at all between two of them."""

    field: str
    pieces: tuple[str, ...]


class Compare(Node, frozen=True, tag="compare"):
    """Compare an attribute with a constant; where it is not known, nothing is said.

    Moments are compared by `<` only, with whole milliseconds: so cutting them changes nothing.
    """

    field: str
    comparison: Comparison
    value: Value


class Contains(Node, frozen=True, tag="contains"):
    """Hold where a set attribute contains a constant."""

    field: str
    value: Value


class Inside(Node, frozen=True, tag="inside"):
    """Hold where every member of a set attribute is one of some constants."""

    field: str
    values: frozenset[Value]


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


Leaf: TypeAlias = (
    Same | Within | Typed | Has | HasTag | TagIs | Flag | Like | Compare | Contains | Inside | OneOf
)
Filter: TypeAlias = Constant | Unknown | Errs | Leaf | Not | All | AnyOf


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
        case HasTag(name):
            return name in resource.tags
        case TagIs(name, value):
            return resource.tags[name] == value if name in resource.tags else None
        case Flag(field):
            flag = resource.attrs.get(field)
            return flag if isinstance(flag, bool) else None
        case Like(field, pieces):
            text = resource.attrs.get(field)
            return matches(text, pieces) if isinstance(text, str) else None
        case Compare(field, comparison, value):
            return _compared(resource.attrs, field, comparison, value)
        case Contains(field, value):
            held = resource.attrs.get(field)
            return _alike(value) in map(_alike, held) if isinstance(held, frozenset) else None
        case Inside(field, values):
            members = resource.attrs.get(field)
            if not isinstance(members, frozenset):
                return None
            return {*map(_alike, members)} <= {*map(_alike, values)}
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


def matches(text: str, pieces: tuple[str, ...]) -> bool:
    """Return whether a text is these pieces in order, the first at its begin, the last at its end."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return text == first
    at, end = len(first), len(text) - len(last)
    if end < at or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in pieces[1:-1]:
        # The leftmost place for each piece leaves the most room for those after it.
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _compared(attrs: Mapping[str, Value], field: str, comparison: Comparison, value: Value) -> bool | None:  # noqa: PLR0911 -- one per comparison
    if field not in attrs:
        return None
    found = attrs[field]
    match comparison:
        case Comparison.EQUAL:
            return _alike(found) == _alike(value)
        case Comparison.UNEQUAL:
            return _alike(found) != _alike(value)
    if isinstance(found, datetime) and isinstance(value, datetime) and found.tzinfo is not None:
        return found < value if comparison is Comparison.LESS else None
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
