"""What sources outside say of people, groups and devices: each statement with its source and its age."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from doorward.core.model import EntityUid, Value

# The source of what org files state.
ORG: Final = "org"


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What one source states of one entity; `parents` are direct memberships.

    `seen` is when the source last said so. Past `max_age` seconds it counts no more (None: never).
    """

    uid: EntityUid
    source: str
    seen: datetime
    attrs: Mapping[str, Value] = msgspec.field(default_factory=dict)
    parents: frozenset[EntityUid] = frozenset()
    tags: Mapping[str, str] = msgspec.field(default_factory=dict)
    max_age: float | None = None

    def stale(self, now: datetime) -> bool:
        """Return whether the statement is older than it may be."""
        return self.max_age is not None and now - self.seen > timedelta(seconds=self.max_age)


Statements = Mapping[str, Statement]


class Vouched(msgspec.Struct, frozen=True):
    """When a followed source last answered whole, and for how many seconds that counts (None: for good)."""

    seen: datetime
    max_age: float | None = None

    def stale(self, now: datetime) -> bool:
        """Return whether nothing the source said counts any more."""
        return self.max_age is not None and now - self.seen > timedelta(seconds=self.max_age)


# (source, kind, id): how a provisioned object is found.
ObjectKey = tuple[str, str, str]


class Provisioned(msgspec.Struct, frozen=True, kw_only=True):
    """One object as its source knows it, bound for good to one entity (`uid`).

    `id` is ours (SCIM) or the server's own unique id (LDAP); `name` is what the source calls it now;
    `link` is the (issuer, subject) it signs in with; `document` is what the source gets back.
    `gone` is when the source deleted it: the name stays taken, so that nobody inherits it.
    """

    source: str
    kind: str
    id: str
    uid: EntityUid
    name: str
    created: datetime
    modified: datetime
    external_id: str = ""
    link: tuple[str, str] | None = None
    document: dict[str, Any] = msgspec.field(default_factory=dict)
    version: int = 1
    gone: datetime | None = None

    @property
    def key(self) -> ObjectKey:
        """Return what finds this object."""
        return (self.source, self.kind, self.id)


class SourceState(msgspec.Struct, frozen=True, kw_only=True):
    """How a directory that is followed stands: when it last answered whole, and where it left off.

    `problem` is what went wrong since, in words for people; empty when nothing did.
    """

    name: str
    seen: datetime | None = None
    cookie: str = ""
    problem: str = ""
    held_back: int = 0
