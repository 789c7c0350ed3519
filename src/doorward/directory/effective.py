"""What holds of an entity: its stated attributes, with defaults, inheritance and derived values."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from doorward.core.model import Entity, EntityUid
from doorward.directory.names import lineage
from doorward.directory.vocabulary import (
    ASSETS,
    DEFAULTS,
    GROUPING,
    MAX_SENSITIVITY,
    NESTING,
    OWN,
    PRINCIPALS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from doorward.core.model import Value

    Lookup = Callable[[EntityUid], Entity | None]

PROJECT: Final = EntityUid.of("Project", "").type
_ENVIRONMENT: Final = EntityUid.of("Environment", "").type
# Full type names: these tests are on the path of every decision.
_PRINCIPALS, _ASSETS, _GROUPING = (
    frozenset(EntityUid.of(kind, "").type for kind in kinds) for kinds in (PRINCIPALS, ASSETS, GROUPING)
)
_KINDS: Final = {EntityUid.of(kind, "").type: kind for kind in (*PRINCIPALS, *ASSETS)}


def principal(raw: Entity, lookup: Lookup) -> Entity:
    """Return a principal with defaults, and with her projects' purposes beside her own."""
    attrs: dict[str, Value] = {**DEFAULTS[_KINDS[raw.uid.type]], **raw.attrs}
    if "purposes" in attrs:
        attrs["purposes"] = _purposes(attrs).union(
            *(_purposes(project.attrs) for project in _projects(raw, lookup))
        )
    return _as_stated(raw, attrs, raw.parents, raw.tags)


def _as_stated(
    raw: Entity, attrs: Mapping[str, Value], parents: frozenset[EntityUid], tags: Mapping[str, str]
) -> Entity:
    """Return an entity that shares with what was stated all that is no different."""
    same = attrs == raw.attrs
    if same and parents == raw.parents and tags == raw.tags:
        return raw
    return Entity(raw.uid, raw.attrs if same else attrs, parents, tags)


def registered_asset(raw: Entity, *, above: Entity | None, lowered: bool, lookup: Lookup) -> Entity:
    """Return a registered asset under what covers it (`above`, itself effective).

    What it states overrides what it inherits, but it is at least as sensitive as what covers it
    unless its owner lowered it on record.
    """
    kind = _KINDS[raw.uid.type]
    inherited = {} if above is None else {k: v for k, v in above.attrs.items() if k not in OWN}
    lies_in = upstream_of(raw.uid)
    attrs: dict[str, Value] = {**DEFAULTS[kind], **_placed(lookup(lies_in)), **inherited, **raw.attrs}
    if above is not None and not lowered:
        attrs["sensitivity"] = max(sensitivity(attrs), sensitivity(above.attrs))
    parents = {*raw.parents, lies_in}
    if isinstance(place := attrs.get("environment"), EntityUid):
        parents.add(place)
    if above is not None:
        parents |= {above.uid} if kind in NESTING else above.parents
    tags = {**above.tags, **raw.tags} if above is not None else raw.tags
    return _as_stated(raw, attrs, frozenset(parents), tags)


def covered_asset(uid: EntityUid, above: Entity) -> Entity:
    """Return an object that is not registered itself: it is what its nearest ancestor is."""
    parents = frozenset({above.uid}) if uid.kind in NESTING else above.parents
    return Entity(uid, above.attrs, parents, above.tags)


def names_above(uid: EntityUid) -> Iterator[EntityUid]:
    """Yield the same kind's names strictly above an asset, nearest first."""
    for name in lineage(uid.id):
        if name != uid.id:
            yield EntityUid(uid.type, name)


def upstream_of(asset: EntityUid) -> EntityUid:
    """Return the upstream an asset lies in: its name's first segment."""
    return _upstream(asset.id.partition("/")[0])


@lru_cache(maxsize=1024)
def _upstream(name: str) -> EntityUid:
    return EntityUid.of("Upstream", name)


def sensitivity(attrs: Mapping[str, Value]) -> int:
    """Return the sensitivity; what is absent or no number counts as the highest."""
    value = attrs.get("sensitivity")
    return value if isinstance(value, int) and not isinstance(value, bool) else MAX_SENSITIVITY


def is_principal(uid: EntityUid) -> bool:
    """Return whether an entity can act."""
    return uid.type in _PRINCIPALS


def is_asset(uid: EntityUid) -> bool:
    """Return whether an entity is governed and covered by name."""
    return uid.type in _ASSETS


def is_grouping(uid: EntityUid) -> bool:
    """Return whether an entity only groups others, and so exists by being named."""
    return uid.type in _GROUPING


def _projects(raw: Entity, lookup: Lookup) -> Iterator[Entity]:
    for parent in raw.parents:
        if parent.type == PROJECT and (project := lookup(parent)) is not None:
            yield project


def _purposes(attrs: Mapping[str, Value]) -> frozenset[Value]:
    value = attrs.get("purposes")
    return value if isinstance(value, frozenset) else frozenset()


def _placed(upstream: Entity | None) -> dict[str, Value]:
    """Return the environment the upstream is configured for, for assets that state none."""
    places = [p for p in upstream.parents if p.type == _ENVIRONMENT] if upstream is not None else []
    return {"environment": places[0]} if len(places) == 1 else {}


def key(uid: EntityUid, subject: EntityUid) -> Entity:
    """Return an API key as a governed object: its subject, under the control of keys."""
    attrs: dict[str, Value] = {"subject": subject} if subject.kind == "User" else {}
    return Entity(uid, attrs, frozenset({EntityUid.of("Control", "keys")}))


def named_in(values: Iterable[Value]) -> Iterator[EntityUid]:
    """Yield every entity that attributes name, in sets and records as well."""
    for value in values:
        if isinstance(value, EntityUid):
            yield value
        elif isinstance(value, frozenset):
            yield from named_in(value)
        elif isinstance(value, Mapping):
            yield from named_in(value.values())
