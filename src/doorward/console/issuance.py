"""What issuing keys, tokens and certificates share: whom they are for, and the record that comes first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from doorward.console.acts import act_of
from doorward.console.authorise import Actor, request_id
from doorward.core.errors import ConflictError, DeniedError, InvalidRequestError, NotFoundError
from doorward.core.model import Action, EntityUid

if TYPE_CHECKING:
    from fastapi import Request

    from doorward.console.services import Services
    from doorward.directory.snapshot import Snapshot


def named(snapshot: Snapshot, kind: str, name: str) -> EntityUid:
    """Return the active principal of `kind` with this name (`dana`, or in full `User::"dana"`).

    Raises NotFoundError with the nearest name, ConflictError for one that is not active.
    """
    uid = EntityUid.parse(name) if "::" in name else EntityUid.of(kind, name)
    if uid.kind != kind:
        raise InvalidRequestError(f"{uid} is not a {kind.lower()}", hint=f"Name a {kind.lower()}.")
    known = [entity.uid.id for entity in snapshot.entities((kind,))]
    if uid.id not in known:
        raise NotFoundError(f"there is no {kind.lower()} `{uid.id}`", hint=_nearest(uid.id, known))
    if not snapshot.is_active(uid):
        raise ConflictError(f"{uid} is not active", hint="Set `active: true` and apply it first.")
    return uid


def require_purpose(snapshot: Snapshot, subject: EntityUid, purpose: str | None) -> None:
    """Raise DeniedError unless the purpose is assigned to the subject: it cannot be claimed."""
    assigned = snapshot.purposes_of(subject)
    if purpose is not None and purpose not in assigned:
        held = ", ".join(sorted(assigned)) or "none"
        raise DeniedError(
            f"the purpose `{purpose}` is not assigned to {subject}",
            hint=f"Assigned are: {held}. Assign purposes in org.yaml.",
        )


async def put_on_record(  # noqa: PLR0913 -- the fields of a record
    services: Services,
    request: Request,
    actor: Actor,
    *,
    action: Action,
    resource: EntityUid,
    detail: str,
    changes: dict[str, Any],
) -> None:
    """Make the record of a change durable before the change; raise AuditUnavailableError: no change."""
    await services.audit.write(
        act_of(
            services,
            asked_as=request_id(request),
            who=actor.name,
            action=action.value,
            resource=resource,
            detail=detail,
            changes={"via": actor.via, **changes},
        )
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean `{near[0]}`?" if near else "Declare it in org.yaml and `doorward apply` it."
