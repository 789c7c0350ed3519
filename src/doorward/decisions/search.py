"""Questions with more than one answer: who can, what can, which actions; with one context or with none.

Without a context the answers stand in three groups: always, only if (with the exact condition), never.
They are equal to deciding every point of a stated grid of contexts (`decisions.grid`), and careful
beyond it: what depends on something the grid does not vary is never called `always` or `never`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec

from doorward.core.context import Context
from doorward.core.decision import AccessRequest, Change
from doorward.core.model import EntityUid
from doorward.decisions import together
from doorward.decisions.conditions import Condition, boxes_of, condition_of
from doorward.decisions.grid import Grid, grid_of
from doorward.decisions.point import Standpoint
from doorward.decisions.schema_actions import actions_of

# More contexts than this are not tried one by one: the answer is then "only if", and says so.
MOST_POINTS = 20_000
_MOST_CONDITIONS = 12

Neutral = Callable[[EntityUid], Context]


class Group(StrEnum):
    """Say how far an answer depends on circumstances."""

    ALWAYS = "always"
    ONLY_IF = "only_if"
    NEVER = "never"


class Finding(msgspec.Struct, frozen=True):
    """State when one principal may do one thing; `conditions` are alternatives, each all of its parts.

    `outside` names circumstances that matter and are not among those that were varied.
    """

    principal: EntityUid
    action: EntityUid
    resource: EntityUid
    group: Group
    conditions: tuple[Condition, ...] = ()
    outside: tuple[str, ...] = ()


def when(request: AccessRequest, standpoint: Standpoint) -> Finding:
    """Return under which circumstances a request is allowed; its own context is the neutral one."""
    finding = Finding(request.principal, request.action, request.resource, Group.NEVER)
    touching = set(standpoint.touching(request))
    if not touching:
        return finding
    touching |= _forbids_of_owner(request, standpoint)
    bundle = standpoint.bundle
    grid = grid_of(
        request.principal,
        request.resource,
        trees=[p.tree for p in (*bundle.policies, *bundle.guardrails) if p.id in touching],
        snapshot=standpoint.snapshot,
        neutral=request.context,
    )
    if grid.size > MOST_POINTS:
        return _depends(finding, ("more circumstances than were tried",))
    return _judged(finding, grid, frozenset(allowed_points(request, grid, standpoint)))


def _forbids_of_owner(request: AccessRequest, standpoint: Standpoint) -> set[str]:
    """Return the forbids that an agent on its own is held to because its owner is."""
    if together.is_alone(request):
        return set()
    owners = together.owned_by(request, standpoint.snapshot)
    if owners is None or not standpoint.known(owners):
        return set()
    return {rule.id for rule in standpoint.applicable(owners) if rule.forbid}


def allowed_points(request: AccessRequest, grid: Grid, standpoint: Standpoint) -> Iterator[tuple[int, ...]]:
    """Yield the points of a grid at which a request is allowed, deciding each."""
    for point in grid.points():
        if _allowed(msgspec.structs.replace(request, context=grid.context(point)), standpoint):
            yield point


def who_can(
    action: EntityUid, resource: EntityUid, standpoint: Standpoint, neutral: Neutral
) -> list[Finding]:
    """Return when each known principal may do this, in order of their names."""
    return [
        when(AccessRequest(principal, action, resource, neutral(principal)), standpoint)
        for principal in principals_for(action, standpoint)
    ]


def what_can(principal: EntityUid, standpoint: Standpoint, neutral: Neutral) -> list[Finding]:
    """Return when a principal may do each thing to each registered resource."""
    context = neutral(principal)
    return [
        when(AccessRequest(principal, action, resource, context), standpoint)
        for action, applies in actions_of(standpoint.bundle.schema).items()
        if principal.type in applies.principals
        for resource in registered(standpoint, applies.resources)
    ]


def principals_for(action: EntityUid, standpoint: Standpoint) -> list[EntityUid]:
    """Return the known principals that the schema lets do this action, by name."""
    applies = actions_of(standpoint.bundle.schema).get(action)
    return [] if applies is None else registered(standpoint, applies.principals)


def _allowed(request: AccessRequest, standpoint: Standpoint) -> bool:
    return together.judged(request, standpoint.decide, standpoint.snapshot)[1].allowed


def registered(standpoint: Standpoint, kinds: frozenset[str]) -> list[EntityUid]:
    """Return the registered entities of some types, by name."""
    return sorted(uid for uid in standpoint.snapshot.stated if uid.type in kinds)


def _judged(finding: Finding, grid: Grid, allowed: frozenset[tuple[int, ...]]) -> Finding:
    if grid.outside and len(allowed) in {0, grid.size}:
        return _depends(finding, grid.outside)
    if not allowed:
        return finding
    if len(allowed) == grid.size:
        return msgspec.structs.replace(finding, group=Group.ALWAYS)
    boxes = boxes_of(grid, allowed)
    conditions = tuple(condition_of(grid, box) for box in boxes)
    if len(conditions) > _MOST_CONDITIONS:
        return _depends(finding, grid.outside, conditions[:_MOST_CONDITIONS])
    return msgspec.structs.replace(finding, group=Group.ONLY_IF, conditions=conditions, outside=grid.outside)


def _depends(finding: Finding, outside: tuple[str, ...], conditions: tuple[Condition, ...] = ()) -> Finding:
    more = tuple(Change("", f"depends on {name}") for name in outside)
    alternatives = conditions or ((more,) if more else ())
    return msgspec.structs.replace(finding, group=Group.ONLY_IF, conditions=alternatives, outside=outside)
