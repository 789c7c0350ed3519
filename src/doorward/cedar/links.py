"""Link a template: put entities into its slots, so that the engine meets a policy like any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doorward.core.errors import InvalidPolicyError
from doorward.core.model import EntityUid
from doorward.core.values import uid_to_json


def linked(template: Mapping[str, Any], slots: Mapping[str, EntityUid]) -> dict[str, Any]:
    """Return the template's tree with `?principal` and `?resource` filled in; raise if they do not match."""
    used: set[str] = set()
    sides = {name: _filled(template[name], slots, used) for name in ("principal", "resource")}
    if used != set(slots):
        extra = ", ".join(sorted(set(slots) - used))
        raise InvalidPolicyError(f"the template has no slot {extra}", hint="Give exactly its slots.")
    return {**template, **sides}


def _filled(scope: Mapping[str, Any], slots: Mapping[str, EntityUid], used: set[str]) -> dict[str, Any]:
    filled = dict(scope)
    slot = filled.pop("slot", None)
    if slot is not None:
        if slot not in slots:
            raise InvalidPolicyError(f"the slot {slot} is not filled", hint="Give an entity for it.")
        used.add(slot)
        filled["entity"] = uid_to_json(slots[slot])
    if isinstance(filled.get("in"), Mapping):
        filled["in"] = _filled(filled["in"], slots, used)
    return filled
