"""Who provisions: the service behind a key, named by `[[provisioning]]` and let in by policy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request

from doorward.console.authorise import Rule, record
from doorward.console.authzen_callers import authenticated, context_of
from doorward.console.services import Services
from doorward.core.decision import AccessRequest
from doorward.core.errors import DeniedError
from doorward.core.identity import Caller
from doorward.core.model import Action
from doorward.directory.rules import Rules

DIRECTORY = "directory"


@dataclass(frozen=True, slots=True)
class Client:
    """One provisioning client: its name in records, the key it showed, and its rules."""

    name: str
    credential: str
    rules: Rules


def provisions(action: Action) -> Callable[[Request], Awaitable[Client]]:
    """Make the dependency of a route: it gives the Client, or refuses with 401 or 403.

    A refusal is on record. What a client changes is put on record with the change itself.
    """
    rule = Rule(action, DIRECTORY)

    async def let_in(request: Request) -> Client:
        services: Services = request.app.state.services
        caller = authenticated(request, services)
        refused = await asyncio.to_thread(_refusal, services, caller, rule, request)
        if refused is None:
            return Client(str(caller.principal), caller.credential, rules_of(services, caller))
        await record(
            request,
            who=str(caller.principal),
            action=rule.action.value,
            resource=rule.resource,
            allowed=False,
            detail=f"{request.method} {request.url.path}: {refused}",
            via="scim",
        )
        raise DeniedError(refused, hint="See docs/people.md for what a provisioning client needs.")

    let_in.rule = rule  # type: ignore[attr-defined]  # read by `is_governed`
    return let_in


def rules_of(services: Services, caller: Caller) -> Rules:
    """Return the rules of a client that the settings name."""
    section = next(one for one in services.settings.provisioning if one.service == caller.principal.id)
    return Rules(
        **section.model_dump(exclude={"service", "posture_max_age"}),
        source=section.source,
        posture_max_age=section.posture_max_age,
    )


def _refusal(services: Services, caller: Caller, rule: Rule, request: Request) -> str | None:
    name = str(caller.principal)
    if all(section.service != caller.principal.id for section in services.settings.provisioning):
        return f"{name} is no provisioning client: name it under [[provisioning]]"
    standpoint = services.point.pin()
    context = context_of(services, caller, request, standpoint)
    asked = AccessRequest(caller.principal, rule.action.uid, rule.resource, context)
    if standpoint.decide(asked).allowed:
        return None
    return f"no policy lets {name} {rule.action} {rule.resource}"
