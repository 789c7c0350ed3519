"""The entities an evaluation may read: checked against the schema once, with all that lies above them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from doorward.cedar import types
from doorward.cedar.data import text_of
from doorward.cedar.schema import EntityRule, Schema
from doorward.core.errors import InvalidRequestError
from doorward.core.model import Entity, EntityUid

Lookup = Callable[[EntityUid], Entity | None]
_NONE: frozenset[EntityUid] = frozenset()


class Node:
    """One entity as the evaluator reads it; `as_principal` and `as_resource` are its signatures.

    `entity` is what it was made of, None where it was read otherwise. `registered` is set by whoever
    found out that it does not only exist by being named.
    """

    __slots__ = ("ancestors", "as_principal", "as_resource", "attrs", "entity", "registered", "tags", "uid")

    def __init__(
        self,
        uid: EntityUid,
        attrs: dict[str, Any],
        tags: dict[str, Any],
        ancestors: frozenset[EntityUid],
        entity: Entity | None = None,
    ) -> None:
        """Keep what is known; the signatures are the index's to fill in."""
        self.uid = uid
        self.attrs = attrs
        self.tags = tags
        self.ancestors = ancestors
        self.entity = entity
        self.registered = False
        self.as_principal: Any = None
        self.as_resource: Any = None


_MAX_CHANGED = 512


class Kept:
    """What worlds of one engine, one version after the other, share.

    A node in `made` is good for as long as its entity and all that lies above it are the very same.
    Those in `nodes` are good in every world that shares them, but for the entities in `changed`.
    """

    __slots__ = ("changed", "made", "nodes")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.made: dict[EntityUid, Node] = {}
        self.nodes: dict[EntityUid, Node | None] = {}
        self.changed: frozenset[EntityUid] = frozenset()

    def after(self, changed: frozenset[EntityUid] | None, schema: Schema) -> Kept:
        """Return what the next world shares; `changed` are the entities that differ, None if unknown."""
        found = Kept()
        found.made = self.made
        if changed is not None and not any(uid.type in schema.holding for uid in changed):
            everything = self.changed | changed
            if len(everything) <= _MAX_CHANGED:
                found.nodes, found.changed = self.nodes, everything
        return found


class World:
    """Entities by name, made from `lookup` when first read and kept within a bound."""

    __slots__ = (
        "_above",
        "_changed",
        "_checked",
        "_limit",
        "_lookup",
        "_made_before",
        "_nodes",
        "_over",
        "_own",
        "_schema",
        "entities",
        "stands_on",
        "strangers",
    )

    def __init__(
        self, lookup: Lookup, schema: Schema | None = None, limit: int = 65_536, kept: Kept | None = None
    ) -> None:
        """Read entities by `lookup`; keep at most `limit` of them ready.

        What the world before this one read is in `kept`, and is used again where it is still the same.
        """
        self._lookup = lookup
        self._schema = schema
        self._limit = limit
        kept = Kept() if kept is None else kept
        self._made_before = kept.made
        self._nodes = kept.nodes
        self._changed = kept.changed
        self._own: dict[EntityUid, Node | None] = {}
        # What was found to fit the schema, with all above it; and what lies above entities of equal parents.
        self._checked: set[EntityUid] = set()
        self._above: dict[frozenset[EntityUid], frozenset[EntityUid]] = {}
        # What entities that lie above others bring along: themselves and all above them.
        self._over: dict[EntityUid, frozenset[EntityUid]] = {}
        self.strangers: dict[EntityUid, Node] = {}
        self.entities: Mapping[EntityUid, Entity] = _View(lookup)
        # The bundle's digest and the entities' version. Decisions on neither get no second look.
        self.stands_on: tuple[str, int] | None = None

    def node(self, uid: EntityUid) -> Node | None:
        """Return an entity, None if there is none; raise InvalidRequestError if it breaks the schema."""
        table = self._own if uid in self._changed else self._nodes
        try:
            return table[uid]
        except KeyError:
            return self._missing(uid, table)

    def above(self, uid: EntityUid) -> frozenset[EntityUid]:
        """Return the ancestors of `uid`; none when there is no such entity."""
        node = self.node(uid)
        return _NONE if node is None else node.ancestors

    def put(self, node: Node) -> None:
        """Keep an entity that was read otherwise."""
        self._nodes[node.uid] = node

    def stranger(self, uid: EntityUid) -> Node:
        """Return what stands for a name in a request that is no entity: nothing is known of it."""
        found = self.strangers.get(uid)
        if found is None:
            rule = None if self._schema is None else self._schema.entities.get(uid.type)
            if rule is not None:
                types.taken(uid, rule.type, "the request")
            text_of(uid.id)
            if len(self.strangers) >= self._limit:
                self.strangers.clear()
            self.strangers[uid] = found = Node(uid, {}, {}, _NONE)
        return found

    def _missing(self, uid: EntityUid, table: dict[EntityUid, Node | None]) -> Node | None:
        action = None if self._schema is None else self._schema.actions.get(uid)
        if action is not None:
            found: Node | None = Node(uid, {}, {}, action.groups)
        else:
            found = self._made(uid)
        if len(table) >= self._limit:
            table.clear()
        table[uid] = found
        return found

    def _made(self, uid: EntityUid) -> Node | None:
        entity = self._lookup(uid)
        if entity is None:
            return None
        if self._schema is None:
            raise InvalidRequestError("there is no schema to check entities against")
        above = self._ancestors(entity, self._schema)
        kept = self._made_before.get(uid)
        if kept is None or kept.entity is not entity:
            attrs, tags = conforming(entity, entity.parents, self._schema)
            made = Node(uid, attrs, tags, above, entity)
        elif kept.ancestors == above:
            return kept
        else:
            # It fits the schema as it did before; what lies above it is new, and was checked.
            made = Node(uid, kept.attrs, kept.tags, above, entity)
        if len(self._made_before) >= self._limit:
            self._made_before.clear()
        self._made_before[uid] = made
        return made

    def _ancestors(self, entity: Entity, schema: Schema) -> frozenset[EntityUid]:
        """Return everything above an entity, checked; found once for all that have the same parents."""
        above = self._above.get(entity.parents)
        if above is None:
            over = self._over
            above = _NONE.union(*[over.get(uid) or self._climbed(uid, schema) for uid in entity.parents])
            if len(self._above) >= self._limit:
                self._above.clear()
            self._above[entity.parents] = above
        if entity.uid in above:
            raise InvalidRequestError(f"`{entity.uid.cedar}` lies above itself")
        return above

    def _climbed(self, uid: EntityUid, schema: Schema) -> frozenset[EntityUid]:
        """Return a parent and everything above it, once all of that was checked."""
        entity = self._lookup(uid)
        if entity is not None:
            conforming(entity, entity.parents, schema)
        self._check_above(uid, schema)
        if len(self._over) >= self._limit:
            self._over.clear()
        self._over[uid] = found = ancestors(uid, self._parents) | {uid}
        return found

    def _check_above(self, start: EntityUid, schema: Schema) -> None:
        """Check everything above an entity, once; raise InvalidRequestError for a circle or what breaks."""
        path: set[EntityUid] = {start}
        waiting = [(start, iter(self._parents(start)))]
        while waiting:
            uid, parents = waiting[-1]
            parent = next(parents, None)
            if parent is None:
                path.discard(uid)
                if len(self._checked) >= self._limit:
                    self._checked.clear()
                self._checked.add(uid)
                waiting.pop()
            elif parent in path:
                raise InvalidRequestError(f"`{parent.cedar}` lies above itself")
            elif parent not in self._checked:
                entity = self._lookup(parent)
                if entity is not None:
                    conforming(entity, entity.parents, schema)
                path.add(parent)
                waiting.append((parent, iter(self._parents(parent))))

    def _parents(self, uid: EntityUid) -> frozenset[EntityUid]:
        entity = self._lookup(uid)
        return _NONE if entity is None else entity.parents


