"""Collect what one source changes, then make one plan of it: pure, from what is held to one delta."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from doorward.core.errors import ConflictError, InvalidRequestError
from doorward.core.feed import Delta
from doorward.core.identity import IdentityLink
from doorward.core.model import Entity, EntityUid, Value
from doorward.core.provisioning import ObjectKey, Provisioned, Statement
from doorward.core.values import entity_to_json, uid_to_json
from doorward.directory import plan as planning
from doorward.directory.plan import Held, Plan
from doorward.directory.registry import folded, groups_of
from doorward.directory.rules import Rules
from doorward.directory.statements import merged, of_entity
from doorward.store.provisioning import ProvisioningChange

_MOST_NAMESAKES = 1000


class MovedOnError(ConflictError):
    """The directory changed since a plan was made: make it again."""


class ProvisionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one source's change would do; `plan.items` are the lines for the record.

    `principals` may stand differently after it. `rebound` existed before and would sign in as
    somebody else, or come under the source for the first time.
    """

    source: str
    plan: Plan
    change: ProvisioningChange
    certificates_revoked: frozenset[str] = frozenset()
    principals: frozenset[EntityUid] = frozenset()
    rebound: frozenset[EntityUid] = frozenset()
    govern: bool = False

    @property
    def empty(self) -> bool:
        """Return whether there is nothing to do."""
        nothing = Delta(version=self.plan.delta.version)
        return self.plan.delta == nothing and self.change == ProvisioningChange()


