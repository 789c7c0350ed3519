"""Resources that another system lists: rows of a table, vectors of a store. What may be shown of them.

A resource here is what its row says, and nothing else: no defaults, no inheritance. But the directory
wins: a name it knows, or that something it knows covers, is judged by the directory alone.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from doorward.cedar import types
from doorward.cedar.annotations import obligations
from doorward.cedar.schema import Schema
from doorward.cedar.world import Overlay
from doorward.core.decision import AccessRequest, Decision
from doorward.core.errors import DoorwardError, InvalidRequestError
from doorward.core.feed import PolicyText
from doorward.core.formula import NOBODY, UNDECIDED, bounds
from doorward.core.model import Entity, EntityUid
from doorward.core.obligation import AnyObligation
from doorward.core.shapes import Form, ResourceShape, Shape
from doorward.decisions import together
from doorward.decisions.point import Standpoint
from doorward.decisions.residual import Allowed
from doorward.directory import effective
from doorward.directory.names import lineage

# So many names are listed in a query; more of them are left to the row.
MOST_NAMES = 500
_FORMS = {"Bool": Form.BOOL, "Long": Form.LONG, "String": Form.TEXT, "datetime": Form.MOMENT}


class Listing:
    """One question about many resources of one type, on one standpoint.

    `bounds` is what a query may say of rows that fit `shape`; `names` are the resources it must leave
    to `allows`: those the directory speaks of, at or under a name. None means all of them.
    """

    def __init__(
        self, request: AccessRequest, standpoint: Standpoint, *, keeps: Collection[str] = ()
    ) -> None:
        """Evaluate what does not depend on the resource; of the request's own only the type is read.

        A resource whose obligations are not all among `keeps` (by their `type`) is not allowed.
        Raises InvalidRequestError for a type of resources the schema lacks.
        """
        self._request, self._standpoint, self._keeps = request, standpoint, frozenset(keeps)
        self._kind = kind = request.resource.type
        self.shape = shape_of(standpoint.schema, kind)
        self._missed: set[str] = set()
        self._world = standpoint.world(self._lookup)
        allowed = Allowed(request, standpoint, world=self._world)
        if standpoint.refused(request) is not None or kind not in allowed.types:
            self.bounds = NOBODY
        elif not allowed.fits or effective.is_grouping(request.resource) or not together.is_alone(request):
            self.bounds = UNDECIDED
        else:
            barred = [one for policy, one in allowed.rules if self._unkept(policy)]
            always = self.shape.required
            self.bounds = bounds(allowed.residual, kind=kind, always=always, barred=barred)
        self.names = self._known()

    def allows(self, resource: Entity) -> bool:
        """Decide one resource: by what it says of itself where the directory does not know its name."""
        decision = self.decide(resource)
        return decision.allowed and self._keeps.issuperset(map(_type_of, decision.obligations))

    def decide(self, resource: Entity) -> Decision:
        """Return the whole decision on one resource."""
        asked = msgspec.structs.replace(self._request, resource=resource.uid)
        standpoint = self._standpoint
        if standpoint.snapshot.resolve(resource.uid) is not None:
            return together.judged(asked, standpoint.decide, standpoint.snapshot)[1]
        overlay = Overlay(self._world, resource)
        return together.judged(asked, lambda one: standpoint.decide_in(one, overlay), standpoint.snapshot)[1]

    @property
    def covers(self) -> bool:
        """Return whether the directory's word on a name holds for what lies under it too."""
        return effective.is_asset(self._request.resource)

    def doubted(self, *, prefix: str) -> tuple[str, ...] | None:
        """Return the names, without the prefix all rows share, that a query must leave to `allows`."""
        if self.names is None or (self.covers and not self.names.isdisjoint(_above(prefix))):
            return None
        return tuple(sorted(name[len(prefix) :] for name in self.names if name.startswith(prefix)))

    def under(self, uid: EntityUid, kind: str) -> frozenset[str] | None:
        """Return the names of a type's entities that are `uid` or lie in it; None if nobody can list them."""
        if effective.is_asset(EntityUid(kind, "")):
            return None  # whatever is named below a registered one
        snapshot, found = self._standpoint.snapshot, {uid.id} if uid.type == kind else set[str]()
        try:
            found |= {one.id for one in snapshot.stated if one.type == kind and uid in self._world.above(one)}
        except DoorwardError:
            return None
        return frozenset(found) if len(found) <= MOST_NAMES else None

    def sound(self, kinds: frozenset[str]) -> bool:
        """Return whether every registered entity of these types fits the schema: rows may lie in them."""
        try:
            for uid in self._standpoint.snapshot.stated:
                if uid.type in kinds:
                    self._world.node(uid)
        except DoorwardError:
            return False
        return True

    def _lookup(self, uid: EntityUid) -> Entity | None:
        found = self._standpoint.snapshot.lookup(uid)
        if found is not None or uid.type != self._kind:
            return found
        # A policy, or what it reads, names a resource that only its own row can tell about.
        self._missed.add(uid.id)
        return None

    def _unkept(self, policy: PolicyText) -> bool:
        demanded = map(_type_of, obligations(policy.annotations, policy.id))
        return policy.effect == "permit" and not self._keeps.issuperset(demanded)

    def _known(self) -> frozenset[str] | None:
        stated = (uid.id for uid in self._standpoint.snapshot.stated if uid.type == self._kind)
        names = frozenset((*stated, *self._missed))
        return names if len(names) <= MOST_NAMES else None


def shape_of(schema: Schema, kind: str) -> ResourceShape:
    """Return what a schema says of a type; raise InvalidRequestError if it has no such resources."""
    rule = schema.entities.get(kind)
    if rule is None or rule.type.names is not None:
        raise InvalidRequestError(
            f"the schema has no resources of the type `{kind}`", hint="Write the full name: Shop::order."
        )
    attributes = {name: _shape(field.type, field.required) for name, field in rule.attrs.fields.items()}
    above = {name: schema.entities[name].type.names for name in rule.above}
    return ResourceShape(kind, attributes, above, rule.tags == types.STRING)


def _shape(kind: types.Type, required: bool) -> Shape:  # noqa: FBT001 -- a field's two halves
    match kind:
        case types.Primitive(name):
            return Shape(_FORMS.get(name, Form.OTHER), required)
        case types.EntityType(name, names):
            return Shape(Form.ENTITY, required, name, names)
        case types.SetType(element):
            inner = _shape(element, required=True)
            plain = inner.form in {Form.LONG, Form.TEXT, Form.ENTITY}
            return Shape(Form.SET, required, element=inner) if plain else Shape(Form.OTHER, required)
    return Shape(Form.OTHER, required)


def _type_of(obligation: AnyObligation) -> str:
    return str(msgspec.to_builtins(obligation)["type"])


def _above(prefix: str) -> frozenset[str]:
    """Return the names that cover everything that begins with a prefix."""
    whole = prefix.rpartition("/")[0]
    return frozenset(lineage(whole)) if whole else frozenset()
