"""What every change by a source outside passes: nobody is made a governor, and it is on record first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doorward.console.acts import act_of
from doorward.core.errors import DeniedError
from doorward.core.model import Action, EntityUid
from doorward.core.record import AdminRecord
from doorward.decisions.governing import new_governors
from doorward.directory.plan import document

if TYPE_CHECKING:
    from doorward.console.services import Services
    from doorward.directory.draft import ProvisionPlan

_RECORDED_ITEMS = 200
_DIRECTORY = EntityUid.of("Control", "directory")


class GovernorsError(DeniedError):
    """A change would let somebody govern Doorward; `who` are they."""

    def __init__(self, who: list[EntityUid]) -> None:
        """Name the first few."""
        super().__init__(
            f"{', '.join(map(str, who[:3]))} could govern Doorward by this change",
            hint="An administrator does this, or sets `govern = true` for this source.",
        )
        self.who = frozenset(who)


def require_no_governor(services: Services, plan: ProvisionPlan) -> None:
    """Raise GovernorsError if a plan lets somebody govern who could not, and its source may not do that."""
    if plan.govern:
        return
    found = new_governors(
        services.point.pin(), plan.plan.delta, principals=plan.principals, rebound=plan.rebound
    )
    if found:
        raise GovernorsError(found)


def record_of(
    services: Services, plan: ProvisionPlan, *, who: str, asked_as: str, detail: str, **more: Any
) -> AdminRecord:
    """Return the record of a plan that is about to be carried out."""
    items = document(plan.plan)
    return act_of(
        services,
        asked_as=asked_as,
        who=who,
        action=Action.ASSIGN.value,
        resource=_DIRECTORY,
        detail=detail,
        changes={
            "source": plan.source,
            "version": plan.plan.delta.version,
            "items": items[:_RECORDED_ITEMS],
            "items_left_out": max(0, len(items) - _RECORDED_ITEMS),
            **more,
        },
    )
