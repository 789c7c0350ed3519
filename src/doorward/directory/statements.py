"""Several sources speak of one entity: what then holds (docs/decisions/0006).

Out is out: `active`, `managed` and `compliant` hold only if everyone who speaks of them says so and
none of them is out of date. Of risk the highest holds, of clearance the lowest. Anything else is what
the outside source says; a file may add to it, never contradict it. Memberships add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from doorward.core.errors import ConflictError
from doorward.core.model import Entity, EntityUid, Value
from doorward.core.provisioning import ORG, Statement, Statements, Vouched
from doorward.directory.views import plain
from doorward.directory.vocabulary import MAX_RISK

# What an attribute is worth once nobody vouches for it any more; any other is absent.
RESTRICTIVE: Final[Mapping[str, Value]] = {
    "active": False, "managed": False, "compliant": False, "risk": MAX_RISK, "clearance": 0,
}  # fmt: skip
# What files state does not age.
_ALWAYS: Final = datetime.fromtimestamp(0, UTC)
_ALL_MUST_SAY: Final = frozenset({"active", "managed", "compliant"})


def merged(uid: EntityUid, statements: Statements, now: datetime, vouched: Mapping[str, Vouched]) -> Entity:
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


def shown(statements: Statements, now: datetime, vouched: Mapping[str, Vouched]) -> dict[str, Any]:
    """Return by source what it states, as plain JSON, since when, and whether it still counts."""
    return {
        source: {
            "states": {name: plain(value) for name, value in sorted(one.attrs.items())},
            "in": sorted(str(parent) for parent in one.parents),
            "seen": None if source == ORG else _seen(one, vouched).isoformat(),
            "max_age": one.max_age if source not in vouched else vouched[source].max_age,
            "stale": is_stale(one, now, vouched),
        }
        for source, one in sorted(statements.items())
    }


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


def is_stale(statement: Statement, now: datetime, vouched: Mapping[str, Vouched]) -> bool:
    """Return whether nobody has vouched for a statement for longer than it may be."""
    source = vouched.get(statement.source)
    return statement.stale(now) or (source is not None and source.stale(now))


def _seen(statement: Statement, vouched: Mapping[str, Vouched]) -> datetime:
    source = vouched.get(statement.source)
    return statement.seen if source is None else max(statement.seen, source.seen)


def _current(statement: Statement, now: datetime, vouched: Mapping[str, Vouched]) -> Mapping[str, Value]:
    if not is_stale(statement, now, vouched):
        return statement.attrs
    return {name: RESTRICTIVE[name] for name in statement.attrs if name in RESTRICTIVE}


def _stricter(name: str, one: Value, other: Value) -> Value:
    if name in _ALL_MUST_SAY:
        return one is True and other is True
    if isinstance(one, int) and isinstance(other, int):
        return max(one, other) if name == "risk" else min(one, other) if name == "clearance" else other
    return other
