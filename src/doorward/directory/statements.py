"""Several sources speak of one entity: what then holds (docs/decisions/0006).

Out is out: `active`, `managed` and `compliant` hold only if everyone who speaks of them says so and
none of them is out of date. Of risk the highest holds, of clearance the lowest. Anything else is what
the outside source says; a file may add to it, never contradict it. Memberships add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from doorward.core.errors import ConflictError
from doorward.core.model import Entity, EntityUid, Value
from doorward.core.provisioning import ORG, Statement, Statements
from doorward.directory.views import plain
from doorward.directory.vocabulary import MAX_RISK

# What an attribute is worth once nobody vouches for it any more; any other is absent.
RESTRICTIVE: Final[Mapping[str, Value]] = {
    "active": False, "managed": False, "compliant": False, "risk": MAX_RISK, "clearance": 0,
}  # fmt: skip
# What files state does not age.
_ALWAYS: Final = datetime.fromtimestamp(0, UTC)
_ALL_MUST_SAY: Final = frozenset({"active", "managed", "compliant"})


def merged(uid: EntityUid, statements: Statements, now: datetime, vouched: Mapping[str, datetime]) -> Entity:
    """Return the entity that several statements make together at a time.

    `vouched` is when a followed source last answered whole: what it said is then as fresh as that.
    """
    attrs: dict[str, Value] = {}
    parents: set[EntityUid] = set()
    tags: dict[str, str] = {}
    for source in sorted(statements, key=lambda name: (name != ORG, name)):
        statement = statements[source]
        for name, value in _current(statement, now, vouched).items():
            attrs[name] = _stricter(name, attrs[name], value) if name in attrs else value
        parents |= statement.parents
        tags |= statement.tags
    return Entity(uid, attrs, frozenset(parents), tags)


def of_entity(entity: Entity) -> Statement:
    """Return an entity as what files state, for when somebody else speaks of it as well."""
    return Statement(
        uid=entity.uid, source=ORG, seen=_ALWAYS, attrs=entity.attrs, parents=entity.parents, tags=entity.tags
    )


def require_no_contradiction(statements: Statements, place: str) -> None:
    """Raise ConflictError if a file states what an outside source states differently."""
    file = statements.get(ORG)
    for source, statement in statements.items():
        if file is None or source == ORG:
            continue
        for name, value in statement.attrs.items():
            if name not in RESTRICTIVE and name in file.attrs and file.attrs[name] != value:
                raise ConflictError(
                    f"{place}: `{name}` of {statement.uid} is {plain(file.attrs[name])!r} here,"
                    f" and {source} says {plain(value)!r}",
                    hint="What a source provisions is its own to say: take it out of the file.",
                )


def is_stale(statement: Statement, now: datetime, vouched: Mapping[str, datetime]) -> bool:
    """Return whether nobody has vouched for a statement for longer than it may be."""
    seen = max(statement.seen, vouched.get(statement.source, statement.seen))
    return msgspec.structs.replace(statement, seen=seen).stale(now)


def _current(statement: Statement, now: datetime, vouched: Mapping[str, datetime]) -> Mapping[str, Value]:
    if statement.max_age is None or not is_stale(statement, now, vouched):
        return statement.attrs
    return {name: RESTRICTIVE[name] for name in statement.attrs if name in RESTRICTIVE}


def _stricter(name: str, one: Value, other: Value) -> Value:
    if name in _ALL_MUST_SAY:
        return one is True and other is True
    if isinstance(one, int) and isinstance(other, int):
        return max(one, other) if name == "risk" else min(one, other) if name == "clearance" else other
    return other