class Draft:
    """Collect changes of one source; `plan` puts them together. Raises as the single steps say."""

    def __init__(self, held: Held, rules: Rules, now: datetime) -> None:
        """Begin with what is held."""
        self._held, self._rules, self._now = held, rules, now
        self._objects: dict[ObjectKey, Provisioned] = {}
        self._forgotten_objects: set[ObjectKey] = set()
        self._statements: dict[EntityUid, Statement | None] = {}
        self._lie_in: dict[EntityUid, set[EntityUid]] = {}
        self._taken: set[EntityUid] = set()
        self._named: dict[tuple[str, str], str] = {}
        self._adopted: set[EntityUid] = set()
        self._gone: set[EntityUid] = set()
        self._rebound: set[EntityUid] = set()

    # What a source says

    def add(self, wanted: Provisioned, attrs: Mapping[str, Value]) -> Provisioned:
        """Add somebody or something new under a name of its own; return it bound to its entity.

        Raises ConflictError for a name or an identity that is taken.
        """
        bound = replace(wanted, uid=self._entity_for(wanted))
        self._require_free(bound)
        self._taken.add(bound.uid)
        self._forgotten_objects.discard(bound.key)
        return self._keep(bound, attrs, frozenset())

    def change(self, wanted: Provisioned, attrs: Mapping[str, Value]) -> Provisioned:
        """Replace what is said of an object; memberships stay. Raises ConflictError as `add`."""
        before = self.object(wanted.key)
        if before is None or _called(before) != _called(wanted):
            self._require_free(wanted)
        if before is not None and before.link != wanted.link:
            self._rebound.add(wanted.uid)
        said = self._said(wanted.uid)
        return self._keep(wanted, attrs, said.parents if said is not None else frozenset())

    def members(self, group: Provisioned, members: frozenset[EntityUid]) -> None:
        """Say who lies directly in a group."""
        for uid in self._members(group.uid) ^ members:
            said = self._said(uid)
            if said is None:
                raise InvalidRequestError(f"{uid} is not one that {self._rules.source} provisions")
            after = said.parents | {group.uid} if uid in members else said.parents - {group.uid}
            self._state(uid, replace(said, parents=after))

    def remove(self, gone: Provisioned) -> None:
        """Take somebody out for good: inactive, without keys, identities, certificates, memberships.

        A group is no more. The name of anybody else stays taken.
        """
        for group in self._groups_with(gone.uid):
            self._touch(group)
        self._gone.add(gone.uid)
        if gone.kind == "Group":
            self.members(gone, frozenset())
            self._state(gone.uid, None)
            self._objects.pop(gone.key, None)
            self._forgotten_objects.add(gone.key)
            return
        out = Statement(uid=gone.uid, source=self._rules.source, seen=self._now, attrs={"active": False})
        self._state(gone.uid, out)
        self._objects[gone.key] = replace(
            gone, gone=self._now, modified=self._now, document={}, link=None, version=gone.version + 1
        )

    def object(self, key: ObjectKey) -> Provisioned | None:
        """Return an object as it would be after the draft."""
        if key in self._forgotten_objects:
            return None
        return self._objects.get(key) or self._held.registry.objects.get(key)

    # What comes of it

    def plan(self) -> ProvisionPlan:
        """Put everything together; raise InvalidRequestError for a group that would lie in itself."""
        self._require_no_circle()
        affected = self._affected()
        for uid in affected:
            self._map_groups(uid)
        entities, removed = self._entities(affected)
        return self._assembled(entities, removed, affected)

    def _assembled(
        self, entities: list[Entity], removed: list[EntityUid], affected: set[EntityUid]
    ) -> ProvisionPlan:
        held, gone = self._held, self._gone
        snapshot = held.snapshot
        links = self._links()
        certificates = tuple(
            sorted(c.fingerprint for c in snapshot.certificates.values() if c.device in gone)
        )
        keys = tuple(sorted(k.id for k in snapshot.keys.values() if k.subject in gone or k.device in gone))
        delta = Delta(
            version=snapshot.version + 1,
            entities=tuple(entity_to_json(entity) for entity in entities),
            entities_removed=tuple(uid_to_json(uid) for uid in removed),
            keys_removed=keys,
            identities=tuple(IdentityLink(*pair, uid) for pair, uid in sorted(links.put.items())),
            identities_removed=tuple(sorted(links.gone)),
            certificates_removed=certificates,
        )
        items = planning.lines(snapshot, delta, entities, removed)
        said = [one for one in self._statements.values() if one is not None]
        return ProvisionPlan(
            source=self._rules.source,
            plan=Plan(items=items, delta=delta, declared=held.declared - links.gone),
            change=ProvisioningChange(
                statements=(*(of_entity(snapshot.stated[uid]) for uid in sorted(self._adopted)), *said),
                statements_removed=tuple(
                    (uid, self._rules.source) for uid, one in self._statements.items() if one is None
                ),
                objects=tuple(self._objects.values()),
                objects_removed=tuple(sorted(self._forgotten_objects)),
                forgotten=tuple(sorted(uid for uid in gone if uid.kind == "User")),
            ),
            certificates_revoked=frozenset(certificates),
            principals=frozenset(uid for uid in affected if uid.kind in {"User", "Service", "Agent"}),
            rebound=frozenset(self._rebound),
            govern=self._rules.govern,
        )

    # Inside

    def _keep(
        self, wanted: Provisioned, attrs: Mapping[str, Value], parents: frozenset[EntityUid]
    ) -> Provisioned:
        self._objects[wanted.key] = wanted
        self._named[(wanted.kind, folded(wanted.name))] = wanted.id
        said = Statement(
            uid=wanted.uid,
            source=self._rules.source,
            seen=self._now,
            attrs=attrs,
            parents=parents,
            max_age=self._rules.posture_max_age if wanted.kind == "Device" else None,
        )
        self._state(wanted.uid, said)
        return wanted

    def _state(self, uid: EntityUid, said: Statement | None) -> None:
        before, after = groups_of(self._said(uid)), groups_of(said)
        for group in before ^ after:
            lying = self._lie_in.get(group)
            if lying is None:
                lying = self._lie_in[group] = set(self._held.registry.members(self._rules.source, group))
            (lying.add if group in after else lying.discard)(uid)
        self._statements[uid] = said

    def _touch(self, group: EntityUid) -> None:
        key = self._held.registry.object_of(group)
        known = None if key is None else self.object(key.key)
        if known is not None and known.gone is None:
            self._objects[known.key] = replace(known, version=known.version + 1, modified=self._now)

    def _require_free(self, wanted: Provisioned) -> None:
        registry, source = self._held.registry, self._rules.source
        taken = registry.named(source, wanted.kind, wanted.name)
        here = self._named.get((wanted.kind, folded(wanted.name)), wanted.id)
        if here != wanted.id or (taken is not None and taken.id != wanted.id and self._lives(taken)):
            raise ConflictError(f"the name `{wanted.name}` is taken", hint="Names of one kind differ.")
        if wanted.external_id:
            other = registry.by_external_id(source, wanted.kind, wanted.external_id)
            if other is not None and other.id != wanted.id and self._lives(other):
                raise ConflictError("this externalId is another's", hint="It names one object of yours.")
        self._require_free_link(wanted)

    def _require_free_link(self, wanted: Provisioned) -> None:
        owner = self._held.snapshot.principal_of(*wanted.link) if wanted.link is not None else None
        if owner is not None and owner not in self._gone and owner != wanted.uid:
            raise ConflictError(
                f"the identity of `{wanted.name}` is linked to somebody else",
                hint="An administrator unlinks it there first.",
            )

    def _lives(self, one: Provisioned) -> bool:
        now = self.object(one.key)
        return now is not None and now.gone is None

    def _entity_for(self, wanted: Provisioned) -> EntityUid:
        """Return the entity a new object becomes: the same person's of before, or a name nobody has had."""
        name = self._rules.entity_name(wanted.name) if wanted.kind == "User" else wanted.name
        for number in range(1, _MOST_NAMESAKES):
            uid = EntityUid.of(wanted.kind, name if number == 1 else f"{name}#{number}")
            before = self._held.registry.object_of(uid)
            if before is None and uid not in self._taken:
                return self._undeclared(uid)
            if before is not None and self._same_person(before, wanted):
                self._forgotten_objects.add(before.key)
                self._rebound.add(uid)
                return uid
            if before is not None and self._lives(before) and self._called(before, wanted):
                raise ConflictError(f"the name `{wanted.name}` is taken", hint="Names of one kind differ.")
        raise ConflictError(f"too many were called `{name}`", hint="Choose another name.")

    def _called(self, one: Provisioned, wanted: Provisioned) -> bool:
        return one.source != self._rules.source or folded(one.name) == folded(wanted.name)

    def _same_person(self, before: Provisioned, wanted: Provisioned) -> bool:
        return (
            before.gone is not None
            and before.source == self._rules.source
            and (
                before.id == wanted.id
                or (before.external_id != "" and before.external_id == wanted.external_id)
            )
        )

    def _undeclared(self, uid: EntityUid) -> EntityUid:
        if uid not in self._held.snapshot.stated:
            return uid
        if not self._rules.may_adopt(uid):
            raise ConflictError(
                f"{uid} is declared by an org file, and {self._rules.source} may not take it over",
                hint="List it under `adopt` of this source, or take it out of the file.",
            )
        self._adopted.add(uid)
        self._rebound.add(uid)
        return uid

    def _said(self, uid: EntityUid) -> Statement | None:
        if uid in self._statements:
            return self._statements[uid]
        return self._held.registry.stated(uid).get(self._rules.source)

    def _members(self, group: EntityUid) -> frozenset[EntityUid]:
        if group in self._lie_in:
            return frozenset(self._lie_in[group])
        return self._held.registry.members(self._rules.source, group)

    def _groups_with(self, uid: EntityUid) -> list[EntityUid]:
        return sorted(groups_of(self._said(uid)))

    def _above(self, uid: EntityUid) -> set[EntityUid]:
        """Return every group somebody lies in as this source says, nested ones too."""
        found: set[EntityUid] = set()
        waiting = self._groups_with(uid)
        while waiting:
            group = waiting.pop()
            if group not in found:
                found.add(group)
                waiting += self._groups_with(group)
        return found

    def _require_no_circle(self) -> None:
        for uid in self._statements:
            if uid.kind == "Group" and uid in self._above(uid):
                raise InvalidRequestError(
                    f"the group `{uid.id}` would lie in itself", hint="Take one of the nestings out."
                )

    def _affected(self) -> set[EntityUid]:
        """Return whom the change may concern: those spoken of, and all who lie in changed groups."""
        found: set[EntityUid] = set()
        waiting = [*self._statements]
        while waiting:
            uid = waiting.pop()
            if uid not in found:
                found.add(uid)
                if uid.kind == "Group":
                    waiting += self._members(uid)
        return found

    def _map_groups(self, uid: EntityUid) -> None:
        said = self._said(uid)
        if said is None or uid.kind == "Group" or uid in self._gone:
            return
        names = [group.id for group in self._above(uid)]
        direct = groups_of(said)
        worth = self._rules.clearance_of(names) if uid.kind == "User" else None
        attrs: dict[str, Any] = {name: value for name, value in said.attrs.items() if name != "clearance"}
        if worth is not None:
            attrs["clearance"] = worth
        after = replace(said, parents=direct | self._rules.memberships(names), attrs=attrs)
        if after != said:
            self._state(uid, after)

    def _entities(self, affected: Iterable[EntityUid]) -> tuple[list[Entity], list[EntityUid]]:
        stated = self._held.snapshot.stated
        wanted: dict[EntityUid, Entity] = {}
        removed: list[EntityUid] = []
        for uid in sorted(affected):
            statements = dict(self._held.registry.stated(uid))
            if uid in self._adopted:
                statements |= {of_entity(stated[uid]).source: of_entity(stated[uid])}
            said = self._said(uid)
            statements.pop(self._rules.source, None)
            if said is not None:
                statements[self._rules.source] = said
            if statements:
                wanted[uid] = merged(uid, statements, self._now, self._held.vouched)
            elif uid in stated:
                removed.append(uid)
        for entity in tuple(wanted.values()):
            for parent in entity.parents:
                if parent not in stated and parent not in wanted:
                    wanted[parent] = Entity(parent)
        changed = [entity for uid, entity in wanted.items() if stated.get(uid) != entity]
        return changed, removed

    def _links(self) -> _Links:
        put: dict[tuple[str, str], EntityUid] = {}
        gone: set[tuple[str, str]] = set()
        for after in self._objects.values():
            before = self._held.registry.objects.get(after.key)
            old = before.link if before is not None else None
            if old is not None and old != after.link:
                gone.add(old)
            if after.link is not None and self._held.snapshot.principal_of(*after.link) != after.uid:
                put[after.link] = after.uid
        owned = self._held.snapshot.identities
        gone |= {pair for pair, uid in owned.items() if uid in self._gone} if self._gone else set()
        known = {pair for pair in gone if pair in owned}
        return _Links(put, frozenset(known - put.keys()))


def _called(one: Provisioned) -> tuple[str, str, tuple[str, str] | None]:
    return one.name, one.external_id, one.link


class _Links(msgspec.Struct, frozen=True):
    put: dict[tuple[str, str], EntityUid]
    gone: frozenset[tuple[str, str]]
