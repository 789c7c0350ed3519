"""The attributes of principals and assets: their types, and what holds when one is not stated."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

import msgspec

from doorward.core.model import EntityUid, Value

PRINCIPALS: Final = ("User", "Service", "Agent", "Device")
ASSETS: Final = ("Model", "Dataset", "Endpoint", "Tool")
# Kinds whose schema lets an object lie in another of its kind.
NESTING: Final = frozenset({"Model", "Dataset"})
# Kinds that only group others: a mention is enough for one to exist.
GROUPING: Final = frozenset({"Role", "Group", "Project", "Upstream", "Environment", "Control"})
ENVIRONMENTS: Final = ("development", "training", "testing", "production")
CONTROLS: Final = ("policies", "directory", "keys", "audit", "alerts", "settings")
MAX_SENSITIVITY: Final = 3
MAX_RISK: Final = 100


class Kind(Enum):
    """Say what an attribute holds."""

    BOOL = "true or false"
    LONG = "a whole number"
    STRING = "text"
    STRINGS = "a list of texts"
    DATETIME = "a date or time"
    ENTITY = "a name"


class Attribute(msgspec.Struct, frozen=True):
    """Describe one attribute; `entity` is the referred kind, `bounds` inclusive."""

    kind: Kind
    entity: str = ""
    bounds: tuple[int, int] | None = None
    required: bool = False


Vocabulary = Mapping[str, Mapping[str, Attribute]]

_LEVEL = Attribute(Kind.LONG, bounds=(0, MAX_SENSITIVITY))
_RISK = Attribute(Kind.LONG, bounds=(0, MAX_RISK))
_BOOL, _TEXT, _TEXTS = Attribute(Kind.BOOL), Attribute(Kind.STRING), Attribute(Kind.STRINGS)
_TIME = Attribute(Kind.DATETIME)
_PERSON = Attribute(Kind.ENTITY, entity="User")
_PLACE = Attribute(Kind.ENTITY, entity="Environment")
_WORKLOAD = {
    "active": _BOOL, "owner": _PERSON, "environment": _PLACE, "clearance": _LEVEL,
    "purposes": _TEXTS, "risk": _RISK,
}  # fmt: skip
_ASSET = {"owner": _PERSON, "sensitivity": _LEVEL, "environment": _PLACE}

# The packaged schema's attributes; a test compares them with the schema itself.
PACKAGED: Final[Vocabulary] = MappingProxyType({
    "User": {
        "active": _BOOL, "email": _TEXT, "department": _TEXT, "employment": _TEXT, "clearance": _LEVEL,
        "purposes": _TEXTS, "risk": _RISK, "trained_until": _TIME, "contract_until": _TIME,
    },
    "Service": _WORKLOAD,
    "Agent": {**_WORKLOAD, "owner": Attribute(Kind.ENTITY, entity="User", required=True)},
    "Device": {
        "active": _BOOL, "environment": _PLACE, "clearance": _LEVEL, "risk": _RISK,
        "managed": _BOOL, "compliant": _BOOL, "owner": _PERSON, "platform": _TEXT,
    },
    "Model": {**_ASSET, "stage": _TEXT, "digest": _TEXT, "author": _PERSON, "approver": _PERSON},
    "Dataset": {**_ASSET, "purposes": _TEXTS, "live": _BOOL, "digest": _TEXT},
    "Endpoint": _ASSET,
    "Tool": {**_ASSET, "writes": _BOOL},
})  # fmt: skip


def environment(name: str) -> EntityUid:
    """Return the entity of one environment."""
    return EntityUid.of("Environment", name)


_NOBODY: dict[str, Value] = {"active": True, "clearance": 0, "risk": 0}
# What an unstated attribute means: the value that opens least.
DEFAULTS: Final[Mapping[str, Mapping[str, Value]]] = MappingProxyType({
    "User": {**_NOBODY, "purposes": frozenset(), "employment": "unknown"},
    "Service": {**_NOBODY, "purposes": frozenset(), "environment": environment("development")},
    "Agent": {**_NOBODY, "purposes": frozenset(), "environment": environment("development")},
    "Device": {**_NOBODY, "environment": environment("production"), "managed": False, "compliant": False},
    "Model": {"sensitivity": MAX_SENSITIVITY, "environment": environment("production")},
    "Dataset": {
        "sensitivity": MAX_SENSITIVITY, "environment": environment("production"),
        "purposes": frozenset(), "live": True,
    },
    "Endpoint": {"sensitivity": MAX_SENSITIVITY, "environment": environment("production")},
    "Tool": {"sensitivity": MAX_SENSITIVITY, "environment": environment("production"), "writes": True},
})  # fmt: skip
# What belongs to one object alone: a registered child never takes it from what covers it.
OWN: Final = frozenset({"digest", "stage", "author", "approver"})
