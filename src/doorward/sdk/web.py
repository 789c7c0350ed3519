"""What web frameworks share: which question a request is, and a FastAPI dependency that asks it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from doorward.core.decision import Decision
from doorward.core.errors import DoorwardError
from doorward.sdk.asking import Asker, Name, denied, told, within
from doorward.sdk.guarding import Source, name_of

if TYPE_CHECKING:
    from starlette.requests import Request


class Ask(msgspec.Struct, frozen=True):
    """One question; without a principal nobody is signed in (401)."""

    principal: Name | None
    action: str
    resource: Name
    context: Mapping[str, Any] = msgspec.field(default_factory=dict)


async def decided(point: Asker, ask: Ask, keeps: Collection[str]) -> Decision:
    """Return the decision on a question; an asker that raises is a denial too."""
    if ask.principal is None:
        return denied("sdk: nobody is signed in")
    try:
        decision = await point.acan(ask.principal, ask.action, ask.resource, context=ask.context)
    except Exception as fault:  # noqa: BLE001 -- whatever went wrong, the answer is no
        return denied(f"sdk: a fault while asking ({type(fault).__name__})")
    return within(decision, keeps)


def problem_of(ask: Ask, decision: Decision) -> dict[str, Any]:
    """Return the RFC 9457 problem of a denial: only what the caller may be told."""
    anonymous = ask.principal is None
    code = "unauthenticated" if anonymous else "denied"
    return {
        "type": f"urn:doorward:{code}",
        "title": "Unauthorized" if anonymous else "Forbidden",
        "status": 401 if anonymous else 403,
        "code": code,
        "detail": told(decision) or ("sign in first" if anonymous else "this is not allowed"),
    }


def requires(
    point: Asker,
    *,
    action: str,
    resource: Source,
    principal: Callable[[Request], Name | None],
    keeps: Collection[str] = (),
) -> Callable[[Request], Awaitable[Decision]]:
    """Make a FastAPI dependency: it gives the Decision, or answers 401 or 403.

    `resource` is a name with path parameters in braces, or a function of them.
    """
    from fastapi import HTTPException  # noqa: PLC0415 -- only programs that use it have it
    from starlette.requests import Request as Incoming  # noqa: PLC0415 -- as above

    async def dependency(request: Incoming) -> Decision:
        try:
            ask = Ask(principal(request), action, name_of(resource, request.path_params))
        except DoorwardError:
            ask = Ask("", action, "")
        decision = await decided(point, ask, keeps)
        if not decision.allowed:
            problem = problem_of(ask, decision)
            challenge = {"WWW-Authenticate": "Bearer"} if ask.principal is None else None
            raise HTTPException(problem["status"], detail=problem, headers=challenge)
        return decision

    # FastAPI evaluates annotations in the function's module, where the lazy import is not known.
    dependency.__annotations__["request"] = Incoming
    return dependency
