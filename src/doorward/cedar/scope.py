"""Which policies speak of a request at all: their scopes, matched before anything is evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from doorward.core.model import EntityUid
from doorward.core.obligation import AnyObligation


class Side(msgspec.Struct, frozen=True):
    """What a policy's scope asks of principal or resource; None asks nothing."""

    type: str | None = None
    equal: EntityUid | None = None
    within: EntityUid | None = None

    def matches(self, uid: EntityUid, above: frozenset[EntityUid]) -> bool:
        """Return whether `uid`, whose ancestors are `above`, is meant."""
        return (
            (self.type is None or uid.type == self.type)
            and (self.equal is None or uid == self.equal)
            and (self.within is None or uid == self.within or self.within in above)
        )


class Asks(msgspec.Struct, frozen=True):
    """Say who asks for what: types of principal and resource, and the action."""

    principal: str
    action: EntityUid
    resource: str


class Rule(msgspec.Struct, frozen=True):
    """One policy as the engine holds it; `key` is its name inside the evaluator.

    `reads` are the attributes of the context its conditions name; None when they read it as a whole.
    """

    key: str
    id: str
    forbid: bool
    actions: tuple[EntityUid, ...] | None
    action_within: bool
    principal: Side
    resource: Side
    tree: dict[str, Any]
    annotations: dict[str, str]
    obligations: tuple[AnyObligation, ...] = ()
    guardrail: bool = False
    reads: frozenset[str] | None = frozenset()


def side(scope: Mapping[str, Any]) -> Side:
    """Read one side of a scope; raise ValueError for a form we do not know."""
    match scope:
        case {"op": "All"}:
            return Side()
        case {"op": "==", "entity": entity}:
            return Side(equal=uid(entity))
        case {"op": "in", "entity": entity}:
            return Side(within=uid(entity))
        case {"op": "is", "entity_type": kind, "in": {"entity": entity}}:
            return Side(type=kind, within=uid(entity))
        case {"op": "is", "entity_type": kind, **rest} if not rest:
            return Side(type=kind)
    raise ValueError(f"`{scope}` is no scope")


def actions(scope: Mapping[str, Any]) -> tuple[tuple[EntityUid, ...] | None, bool]:
    """Read the action scope: the actions or groups (None means all), and whether `in` was written."""
    match scope:
        case {"op": "All"}:
            return None, False
        case {"op": "==", "entity": entity}:
            return (uid(entity),), False
        case {"op": "in", "entity": entity}:
            return (uid(entity),), True
        case {"op": "in", "entities": entities}:
            return tuple(uid(entity) for entity in entities), True
    raise ValueError(f"`{scope}` is no action scope")


def context_reads(tree: Any) -> frozenset[str] | None:
    """Return the attributes of the context that an expression names; None when it reads it as a whole."""
    match tree:
        case {"Var": "context"}:
            return None
        case {".": {"left": {"Var": "context"}, "attr": name}} | {
            "has": {"left": {"Var": "context"}, "attr": name}
        }:
            return frozenset({name})
        case dict():
            return _united(tree.values())
        case list():
            return _united(tree)
    return frozenset()


def literals_read(tree: Any) -> Iterator[EntityUid]:
    """Yield the entities a policy names and may read: what stands left of `.`, `has`, `in` or a tag."""
    if isinstance(tree, list):
        for part in tree:
            yield from literals_read(part)
    elif isinstance(tree, dict):
        for form, body in tree.items():
            if form in _READING and isinstance(body, dict) and "left" in body:
                yield from _literals(body["left"])
            yield from literals_read(body)


_READING = frozenset({".", "has", "in", "is", "hasTag", "getTag"})


def _literals(tree: Any) -> Iterator[EntityUid]:
    match tree:
        case {"__entity": {"type": kind, "id": name}}:
            yield EntityUid(kind, name)
        case dict():
            for part in tree.values():
                yield from _literals(part)
        case list():
            for part in tree:
                yield from _literals(part)


def _united(parts: Iterable[Any]) -> frozenset[str] | None:
    names: set[str] = set()
    for part in parts:
        found = context_reads(part)
        if found is None:
            return None
        names |= found
    return frozenset(names)


def uid(data: Mapping[str, Any]) -> EntityUid:
    """Read `{"type", "id"}`."""
    return EntityUid(data["type"], data["id"])


def ancestors(parents: Mapping[EntityUid, Iterable[EntityUid]], start: EntityUid) -> frozenset[EntityUid]:
    """Return everything above `start`; entities that are not there have nothing above them."""
    found: set[EntityUid] = set()
    open_ = [start]
    while open_:
        for parent in parents.get(open_.pop(), ()):
            if parent not in found:
                found.add(parent)
                open_.append(parent)
    return frozenset(found)
