"""What every way to ask has in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import msgspec

from doorward.core.decision import Decision, Effect
from doorward.core.errors import DeniedError
from doorward.core.model import EntityUid

Name = str | EntityUid


class Asker(Protocol):
    """Something that decides. Never raises: what cannot be decided is denied, with the reason."""

    def can(
        self,
        principal: Name,
        action: str,
        resource: Name,
        *,
        context: Mapping[str, Any] | None = None,
        at_least: str | None = None,
    ) -> Decision:
        """Return whether a principal may do this now, decided on nothing older than `at_least` (`v42`)."""

    async def acan(
        self,
        principal: Name,
        action: str,
        resource: Name,
        *,
        context: Mapping[str, Any] | None = None,
        at_least: str | None = None,
    ) -> Decision:
        """Return the same without blocking the event loop."""


def uid_of(name: Name) -> EntityUid:
    """Read `User::"dana"`; raise InvalidRequestError for what is no name."""
    return name if isinstance(name, EntityUid) else EntityUid.parse(name)


def denied(reason: str) -> Decision:
    """Return the denial of a question that could not be decided."""
    return Decision(Effect.DENY, errors=(reason,))


def within(decision: Decision, keeps: Collection[str]) -> Decision:
    """Return an allow only if the program keeps each of its obligations; name them by their `type`."""
    if not decision.allowed:
        return decision
    demanded = (str(msgspec.to_builtins(obligation)["type"]) for obligation in decision.obligations)
    unkept = sorted({kind for kind in demanded if kind not in keeps})
    if not unkept:
        return decision
    reason = f"sdk: this program does not keep the obligations {', '.join(unkept)}"
    return msgspec.structs.replace(
        decision, effect=Effect.DENY, obligations=(), errors=(*decision.errors, reason)
    )


def told(decision: Decision) -> str:
    """Return what a denied caller may be told: changes of her own and public advice."""
    return "; ".join([*(change.say for change in decision.would_allow), *decision.advice])


def require(decision: Decision) -> Decision:
    """Return an allow; raise DeniedError with what the caller may be told otherwise."""
    if not decision.allowed:
        raise DeniedError("this is not allowed", hint=told(decision))
    return decision
