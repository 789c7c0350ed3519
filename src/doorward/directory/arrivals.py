"""Take in what identity providers say of people who come in, beside what others say (decision 0005)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from doorward.core.arrival import Arrival
from doorward.core.errors import ConflictError
from doorward.core.feed import Delta
from doorward.core.model import EntityUid, Value
from doorward.core.provisioning import Provisioned, Statement
from doorward.core.values import entity_to_json
from doorward.directory.rules import Rules, require_name

if TYPE_CHECKING:
    from datetime import datetime

    from doorward.directory.administration import Directory
    from doorward.directory.registry import Registry

_log = structlog.get_logger()
# (the change, who stands differently after it, whether she is new): raises if it must not be.
Objection = Callable[[Delta, EntityUid], None]


def settle(
    directory: Directory, arrival: Arrival, *, now: datetime, object_to: Objection
) -> EntityUid | None:
    """Keep what an issuer says of somebody; return who she is, None if she is nobody here.

    Raises ConflictError for somebody whom her source deleted, or for a name that is taken, and what
    `object_to` raises. An identity that is linked stays whose it is; a file's words are never overruled.
    """
    principal = directory.snapshot.principal_of(arrival.issuer, arrival.subject)
    if principal is None:
        if not arrival.provision:
            return None
        principal = _newcomer(directory, arrival, now)
    own = directory.registry.object_of(principal)
    attrs: dict[str, Value] = dict(arrival.attrs)
    if own is not None and own.source == arrival.source:
        attrs["active"] = True
    elif principal.kind != "User":
        attrs = {}
    before = directory.registry.stated(principal).get(arrival.source)
    said = Statement(
        uid=principal,
        source=arrival.source,
        # An older word never replaces a newer one: this one is as new as the one that made her.
        seen=now if before is None else max(now, before.seen),
        attrs=attrs,
        parents=_groups(arrival, directory.registry),
        max_age=arrival.max_age,
    )
    after = directory.foreseen(said)
    if after != directory.snapshot.stated.get(principal):
        delta = Delta(version=directory.snapshot.version + 1, entities=(entity_to_json(after),))
        object_to(delta, principal)
    directory.state(said, operator=arrival.source)
    return principal


def _newcomer(directory: Directory, arrival: Arrival, now: datetime) -> EntityUid:
    """Make somebody new under a name nobody has had; never link an identity to somebody who was there."""
    rules = Rules(source=arrival.source, issuer=arrival.issuer, max_age=arrival.max_age)
    key = (arrival.source, "User", arrival.subject)
    before = directory.registry.objects.get(key)
    if before is not None:
        raise ConflictError(
            f"the identity of {before.uid} was taken away here", hint="An administrator links it again."
        )
    name = require_name(arrival.name or arrival.subject)
    draft = directory.draft(rules)
    wanted = Provisioned(
        source=arrival.source,
        kind="User",
        id=arrival.subject,
        uid=EntityUid.of("User", name),
        name=name,
        created=now,
        modified=now,
        external_id=arrival.subject,
        link=(arrival.issuer, arrival.subject),
    )
    added = draft.add(wanted, {"active": True})
    directory.provision(draft.plan(), operator=arrival.source)
    return added.uid


def _groups(arrival: Arrival, registry: Registry) -> frozenset[EntityUid]:
    """Return the groups she lies in; who lies in another source's group is for that source alone to say."""
    found: set[EntityUid] = set()
    for name in arrival.groups or ():
        group = EntityUid.of("Group", require_name(name))
        owner = registry.object_of(group)
        if owner is not None and owner.source != arrival.source:
            _log.warning("group_of_another_source_passed_over", source=arrival.source, group=name)
            continue
        found.add(group)
    return frozenset(found)
