"""Cedar values <-> Cedar JSON (`__entity`, `__extn`), the one wire form of entities and contexts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

import msgspec

from doorward.core.context import Context, DeviceContext, NetworkContext, RequestContext, SessionContext
from doorward.core.errors import InvalidRequestError
from doorward.core.model import Entity, EntityUid, Value

_MILLISECOND = timedelta(milliseconds=1)
_PARTS = frozenset({DeviceContext, NetworkContext, RequestContext, SessionContext})


_AS_THEY_ARE = frozenset({bool, int, str})


def _extension(function: str, argument: str) -> dict[str, Any]:
    return {"__extn": {"fn": function, "arg": argument}}


def uid_to_json(uid: EntityUid) -> dict[str, str]:
    """Return `{"type", "id"}`, the only form that never passes a parser of escapes."""
    return {"type": uid.type, "id": uid.id}


def uid_from_json(data: Mapping[str, Any]) -> EntityUid:
    """Read `{"type", "id"}`, bare or under `__entity`."""
    inner = data.get("__entity", data)
    return EntityUid(str(inner["type"]), str(inner["id"]))


def to_json(value: Value) -> Any:  # noqa: PLR0911 -- one return per kind of value
    """Return the Cedar JSON of a value; sets come out sorted, so equal values give equal bytes."""
    if type(value) in _AS_THEY_ARE:  # most are: nothing else is asked of them
        return value
    match value:
        case bool() | int() | str():
            return value
        case EntityUid():
            return {"__entity": uid_to_json(value)}
        case datetime():
            utc = value.astimezone(UTC)
            return _extension("datetime", f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z")
        case timedelta():
            return _extension("duration", f"{value // _MILLISECOND}ms")
        case Decimal():
            return _extension("decimal", f"{value:.4f}")
        case IPv4Interface() | IPv6Interface():
            full = value.network.prefixlen == value.max_prefixlen
            return _extension("ip", str(value.ip) if full else str(value))
        case frozenset():
            return sorted((to_json(item) for item in value), key=repr)
        case Mapping():
            return {key: to_json(item) for key, item in sorted(value.items())}
    raise InvalidRequestError(f"a value of type {type(value).__name__} has no Cedar form")


def context_to_json(context: Context) -> dict[str, Any]:
    """Return `to_json(context.to_record())`; whoever asks again for the same context gets the same answer.

    A decision's record and the digest of its inputs both hold it: it is made once.
    """
    known = _last.get("context")
    if known is not None and known[0] is context:
        return known[1]
    made = _struct_to_json(context)
    _last["context"] = (context, made)
    return made


_last: dict[str, tuple[Context, dict[str, Any]]] = {}


def _struct_to_json(struct: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        kind = type(value)
        if kind in _AS_THEY_ARE:
            found[name] = value
        elif kind in _PARTS:
            found[name] = _struct_to_json(value)
        elif value is not None:
            found[name] = to_json(value)
    return found


def _read_extension(call: Mapping[str, Any]) -> Value:
    argument = str(call["arg"])
    match call["fn"]:
        case "datetime":
            return datetime.fromisoformat(argument).astimezone(UTC)
        case "duration" if argument.endswith("ms"):
            return int(argument[:-2]) * _MILLISECOND
        case "decimal":
            return Decimal(argument)
        case "ip":
            return ip_interface(argument)
    raise InvalidRequestError(f"`{call['fn']}({argument})` is not a value Doorward writes")


def from_json(data: Any) -> Value:
    """Read Cedar JSON back into a value; raise InvalidRequestError for floats and nulls."""
    match data:
        case bool() | int() | str():
            return data
        case list():
            return frozenset(from_json(item) for item in data)
        case {"__entity": inner}:
            return uid_from_json(inner)
        case {"__extn": call}:
            return _read_extension(call)
        case dict():
            return {key: from_json(item) for key, item in data.items()}
    raise InvalidRequestError(
        f"`{data!r}` has no Cedar form", hint="Use whole numbers, text, lists, records."
    )


def entity_to_json(entity: Entity) -> dict[str, Any]:
    """Return one entity in Cedar's entities format."""
    document: dict[str, Any] = {
        "uid": uid_to_json(entity.uid),
        "attrs": {key: to_json(value) for key, value in sorted(entity.attrs.items())},
        "parents": [uid_to_json(parent) for parent in sorted(entity.parents)],
    }
    if entity.tags:
        document["tags"] = dict(sorted(entity.tags.items()))
    return document


def entity_from_json(document: Mapping[str, Any]) -> Entity:
    """Read one entity of Cedar's entities format."""
    return Entity(
        uid=uid_from_json(document["uid"]),
        attrs={key: from_json(value) for key, value in document.get("attrs", {}).items()},
        parents=frozenset(uid_from_json(parent) for parent in document.get("parents", ())),
        tags={key: str(value) for key, value in document.get("tags", {}).items()},
    )
