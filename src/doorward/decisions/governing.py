"""Who could govern Doorward: what a change of people by a source outside must not bring about."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec.structs import replace

from doorward.core.context import Context
from doorward.core.decision import AccessRequest
from doorward.core.feed import Delta
from doorward.core.model import Action, Entity, EntityUid
from doorward.core.values import entity_from_json
from doorward.decisions.point import Standpoint
from doorward.directory.vocabulary import CONTROLS

_GOVERN = tuple(
    action.uid
    for action in (
        Action.APPROVE, Action.INSPECT, Action.PROPOSE, Action.PUBLISH, Action.ASSIGN, Action.ISSUE,
        Action.REVIEW, Action.CONTAIN,
    )
)  # fmt: skip
_RESOURCES = tuple(EntityUid.of("Control", name) for name in CONTROLS)
# Whether something is possible at all does not depend on it.
_ANY = Context(now=datetime.fromtimestamp(0, UTC))


def new_governors(
    standpoint: Standpoint, delta: Delta, *, principals: Iterable[EntityUid], rebound: Iterable[EntityUid]
) -> list[EntityUid]:
    """Return who a change would let govern Doorward, under some circumstances, and could not before.

    Who is inactive now counts as if active: being let in again is no new right. `rebound` principals
    would be signed in to as somebody else, so they count if they could govern at all.
    """
    entities = [entity_from_json(document) for document in delta.entities]
    if not entities and not delta.identities:
        return []
    after = standpoint.supposing(_active(entities))
    strangers = frozenset(rebound)
    found: list[EntityUid] = []
    for principal in sorted({*principals, *strangers}):
        rights = _rights(after, principal)
        if rights and (principal in strangers or rights - _rights(_awake(standpoint, principal), principal)):
            found.append(principal)
    return found


def _rights(standpoint: Standpoint, principal: EntityUid) -> frozenset[tuple[EntityUid, EntityUid]]:
    return frozenset(
        (action, resource)
        for action in _GOVERN
        for resource in _RESOURCES
        if standpoint.touching(AccessRequest(principal, action, resource, _ANY))
    )


def _awake(standpoint: Standpoint, principal: EntityUid) -> Standpoint:
    known = standpoint.snapshot.stated.get(principal)
    if known is None or known.attrs.get("active") is not False:
        return standpoint
    return standpoint.supposing(_active([known]))


def _active(entities: Iterable[Entity]) -> list[Entity]:
    return [
        replace(entity, attrs={**entity.attrs, "active": True}) if "active" in entity.attrs else entity
        for entity in entities
    ]