class Overlay(World):
    """A world with one entity more, or another in its place; everything else is read where it lies."""

    __slots__ = ("_base", "_uid")

    def __init__(self, base: World, entity: Entity) -> None:
        """Lay one entity over `base`, which never hears of it."""
        lookup = base._lookup  # noqa: SLF001 -- its own kind
        super().__init__(lambda uid: entity if uid == entity.uid else lookup(uid), base._schema)  # noqa: SLF001 -- as above
        self._base, self._uid = base, entity.uid
        self._checked = base._checked  # noqa: SLF001 -- as above
        self.strangers = base.strangers

    def node(self, uid: EntityUid) -> Node | None:
        """Return an entity, as `World` does."""
        return super().node(uid) if uid == self._uid else self._base.node(uid)


class _View(Mapping[EntityUid, Entity]):
    """The entities as stated, for those who read them one by one."""

    __slots__ = ("_lookup",)

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def __getitem__(self, uid: EntityUid) -> Entity:
        found = self._lookup(uid)
        if found is None:
            raise KeyError(uid)
        return found

    def __iter__(self) -> Iterator[EntityUid]:
        raise TypeError("the entities of a world are read by name")

    def __len__(self) -> int:
        raise TypeError("the entities of a world are not counted")


def ancestors(start: EntityUid, parents: Callable[[EntityUid], frozenset[EntityUid]]) -> frozenset[EntityUid]:
    """Return everything above `start`, at any depth; itself too if it lies in a circle."""
    found: set[EntityUid] = set()
    waiting = [start]
    while waiting:
        for parent in parents(waiting.pop()):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return frozenset(found)


def conforming(
    entity: Entity, above: frozenset[EntityUid], schema: Schema
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return attributes and tags in the evaluator's form; raise InvalidRequestError if they do not fit."""
    rule = rule_of(entity.uid, above, schema)
    attrs = rule.take(entity.attrs, entity.uid)
    if not entity.tags:
        return attrs, _NO_TAGS
    if rule.tags is None:
        raise InvalidRequestError(f"{entity.uid} has tags the schema lacks")
    if rule.tags == types.STRING and all(map(_plain, entity.tags.values())) and all(map(_plain, entity.tags)):
        return attrs, dict(entity.tags) if type(entity.tags) is not dict else entity.tags
    tags = {text_of(name): types.taken(value, rule.tags, "a tag") for name, value in entity.tags.items()}
    return attrs, tags


def _plain(text: object) -> bool:
    return type(text) is str and text.isascii()


_NO_TAGS: dict[str, Any] = {}


def rule_of(uid: EntityUid, above: frozenset[EntityUid], schema: Schema) -> EntityRule:
    """Return the schema's rule for an entity whose name and ancestors fit it; raise if they do not."""
    rule = schema.entities.get(uid.type)
    if rule is None:
        raise InvalidRequestError(f"`{uid.cedar}` has a type the schema lacks")
    _named(uid, rule.type, "an entity")
    for parent in above:
        if parent.type not in rule.above:
            raise InvalidRequestError(f"{parent} cannot lie above {uid}")
        _named(parent, schema.entities[parent.type].type, "an ancestor")
    return rule


def _named(uid: EntityUid, wanted: types.EntityType, where: str) -> None:
    if not uid.id.isascii() if wanted.names is None else uid.id not in wanted.names:
        types.taken(uid, wanted, where)
