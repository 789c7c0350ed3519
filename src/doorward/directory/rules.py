"""What a provisioning source may say, and what its words mean here: read from the settings once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import msgspec

from doorward.core.errors import DeniedError, InvalidRequestError
from doorward.core.model import EntityUid

_LONGEST_NAME = 512


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Bound one source. Nothing here is the source's own to set.

    `issuer` is where its people sign in; without one it links nobody. `roles`, `projects` and
    `clearance` say what membership of a group (by name, nested ones too) is worth here: nothing,
    unless named. `groups` are the patterns of groups it may bring, `adopt` those of names that an
    org file declares and it may take over. Without `govern` nobody governs Doorward by its words.
    `max_age` seconds after a followed source last answered nothing it said counts any more,
    `posture_max_age` seconds after it was said a device's posture does not.
    """

    source: str
    issuer: str = ""
    subject: str = "externalId"
    domain: str = ""
    groups: tuple[str, ...] = ("*",)
    roles: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    projects: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    clearance: Mapping[str, int] = msgspec.field(default_factory=dict)
    adopt: tuple[str, ...] = ()
    max_age: float | None = None
    posture_max_age: float | None = None
    govern: bool = False

    def entity_name(self, name: str) -> str:
        """Return the name somebody gets here: without the organisation's own mail domain."""
        local, separator, domain = name.rpartition("@")
        own = separator and self.domain and domain.casefold() == self.domain.casefold()
        return require_name(local if own else name)

    def may_bring_group(self, name: str) -> bool:
        """Return whether the source may bring a group of this name."""
        return any(fnmatchcase(name, pattern) for pattern in self.groups)

    def may_adopt(self, uid: EntityUid) -> bool:
        """Return whether the source may take over somebody whom a file declares."""
        return any(fnmatchcase(uid.id, pattern) for pattern in self.adopt)

    def link_of(self, *, name: str, external_id: str) -> tuple[str, str] | None:
        """Return the identity somebody signs in with, None if this source links nobody."""
        subject = name if self.subject == "userName" else external_id
        return (self.issuer, subject) if self.issuer and subject else None

    def memberships(self, groups: Iterable[str]) -> frozenset[EntityUid]:
        """Return the roles and projects that groups are worth."""
        named = tuple(groups)
        roles = (EntityUid.of("Role", role) for name in named for role in self.roles.get(name, ()))
        projects = (EntityUid.of("Project", one) for name in named for one in self.projects.get(name, ()))
        return frozenset((*roles, *projects))

    def clearance_of(self, groups: Iterable[str]) -> int | None:
        """Return the highest clearance that groups are worth, None if none is named."""
        levels = [self.clearance[name] for name in groups if name in self.clearance]
        return max(levels) if levels else None


def require_name(name: str) -> str:
    """Return a name that can stand in a policy and a log line; raise InvalidRequestError."""
    if not name or len(name) > _LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise InvalidRequestError(
            f"a name must be printable text of 1 to {_LONGEST_NAME} characters, without space around it"
        )
    return name


def require_group(rules: Rules, name: str) -> str:
    """Return a group's name if the source may bring it; raise DeniedError."""
    if not rules.may_bring_group(require_name(name)):
        raise DeniedError(
            f"{rules.source} may not bring the group `{name}`", hint="List it under `groups` of this source."
        )
    return name
