"""What may be seen under a name: regions of names that share one verdict, whatever objects lie in them.

An object that is not registered is what its nearest registered ancestor is. So the registered names
under a place part it into regions, and within one a policy can tell objects apart only by naming them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from doorward.core import filters
from doorward.core.decision import AccessRequest
from doorward.core.filters import Filter, Residual
from doorward.core.model import EntityUid
from doorward.decisions.point import Standpoint
from doorward.decisions.residual import Allowed
from doorward.directory.vocabulary import ASSETS

# A place with more registered names is not parted: every name is decided by itself.
MOST_REGIONS = 2000
_SOMETHING = "0"
_TYPES = frozenset(EntityUid.of(kind, "").type for kind in ASSETS)


def regions(
    request: AccessRequest,
    standpoint: Standpoint,
    within: str,
    *,
    uid_of: Callable[[str], EntityUid],
    also: Iterable[str] = (),
) -> tuple[tuple[str, bool | None], ...] | None:
    """Return (name, verdict) for a place and each registered name under it, in order of their names.

    The verdict holds for the name and all that lies under it, unless a longer name says otherwise; None:
    decide each. `uid_of` says what a name stands for, `also` are names at which that changes. Returns
    None for a place of too many registered names.
    """
    below = f"{within}/"
    registered = (uid.id for uid in standpoint.snapshot.stated if uid.type in _TYPES)
    names = {within, *(name for name in (*registered, *also) if name.startswith(below))}
    if len(names) > MOST_REGIONS:
        return None
    allowed = Allowed(request, standpoint)
    return tuple((name, _verdict(allowed, standpoint, name, uid_of)) for name in sorted(names))


def _verdict(
    allowed: Allowed, standpoint: Standpoint, name: str, uid_of: Callable[[str], EntityUid]
) -> bool | None:
    masked = Residual(
        tuple(_masked(one, name) for one in allowed.residual.permits),
        tuple(_masked(one, name) for one in allowed.residual.forbids),
    )
    found: set[bool | None] = set()
    for uid, residual in ((uid_of(name), allowed.residual), (_member(standpoint, name, uid_of), masked)):
        known = standpoint.snapshot.resolve(uid) is not None
        found.add(allowed.verdict(uid, residual=residual) if known else False)
    return found.pop() if len(found) == 1 else None


def _member(standpoint: Standpoint, name: str, uid_of: Callable[[str], EntityUid]) -> EntityUid:
    """Return an object under a name that is not registered itself."""
    inner = _SOMETHING
    while (uid := uid_of(f"{name}/{inner}")) in standpoint.snapshot.stated:
        inner += _SOMETHING
    return uid


def _masked(one: Filter, name: str) -> Filter:
    """Return a filter that says nothing where it names an object under a name."""
    match one:
        case filters.Same(uid) | filters.Within(uid) if uid.id.startswith(f"{name}/"):
            return filters.Unknown("some object here is named")
        case filters.Not(part):
            return filters.Not(_masked(part, name))
        case filters.All(parts):
            return filters.All(tuple(_masked(part, name) for part in parts))
        case filters.AnyOf(parts):
            return filters.AnyOf(tuple(_masked(part, name) for part in parts))
    return one
