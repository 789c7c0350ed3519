"""Principal, action, resource, entity: the vocabulary of every room (NIST SP 800-162, Cedar)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface
from typing import TypeAlias

import msgspec

from doorward.core.errors import InvalidRequestError

NAMESPACE = "Doorward"
_UID = re.compile(
    r'(?P<type>[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*)::"(?P<id>(?:[^"\\]|\\.)*)"', re.DOTALL
)
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
_TRANSLATION = str.maketrans(_ESCAPES)
_UNESCAPES = {escaped[1]: raw for raw, escaped in _ESCAPES.items()}


class EntityUid(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """Name one entity: full Cedar type (`Doorward::User`) and id (`dana`)."""

    type: str
    id: str

    def __str__(self) -> str:
        """Return the short form without our namespace: `User::"dana"`."""
        return _short_form(self)

    @property
    def cedar(self) -> str:
        """Return the full Cedar form: `Doorward::User::"dana"`."""
        return f'{self.type}::"{self.id.translate(_TRANSLATION)}"'

    @property
    def kind(self) -> str:
        """Return the type without our namespace: `User`."""
        return self.type.removeprefix(NAMESPACE + "::")

    @classmethod
    def of(cls, kind: str, name: str) -> EntityUid:
        """Build a uid of one of our own types from its short name: `of("User", "dana")`."""
        return cls(f"{NAMESPACE}::{kind}", name)

    @classmethod
    def parse(cls, text: str) -> EntityUid:
        """Read `User::"dana"` or `Doorward::User::"dana"`; raise InvalidRequestError otherwise."""
        match = _UID.fullmatch(text.strip())
        if match is None:
            raise InvalidRequestError(
                f"`{text}` is not an entity name",
                hint='Write a type and a quoted id: User::"dana" (quote it for the shell).',
            )
        kind, raw = match["type"], match["id"]
        name = re.sub(r"\\(.)", lambda m: _UNESCAPES.get(m[1], m[1]), raw, flags=re.DOTALL)
        return cls(kind if "::" in kind else f"{NAMESPACE}::{kind}", name)


# Names come back with every request and every record.
@lru_cache(maxsize=8192)
def _short_form(uid: EntityUid) -> str:
    return f'{uid.type.removeprefix(NAMESPACE + "::")}::"{uid.id.translate(_TRANSLATION)}"'


Scalar: TypeAlias = (
    bool | int | str | EntityUid | datetime | timedelta | Decimal | IPv4Interface | IPv6Interface
)
# A Cedar value in Python: sets are frozensets, records are mappings.
Value: TypeAlias = "Scalar | frozenset[Value] | Mapping[str, Value]"


class Entity(msgspec.Struct, frozen=True):
    """State what is known of one principal or resource; `parents` are direct ancestors only."""

    uid: EntityUid
    attrs: Mapping[str, Value] = msgspec.field(default_factory=dict)
    parents: frozenset[EntityUid] = frozenset()
    tags: Mapping[str, str] = msgspec.field(default_factory=dict)


class Action(StrEnum):
    """Name every action of the domain schema."""

    VIEW = "view"
    INVOKE = "invoke"
    READ = "read"
    TRAIN = "train"
    CALL = "call"
    CREATE = "create"
    MODIFY = "modify"
    DELETE = "delete"
    DEPLOY = "deploy"
    CONFIGURE = "configure"
    APPROVE = "approve"
    INSPECT = "inspect"
    PROPOSE = "propose"
    PUBLISH = "publish"
    ASSIGN = "assign"
    ISSUE = "issue"
    REVIEW = "review"
    CONTAIN = "contain"
    EXPORT = "export"

    @property
    def uid(self) -> EntityUid:
        """Return the action's entity: `Doorward::Action::"view"`."""
        return EntityUid.of("Action", self.value)
