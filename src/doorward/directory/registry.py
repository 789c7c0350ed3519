"""Every provisioned object, found by its source's words or by its entity. Immutable, like a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from doorward.core.model import EntityUid
from doorward.core.provisioning import ObjectKey, Provisioned, Statement, Statements
from doorward.directory.shards import Shards

_NO_STATEMENTS: Statements = {}


def folded(name: str) -> str:
    """Return the form in which names are compared: without case, as SCIM and LDAP do."""
    return name.casefold()


class Registry:
    """Hold provisioned objects and all statements; `changed` makes the next version."""

    __slots__ = ("_by_name", "_by_uid", "_members", "aging", "objects", "statements")

    def __init__(  # noqa: PLR0913, PLR0917 -- one per table; only `of` and `changed` call it
        self,
        objects: Shards[ObjectKey, Provisioned],
        statements: Shards[EntityUid, Statements],
        by_uid: Shards[EntityUid, ObjectKey],
        by_name: Shards[tuple[str, ...], str],
        members: Shards[tuple[str, EntityUid], frozenset[EntityUid]],
        aging: Shards[EntityUid, None],
    ) -> None:
        """Keep the tables; use `of` and `changed`."""
        self.objects, self.statements = objects, statements
        self._by_uid, self._by_name, self._members = by_uid, by_name, members
        # Those of whom something is stated that counts for a time only.
        self.aging = aging

    @classmethod
    def of(cls, objects: Iterable[Provisioned], statements: Iterable[Statement]) -> Registry:
        """Index what was loaded."""
        empty = cls(*(Shards.of({}) for _ in range(6)))
        return empty.changed(objects, statements)

    def changed(
        self,
        objects: Iterable[Provisioned] = (),
        statements: Iterable[Statement] = (),
        removed: Iterable[tuple[EntityUid, str]] = (),
        objects_removed: Iterable[ObjectKey] = (),
    ) -> Registry:
        """Return the registry after a change."""
        new = {one.key: one for one in objects}
        gone = tuple(objects_removed)
        before = [self.objects[key] for key in {*new, *gone} if key in self.objects]
        names = {name: one.id for one in new.values() if one.gone is None for name in _names(one)}
        # One that was gone already gave its name back: it may be another's by now.
        old_names = {name for one in before if one.gone is None for name in _names(one)} - names.keys()
        revived = {one.uid for one in new.values()}
        said = {(one.uid, one.source): one for one in statements}
        unsaid = set(removed)
        return Registry(
            self.objects.changed(new, gone),
            self._restated(said, unsaid),
            self._by_uid.changed(
                {one.uid: one.key for one in new.values()},
                [one.uid for one in before if one.key in gone and one.uid not in revived],
            ),
            self._by_name.changed(names, old_names),
            self._regrouped(said, unsaid),
            self.aging.changed(
                {one.uid: None for one in said.values() if one.max_age is not None},
                {uid for uid, _ in unsaid} - {uid for uid, _ in said},
            ),
        )

    def object_of(self, uid: EntityUid) -> Provisioned | None:
        """Return the object an entity was provisioned as, gone or not."""
        key = self._by_uid.get(uid)
        return None if key is None else self.objects.get(key)

    def named(self, source: str, kind: str, name: str) -> Provisioned | None:
        """Return the object that a source calls by this name now."""
        return self._found(source, kind, self._by_name.get((source, kind, "name", folded(name))))

    def by_external_id(self, source: str, kind: str, external_id: str) -> Provisioned | None:
        """Return the object with this id of the source's own."""
        return self._found(source, kind, self._by_name.get((source, kind, "external", external_id)))

    def of_source(self, source: str, kind: str | None = None) -> Iterator[Provisioned]:
        """Yield the objects of a source that are not gone."""
        for one in self.objects.values():
            if one.source == source and one.gone is None and kind in {None, one.kind}:
                yield one

    def stated(self, uid: EntityUid) -> Statements:
        """Return what is stated of an entity by source; empty when only files ever spoke of it."""
        return self.statements.get(uid, _NO_STATEMENTS)

    def members(self, source: str, group: EntityUid) -> frozenset[EntityUid]:
        """Return who lies directly in a group as a source says."""
        return self._members.get((source, group), frozenset())

    def _found(self, source: str, kind: str, identifier: str | None) -> Provisioned | None:
        return None if identifier is None else self.objects.get((source, kind, identifier))

    def _restated(
        self, said: Mapping[tuple[EntityUid, str], Statement], unsaid: set[tuple[EntityUid, str]]
    ) -> Shards[EntityUid, Statements]:
        after: dict[EntityUid, dict[str, Statement]] = {}
        for uid, source in unsaid:
            after.setdefault(uid, dict(self.stated(uid))).pop(source, None)
        for (uid, source), one in said.items():
            after.setdefault(uid, dict(self.stated(uid)))[source] = one
        return self.statements.changed(
            {uid: by_source for uid, by_source in after.items() if by_source},
            [uid for uid, by_source in after.items() if not by_source],
        )

    def _regrouped(
        self, said: Mapping[tuple[EntityUid, str], Statement], unsaid: set[tuple[EntityUid, str]]
    ) -> Shards[tuple[str, EntityUid], frozenset[EntityUid]]:
        changes: dict[tuple[str, EntityUid], tuple[set[EntityUid], set[EntityUid]]] = {}
        for uid, source in {*said, *unsaid}:
            old = self.stated(uid).get(source)
            new = said.get((uid, source))
            before, after = groups_of(old), groups_of(new)
            for group in before - after:
                changes.setdefault((source, group), (set(), set()))[1].add(uid)
            for group in after - before:
                changes.setdefault((source, group), (set(), set()))[0].add(uid)
        after_all = {
            key: (self._members.get(key, frozenset()) | joined) - left
            for key, (joined, left) in changes.items()
        }
        return self._members.changed(
            {key: who for key, who in after_all.items() if who},
            [key for key, who in after_all.items() if not who],
        )


def groups_of(statement: Statement | None) -> frozenset[EntityUid]:
    """Return the groups somebody lies directly in as a source says."""
    return frozenset() if statement is None else frozenset(u for u in statement.parents if u.kind == "Group")


def _names(one: Provisioned) -> Iterator[tuple[str, ...]]:
    yield (one.source, one.kind, "name", folded(one.name))
    if one.external_id:
        yield (one.source, one.kind, "external", one.external_id)
