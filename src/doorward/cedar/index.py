"""Find the policies of a request: by action, and by what the scopes could see of principal and resource.

Every entity carries, for each side, an interned signature of the scope keys that mention it: its type,
itself where a policy names it, and those of its ancestors that policies name. Requests of equal action
and signatures have the same policies, so finding them again is one dictionary lookup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

from doorward.cedar.schema import Schema
from doorward.cedar.scope import Rule, Side
from doorward.cedar.world import Node
from doorward.core.model import EntityUid

_ID = attrgetter("id")
_MAX_SIGNATURES = 65_536
Key = tuple[str, EntityUid] | str | None


class Signature:
    """What the scopes of one policy set can tell of an entity on one side. Compared by identity."""

    __slots__ = ("keys", "type")

    def __init__(self, type_: str, keys: tuple[Key, ...]) -> None:
        """Keep the type and the keys to look under."""
        self.type = type_
        self.keys = keys


class _SideIndex:
    """One side's mentioned entities and its interned signatures."""

    def __init__(self, sides: Iterable[Side]) -> None:
        found = list(sides)
        self._equal = frozenset(side.equal for side in found if side.equal is not None)
        self._within = frozenset(side.within for side in found if side.within is not None)
        self._signatures: dict[Any, Signature] = {}

    def signature(self, node: Node) -> Signature:
        uid = node.uid
        within = self._within & node.ancestors
        if uid in self._within:
            within |= {uid}
        known = (uid.type, uid if uid in self._equal else None, within)
        found = self._signatures.get(known)
        if found is None:
            if len(self._signatures) >= _MAX_SIGNATURES:
                self._signatures.clear()
            equal: tuple[Key, ...] = (("==", uid),) if uid in self._equal else ()
            found = Signature(uid.type, (None, uid.type, *equal, *(("in", above) for above in within)))
            self._signatures[known] = found
        return found


class Index:
    """All rules, by action, then resource key, then principal key."""

    def __init__(self, rules: Iterable[Rule], schema: Schema) -> None:
        """Sort the rules in; the schema says which actions a group holds."""
        found = list(rules)
        self._principals = _SideIndex(rule.principal for rule in found)
        self._resources = _SideIndex(rule.resource for rule in found)
        self._schema = schema
        self._table: dict[EntityUid | None, dict[Key, dict[Key, list[Rule]]]] = {}
        for rule in found:
            for action in self._actions(rule):
                keys = self._table.setdefault(action, {}).setdefault(_key(rule.resource), {})
                keys.setdefault(_key(rule.principal), []).append(rule)

    def as_principal(self, node: Node) -> Signature:
        """Return the signature of an entity that acts."""
        return self._principals.signature(node)

    def as_resource(self, node: Node) -> Signature:
        """Return the signature of an entity that is acted on."""
        return self._resources.signature(node)

    def rules(self, action: EntityUid, principal: Signature, resource: Signature) -> tuple[Rule, ...]:
        """Return every rule whose scope holds, in the order of their ids."""
        found: list[Rule] = []
        for table in (self._table.get(action), self._table.get(None)):
            if table:
                for key in resource.keys:
                    if (below := table.get(key)) is not None:
                        for other in principal.keys:
                            found += below.get(other, ())
        who, what = (None, principal.type), (None, resource.type)
        found = [rule for rule in found if rule.principal.type in who and rule.resource.type in what]
        found.sort(key=_ID)
        return tuple(found)

    def _actions(self, rule: Rule) -> Iterator[EntityUid | None]:
        if rule.actions is None:
            yield None
            return
        named = frozenset(rule.actions)
        yield from named
        if rule.action_within:
            for action in self._schema.actions.values():
                if action.uid not in named and not named.isdisjoint(action.groups):
                    yield action.uid


def _key(side: Side) -> Key:
    if side.equal is not None:
        return ("==", side.equal)
    if side.within is not None:
        return ("in", side.within)
    return side.type
