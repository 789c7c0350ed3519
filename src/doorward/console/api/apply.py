"""People and assets as code: plan a file, then apply it whole or not at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from doorward.console.acts import act_of
from doorward.console.authorise import Actor, govern, request_id
from doorward.console.services import Services
from doorward.core.errors import InvalidConfigError
from doorward.core.model import Action, EntityUid
from doorward.core.record import AdminRecord
from doorward.directory import org
from doorward.directory.plan import Plan, document
from doorward.directory.schema_attributes import vocabulary_of

# A record stays readable; the whole change stands in the directory's own change log.
_RECORDED_ITEMS: Final = 200


class ApplyRequest(BaseModel):
    """The file's text, what to call it in messages, and whether to remove and to apply."""

    model_config = ConfigDict(extra="forbid")

    org: str
    source: str = Field(default="org.yaml", max_length=1024)
    prune: bool = False
    plan: bool = False


class PlanItem(BaseModel):
    """One object that differs: `changes` maps a fact to [before, after]."""

    op: str
    kind: str
    name: str
    changes: dict[str, list[Any]]


class ApplyAnswer(BaseModel):
    """What differs, whether it was applied, and the directory's version now; `warnings` for people."""

    plan: list[PlanItem]
    applied: bool
    version: int
    warnings: list[str] = []


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["apply"])

    @routes.post("/apply")
    async def apply(
        wanted: ApplyRequest,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ASSIGN, "directory"))],
    ) -> ApplyAnswer:
        """Plan a file and, unless `plan` is set, apply it in one transaction."""
        stated = await asyncio.to_thread(parsed, services, wanted)
        plan = await asyncio.to_thread(services.directory.plan, stated, wanted.prune)
        if plan.items and not wanted.plan:
            # On record before it takes effect; what was recorded is what is applied, or nothing.
            await services.audit.write(record_of(services, request_id(request), actor, plan))
            plan = await asyncio.to_thread(
                services.directory.apply, stated, wanted.prune, actor.name, expected=plan
            )
        version = services.directory.snapshot.version
        items = [PlanItem.model_validate(item) for item in document(plan)]
        return ApplyAnswer(
            plan=items,
            applied=bool(plan.items) and not wanted.plan,
            version=version,
            warnings=list(plan.warnings),
        )

    return routes


def parsed(services: Services, wanted: ApplyRequest) -> org.Org:
    """Read the file with the attributes that the installation's own schema has, if there is one."""
    own = services.settings.resolve(services.settings.policies.path) / "schema.cedarschema"
    try:
        schema = own.read_text(encoding="utf-8")
    except FileNotFoundError:
        return org.parse(wanted.org, wanted.source)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfigError(f"{own} cannot be read", hint="Check the policies directory.") from error
    return org.parse(wanted.org, wanted.source, vocabulary=vocabulary_of(schema))


def record_of(services: Services, asked_as: str, actor: Actor, plan: Plan) -> AdminRecord:
    """Return the record of a plan that is about to be applied."""
    counts = Counter(item.op.value for item in plan.items)
    return act_of(
        services,
        asked_as=asked_as,
        who=actor.name,
        action=Action.ASSIGN.value,
        resource=EntityUid.of("Control", "directory"),
        detail=", ".join(f"{op} {count}" for op, count in sorted(counts.items())),
        changes={
            "via": actor.via,
            "version": plan.version,
            "items": document(plan)[:_RECORDED_ITEMS],
            "items_left_out": max(0, len(plan.items) - _RECORDED_ITEMS),
        },
    )
