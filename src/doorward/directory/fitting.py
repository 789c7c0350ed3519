"""Entities must fit the schema that policies are written for: checked when they are written, not only read.

What is checked is what decisions read (defaults, inheritance and all that lies above included), by the
very code that decisions read it with. So an entity that is in the directory can be evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from doorward.cedar.schema import Schema
from doorward.cedar.world import World
from doorward.core.errors import InvalidConfigError, InvalidPolicyError, InvalidRequestError
from doorward.core.model import Entity, EntityUid
from doorward.directory.yaml_lines import nearest

if TYPE_CHECKING:
    from doorward.directory.snapshot import Snapshot

_KEPT = 4096
_NAMED = 5


class Misfit(msgspec.Struct, frozen=True):
    """Say what of one entity does not fit, and the nearest thing that would."""

    uid: EntityUid
    message: str
    hint: str = ""


class Fitting:
    """One schema, for entities to fit."""

    def __init__(self, text: str) -> None:
        """Read the schema; raise InvalidPolicyError if it cannot be."""
        self.text = text
        try:
            self._schema = Schema.of(text)
        except (ValueError, KeyError, RecursionError) as reason:
            raise InvalidPolicyError(
                f"the schema cannot be read: {reason}", hint="Run `doorward check`."
            ) from reason

    def misfits(self, snapshot: Snapshot, uids: Iterable[EntityUid]) -> Iterator[Misfit]:
        """Yield which of these entities do not fit, in order of their names."""
        world = World(snapshot.lookup, self._schema, _KEPT)
        for uid in sorted(uids):
            try:
                world.node(uid)
            except InvalidRequestError as reason:
                entity = snapshot.lookup(uid)
                yield Misfit(uid, reason.message, "" if entity is None else self._hint(entity))

    def require(
        self, snapshot: Snapshot, uids: Iterable[EntityUid], places: Mapping[EntityUid, str] | None = None
    ) -> None:
        """Raise for the first entity that does not fit: InvalidConfigError with its place, if it has one."""
        for misfit in self.misfits(snapshot, uids):
            place = (places or {}).get(misfit.uid)
            if place is not None:
                raise InvalidConfigError(f"{place}: {misfit.message}", hint=misfit.hint)
            raise InvalidRequestError(misfit.message, hint=misfit.hint)

    def require_all(self, snapshot: Snapshot) -> None:
        """Raise InvalidPolicyError if what is known does not fit: so policies on this schema cannot rule."""
        found = list(self.misfits(snapshot, snapshot.stated))
        if found:
            more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            raise InvalidPolicyError(
                f"{len(found)} of the people and assets do not fit the new schema: "
                + "; ".join(misfit.message for misfit in found[:_NAMED])
                + more,
                hint="Change them first (`doorward apply`), or let the schema allow what they have"
                " (an attribute with `?` may be absent), and save it again.",
            )

    def _hint(self, entity: Entity) -> str:
        """Return the nearest right name for the first wrong one."""
        kind = entity.uid.type
        rule = self._schema.entities.get(kind)
        if rule is None:
            return nearest(kind, self._schema.entities)
        for name in entity.attrs:
            if name not in rule.attrs.fields:
                return nearest(name, rule.attrs.fields)
        above = sorted(EntityUid(name, "").kind for name in rule.above)
        if any(parent.type not in rule.above for parent in entity.parents):
            may = f"only these can: {', '.join(above)}" if above else "nothing can"
            return f"Above a {entity.uid.kind} {may}."
        missing = [name for name, field in rule.attrs.fields.items() if field.required]
        missing = [name for name in missing if name not in entity.attrs]
        return f"State `{missing[0]}`." if missing else ""
