"""The record of an administrative act: made in one place, written before the act takes effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doorward.core.clock import rfc3339
from doorward.core.record import AdminRecord

if TYPE_CHECKING:
    from doorward.console.services import Services
    from doorward.core.model import EntityUid


def act_of(  # noqa: PLR0913 -- the fields of a record
    services: Services,
    *,
    asked_as: str,
    who: str,
    action: str,
    resource: EntityUid,
    detail: str,
    changes: dict[str, Any],
    allowed: bool = True,
) -> AdminRecord:
    """Return the record of an act; `asked_as` is the id of the request it was asked with."""
    return AdminRecord(
        id=services.ids.new(),
        kind="admin",
        time=rfc3339(services.clock.now()),
        request_id=asked_as,
        decision="allow" if allowed else "deny",
        principal=who,
        action=action,
        resource=str(resource),
        detail=detail,
        changes=changes,
    )
