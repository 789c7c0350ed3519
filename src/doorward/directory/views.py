"""Entities as people and programs read them: plain JSON, memberships by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from doorward.core.model import Entity, EntityUid, Value
from doorward.core.values import to_json
from doorward.directory.effective import upstream_of

if TYPE_CHECKING:
    from doorward.directory.snapshot import Snapshot

_MEMBERSHIPS: Final = {"roles": "Role", "groups": "Group", "projects": "Project"}


def is_called(entity: Entity, name: str | None) -> bool:
    """Return whether a name means this entity: its id alone or in full; None means every one."""
    return name is None or name in {entity.uid.id, str(entity.uid), entity.uid.cedar}


def principal(entity: Entity, snapshot: Snapshot) -> dict[str, Any]:
    """Return a user, service, agent or device with its attributes, memberships and credentials."""
    links = [pair for pair, owner in snapshot.identities.items() if owner == entity.uid]
    return {
        **_head(entity),
        **{key: _names(entity, kind) for key, kind in _MEMBERSHIPS.items()},
        "identities": [{"issuer": issuer, "subject": subject} for issuer, subject in sorted(links)],
        "keys": sorted(key.id for key in snapshot.keys.values() if key.subject == entity.uid),
    }


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
