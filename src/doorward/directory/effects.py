"""What holds of the entities of one version, worked out when first asked and carried on to the next.

Versions share what they worked out. An entity's effect is good for as long as everything it was made of
is the very same object; and where only entities changed that no other is made of, not even that is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import is_
from typing import Any

from doorward.core.model import Entity, EntityUid
from doorward.directory import effective
from doorward.directory.interning import Names
from doorward.directory.names import SEPARATOR, is_canonical, lineage
from doorward.directory.shards import Shards

# What holds of an entity, then all that it was made of.
Made = dict[EntityUid, tuple[Any, ...]]
_FEW = 1024
# More entities than this are not kept apart for each version: then all is looked over again.
_MAX_CHANGED = 512


class Effects:
    """Effective entities by name; `names` are those of all versions."""

    __slots__ = ("_changed", "_covering", "_entities", "_lowered", "_made", "_own", "_table", "names")

    def __init__(
        self,
        entities: Shards[EntityUid, Entity],
        lowered: frozenset[str],
        names: Names,
        made: Made | None = None,
    ) -> None:
        """Keep what is stated and which assets are lowered."""
        self._entities, self._lowered, self.names = entities, lowered, names
        self._made: Made = {} if made is None else made
        # Bounded by the number of registered entities. Versions share the table; each has its own for
        # entities that changed since the first of them.
        self._table: dict[EntityUid, Entity] = {}
        self._changed: frozenset[EntityUid] = frozenset()
        self._own: dict[EntityUid, Entity] = {}
        # By type and name of a folder: what its objects are covered by.
        self._covering: dict[tuple[str, str], Entity | None] = {}

    def after(
        self, entities: Shards[EntityUid, Entity], lowered: frozenset[str], changed: frozenset[EntityUid]
    ) -> Effects:
        """Return those of the next version, in which these entities are different."""
        found = Effects(entities, lowered, self.names, self._made)
        everything = self._changed | changed
        if lowered is self._lowered and only_themselves(changed) and len(everything) <= _MAX_CHANGED:
            found._table, found._changed = self._table, everything
        return found

    def of(self, uid: EntityUid) -> Entity | None:
        """Return what holds of a registered entity, None for any other name."""
        table = self._own if uid in self._changed else self._table
        found = table.get(uid)
        if found is None and (raw := self._entities.get(uid)) is not None:
            table[uid] = found = self._worked_out(raw)
        return found

    def nearest_above(self, uid: EntityUid) -> Entity | None:
        """Return what covers a name, itself not counted; found once for all that lie in one folder."""
        folder, _, last = uid.id.rpartition(SEPARATOR)
        # With nothing after the last separator, or two readings, the whole name has its say.
        if not last.isprintable() or not is_canonical(last) or folder.endswith(SEPARATOR):
            return self._registered(effective.names_above(uid))
        key = (uid.type, folder)
        if key not in self._covering:
            if len(self._covering) > len(self._entities) + _FEW:
                self._covering.clear()
            self._covering[key] = self._registered(EntityUid(uid.type, name) for name in lineage(folder))
        return self._covering[key]

    def _registered(self, names: Iterable[EntityUid]) -> Entity | None:
        for name in names:
            if name in self._entities:
                return self.of(name)
        return None

    def _worked_out(self, raw: Entity) -> Entity:
        """Return what holds of an entity: what a version before found, if it was made of the very same."""
        parts = self._parts(raw)
        kept = self._made.get(raw.uid)
        if kept is not None and len(kept) == len(parts) + 1 and all(map(is_, kept[1:], parts)):
            known: Entity = kept[0]
            return known
        found = self._make(raw)
        parents = self.names.parents(found.parents)
        if parents is not found.parents:
            found = Entity(found.uid, found.attrs, parents, found.tags)
        if len(self._made) > 2 * len(self._entities) + _FEW:
            self._made.clear()
        self._made[raw.uid] = found, *parts
        return found

    def _parts(self, raw: Entity) -> tuple[object, ...]:
        """Return all that `_make` reads."""
        if effective.is_principal(raw.uid):
            return raw, *[self._entities.get(uid) for uid in raw.parents if uid.type == effective.PROJECT]
        if effective.is_asset(raw.uid):
            upstream = self._entities.get(effective.upstream_of(raw.uid))
            return raw, upstream, self.nearest_above(raw.uid), self._is_lowered(raw.uid)
        return (raw,)

    def _make(self, raw: Entity) -> Entity:
        if effective.is_principal(raw.uid):
            return effective.principal(raw, self._entities.get)
        if effective.is_asset(raw.uid):
            return effective.registered_asset(
                raw,
                above=self.nearest_above(raw.uid),
                lowered=self._is_lowered(raw.uid),
                lookup=self._entities.get,
            )
        # A project's purposes reach its members; the entity itself has no such attribute.
        attrs = {k: v for k, v in raw.attrs.items() if (raw.uid.kind, k) != ("Project", "purposes")}
        return Entity(raw.uid, attrs, raw.parents, raw.tags)

    def _is_lowered(self, uid: EntityUid) -> bool:
        return bool(self._lowered) and str(uid) in self._lowered


def only_themselves(changed: Iterable[EntityUid]) -> bool:
    """Return whether nothing here is made of these (see `_parts`): what lies in them may still notice."""
    return not any(effective.is_asset(uid) or uid.type in _TAKEN_FROM for uid in changed)


_TAKEN_FROM = frozenset({effective.PROJECT, EntityUid.of("Upstream", "").type})
