"""A file speaks of what sources outside provision: what holds beside what they say."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from doorward.core.errors import ConflictError
from doorward.core.model import Entity, EntityUid
from doorward.core.provisioning import ORG, Statement
from doorward.directory.org import Org
from doorward.directory.statements import merged, of_entity, require_no_contradiction
from doorward.store.provisioning import ProvisioningChange

if TYPE_CHECKING:
    from doorward.directory.plan import Held
    from doorward.directory.registry import Registry


class Beside(msgspec.Struct, frozen=True):
    """What a file and the sources together make of the entities that both speak of.

    `kept` are entities that pruning leaves alone: their source still speaks of them.
    """

    entities: dict[EntityUid, Entity]
    said: tuple[Statement, ...]
    unsaid: tuple[tuple[EntityUid, str], ...]
    kept: frozenset[EntityUid]
    registry: Registry

    @classmethod
    def of(cls, org: Org, held: Held, now: datetime, *, prune: bool) -> Beside:
        """Put a file's words beside the sources'; raise ConflictError where it contradicts them."""
        registry = held.registry
        entities: dict[EntityUid, Entity] = {}
        said: list[Statement] = []
        for entity in org.entities:
            _require_own_members(org, entity, registry)
            others = {k: v for k, v in registry.stated(entity.uid).items() if k != ORG}
            if others:
                file = of_entity(entity)
                statements = {ORG: file, **others}
                require_no_contradiction(statements, org.places.get(entity.uid, org.source))
                if registry.stated(entity.uid).get(ORG) != file:
                    said.append(file)
                entities[entity.uid] = merged(entity.uid, statements, now, held.vouched)
        named = {entity.uid for entity in org.entities}
        left = _left_out(registry, named) if prune else ()
        for uid in left:
            others = {k: v for k, v in registry.stated(uid).items() if k != ORG}
            entities[uid] = merged(uid, others, now, held.vouched)
        kept = frozenset(uid for uid in registry.statements if _outside(registry, uid))
        return cls(entities, tuple(said), tuple((uid, ORG) for uid in left), kept, registry)

    @property
    def spoken_of(self) -> frozenset[EntityUid]:
        """Return the entities of which the file now says something else beside a source."""
        return frozenset((*(one.uid for one in self.said), *(uid for uid, _ in self.unsaid)))

    def change(self, removed: Iterable[EntityUid]) -> ProvisioningChange:
        """Return what to keep of it."""
        gone = tuple((uid, source) for uid in removed for source in self.registry.stated(uid))
        return ProvisioningChange(statements=self.said, statements_removed=(*self.unsaid, *gone))


def _left_out(registry: Registry, named: set[EntityUid]) -> tuple[EntityUid, ...]:
    """Return what the file used to state beside a source and states no more."""
    return tuple(
        uid
        for uid, statements in registry.statements.items()
        if ORG in statements and uid not in named and _outside(registry, uid)
    )


def _outside(registry: Registry, uid: EntityUid) -> bool:
    """Return whether a source still provisions an entity: not one that it deleted."""
    one = registry.object_of(uid)
    return one is None or one.gone is None


def _require_own_members(org: Org, entity: Entity, registry: Registry) -> None:
    for group in entity.parents:
        one = registry.object_of(group) if group.kind == "Group" else None
        if one is not None and entity.uid not in registry.members(one.source, group):
            raise ConflictError(
                f"{org.places.get(entity.uid, org.source)}: who lies in {group} is for {one.source} to say",
                hint="Add the member there, or use a group of the file's own.",
            )
