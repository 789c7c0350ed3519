"""SCIM resources in the directory's words, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from scim2_models import Resource

from doorward.core.errors import InvalidRequestError
from doorward.core.model import EntityUid, Value
from doorward.core.provisioning import Provisioned, Statement
from doorward.directory.registry import Registry

ENTERPRISE: Final = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
POSTURE: Final = "urn:doorward:params:scim:schemas:extension:posture:1.0:Device"
_ENDPOINTS: Final = {"User": "Users", "Group": "Groups", "Device": "Devices"}
# Kept elsewhere, or put together anew each time.
_NOT_KEPT: Final = ("id", "meta", "members", "groups")
_LONGEST: Final = 512


def kept(resource: Resource[Any]) -> dict[str, Any]:
    """Return what of a resource is kept as it was said."""
    document: dict[str, Any] = resource.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {name: value for name, value in document.items() if name not in _NOT_KEPT}


def name_of(kind: str, document: Mapping[str, Any]) -> str:
    """Return what the source calls an object."""
    return str(document.get("userName" if kind == "User" else "displayName") or "")


def facts_of(kind: str, document: Mapping[str, Any], owner: EntityUid | None = None) -> dict[str, Value]:
    """Return the attributes a resource states; raise InvalidRequestError for text no policy can hold."""
    match kind:
        case "User":
            return _person(document)
        case "Device":
            return _device(document, owner)
    return {}


def owner_id(document: Mapping[str, Any]) -> str:
    """Return the id of the person a device belongs to; empty for none."""
    owner = (document.get(POSTURE) or {}).get("owner") or {}
    return str(owner.get("value") or str(owner.get("$ref") or "").rpartition("/")[2])


def _person(document: Mapping[str, Any]) -> dict[str, Value]:
    emails = [email for email in document.get("emails") or () if email.get("value")]
    emails.sort(key=lambda email: email.get("primary") is not True)
    said = {
        "email": emails[0]["value"] if emails else None,
        "department": (document.get(ENTERPRISE) or {}).get("department"),
        "employment": str(document.get("userType") or "").lower() or None,
    }
    # Without a word about it she is in (RFC 7643, 4.1.1): who sends her wants her provisioned.
    return {"active": document.get("active") is not False, **_texts(said)}


def _device(document: Mapping[str, Any], owner: EntityUid | None) -> dict[str, Value]:
    posture = document.get(POSTURE) or {}
    said: dict[str, Value] = {
        "active": document.get("active") is True,
        "managed": posture.get("managed") is True,
        "compliant": posture.get("compliant") is True,
        **_texts({"platform": posture.get("platform")}),
    }
    return said if owner is None else {**said, "owner": owner}


def _texts(said: Mapping[str, str | None]) -> dict[str, Value]:
    for name, text in said.items():
        if text is not None and (len(text) > _LONGEST or not text.isprintable()):
            raise InvalidRequestError(f"`{name}` must be printable text of at most {_LONGEST} characters")
    return {name: text for name, text in said.items() if text}


def payload_of(one: Provisioned, registry: Registry) -> dict[str, Any]:
    """Return the resource of an object as it is now, for the library's model to read."""
    payload: dict[str, Any] = {
        **one.document,
        "id": one.id,
        "meta": {
            "resourceType": one.kind,
            "created": one.created.isoformat(),
            "lastModified": one.modified.isoformat(),
            "version": f'W/"{one.version}"',
        },
    }
    if one.kind == "Group":
        members = sorted(registry.members(one.source, one.uid))
        if members:
            payload["members"] = [_reference(registry, uid) | {"type": uid.kind} for uid in members]
            for member in payload["members"]:
                del member["display"]
    if one.kind == "User":
        groups = _memberships(one, registry)
        if groups:
            payload["groups"] = groups
    return payload


def _memberships(one: Provisioned, registry: Registry) -> list[dict[str, Any]]:
    found: dict[EntityUid, str] = {}
    waiting = [(group, "direct") for group in _groups(one.uid, one.source, registry)]
    while waiting:
        group, how = waiting.pop()
        if group not in found or (how == "direct" and found[group] != "direct"):
            found[group] = how
            waiting += [(above, "indirect") for above in _groups(group, one.source, registry)]
    return [_reference(registry, group) | {"type": how} for group, how in sorted(found.items())]


def _groups(uid: EntityUid, source: str, registry: Registry) -> list[EntityUid]:
    said: Statement | None = registry.stated(uid).get(source)
    return [] if said is None else [parent for parent in said.parents if parent.kind == "Group"]


def _reference(registry: Registry, uid: EntityUid) -> dict[str, Any]:
    one = registry.object_of(uid)
    if one is None:
        return {"display": uid.id}
    return {"value": one.id, "$ref": f"{_ENDPOINTS[uid.kind]}/{one.id}", "display": one.name}
