"""Let equal names and equal sets of parents be one object: most entities name the same few groups."""

from __future__ import annotations

from collections.abc import Mapping
from sys import intern
from typing import Any

from doorward.core.model import Entity, EntityUid, Value

# Names that belong to one entity alone fill the tables too; emptied, they only cost memory.
_MAX_NAMES = 1 << 20
_SHORT = 16
_NOTHING: Mapping[str, Any] = {}


class Names:
    """Names and sets seen before. Shared by versions; nothing depends on what is in it."""

    __slots__ = ("_parents", "_tags", "_texts", "_uids")

    def __init__(self) -> None:
        """Begin with none."""
        self._uids: dict[EntityUid, EntityUid] = {}
        self._parents: dict[frozenset[EntityUid], frozenset[EntityUid]] = {}
        self._tags: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
        self._texts: dict[frozenset[Any], frozenset[Any]] = {}

    def entity(self, stated: Entity) -> Entity:
        """Return an equal entity made of shared parts."""
        return Entity(
            self.uid(stated.uid),
            {intern(str(name)): self._value(value) for name, value in stated.attrs.items()},
            self.parents(stated.parents),
            self._shared_tags(stated.tags) if stated.tags else _NOTHING,
        )

    def uid(self, uid: EntityUid) -> EntityUid:
        """Return the one object for a name."""
        found = self._uids.get(uid)
        if found is None:
            if len(self._uids) >= _MAX_NAMES:
                self._uids.clear()
            found = EntityUid(intern(uid.type), uid.id)
            self._uids[found] = found
        return found

    def parents(self, parents: frozenset[EntityUid]) -> frozenset[EntityUid]:
        """Return the one object for a set of names."""
        found = self._parents.get(parents)
        if found is None:
            if len(self._parents) >= _MAX_NAMES:
                self._parents.clear()
            found = frozenset(map(self.uid, parents))
            self._parents[found] = found
        return found

    def _shared_tags(self, tags: Mapping[str, str]) -> Mapping[str, str]:
        key = tuple(sorted(tags.items()))
        if len(self._tags) >= _MAX_NAMES:
            self._tags.clear()
        return self._tags.setdefault(key, tags)

    def _value(self, value: Value) -> Value:
        if type(value) is EntityUid:
            return self.uid(value)
        if type(value) is str and len(value) <= _SHORT:
            return intern(value)
        # Only texts: sets of true and of 1 are equal here, and are not in Cedar.
        if type(value) is frozenset and all(type(item) is str for item in value):
            if len(self._texts) >= _MAX_NAMES:
                self._texts.clear()
            return self._texts.setdefault(value, value)
        return value
