"""Entities as people and programs read them: plain JSON, memberships by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from doorward.core.errors import InvalidRequestError, NotFoundError
from doorward.core.model import Entity, EntityUid, Value
from doorward.core.values import to_json
from doorward.directory.effective import upstream_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doorward.directory.snapshot import Snapshot

_MEMBERSHIPS: Final = {"roles": "Role", "groups": "Group", "projects": "Project"}


def is_called(entity: Entity, name: str | None) -> bool:
    """Return whether a name means this entity: its id alone or in full; None means every one."""
    return name is None or name in {entity.uid.id, str(entity.uid), entity.uid.cedar}


def position(entity: Entity) -> tuple[str, ...]:
    """Return where an entity stands in lists: by kind, then by name."""
    return entity.uid.kind, entity.uid.id


def only(entities: Iterable[Entity], name: str) -> Entity:
    """Return the one entity of a name; raise NotFoundError, or InvalidRequestError if several have it."""
    found = [entity for entity in entities if is_called(entity, name)]
    if not found:
        raise NotFoundError(f"`{name}` is not known", hint="See the list without a name.")
    if len(found) > 1:
        names = ", ".join(str(entity.uid) for entity in found)
        raise InvalidRequestError(f"`{name}` is the name of {names}", hint="Write one of them in full.")
    return found[0]


def principals(entities: Iterable[Entity], snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return users, services, agents or devices with attributes, memberships and credentials."""
    links: dict[EntityUid, list[tuple[str, str]]] = {}
    for pair, owner in snapshot.identities.items():
        links.setdefault(owner, []).append(pair)
    keys: dict[EntityUid, list[str]] = {}
    for key in snapshot.keys.values():
        keys.setdefault(key.subject, []).append(key.id)
    return [
        {
            **_head(entity),
            **{name: _names(entity, kind) for name, kind in _MEMBERSHIPS.items()},
            "identities": [{"issuer": i, "subject": s} for i, s in sorted(links.get(entity.uid, ()))],
            "keys": sorted(keys.get(entity.uid, ())),
        }
        for entity in entities
    ]


def asset(entity: Entity, snapshot: Snapshot) -> dict[str, Any]:
    """Return an asset with what holds of it, what covers it, and whether it was lowered on record."""
    above = [parent.id for parent in entity.parents if parent.type == entity.uid.type]
    return {
        **_head(entity),
        "projects": _names(entity, "Project"),
        "tags": dict(sorted(entity.tags.items())),
        "upstream": upstream_of(entity.uid).id,
        "covered_by": above[0] if above else None,
        "lowered": str(entity.uid) in snapshot.lowered,
    }


def _head(entity: Entity) -> dict[str, Any]:
    attributes = {name: plain(value) for name, value in sorted(entity.attrs.items())}
    return {"uid": str(entity.uid), "kind": entity.uid.kind, "name": entity.uid.id, **attributes}


def _names(entity: Entity, kind: str) -> list[str]:
    return sorted(parent.id for parent in entity.parents if parent.kind == kind)


def plain(value: Value) -> Any:
    """Return a value as plain JSON: an entity by its id, a time as text, a set as a sorted list."""
    if isinstance(value, EntityUid):
        return value.id
    return _unwrapped(to_json(value))


def _unwrapped(value: Any) -> Any:
    match value:
        case {"__entity": uid}:
            return uid["id"]
        case {"__extn": {"arg": argument}}:
            return argument
        case list():
            return [_unwrapped(item) for item in value]
        case dict():
            return {key: _unwrapped(item) for key, item in value.items()}
    return value
