"""A decision: an effect with its reasons. There is no bare boolean."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from doorward.core.context import Context
from doorward.core.model import EntityUid
from doorward.core.obligation import AnyObligation


class Effect(StrEnum):
    """Say what was decided."""

    ALLOW = "allow"
    DENY = "deny"


class AccessRequest(msgspec.Struct, frozen=True):
    """Ask one question: may this principal do this to that, under these circumstances."""

    principal: EntityUid
    action: EntityUid
    resource: EntityUid
    context: Context


class Change(msgspec.Struct, frozen=True):
    """Name one thing the caller could change; `change` is Cedar, `say` is for people."""

    change: str
    say: str


class Decision(msgspec.Struct, frozen=True):
    """Carry the effect, why, what must be done, and what would have let the caller in.

    `determining` are ids of satisfied policies; `errors` are `policy: message` of policies that
    could not be evaluated; `would_allow` is empty on an allow. `bundle` and `entities` name the
    versions the answer rests on.
    """

    effect: Effect
    determining: tuple[str, ...] = ()
    obligations: tuple[AnyObligation, ...] = ()
    advice: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    would_allow: tuple[Change, ...] = ()
    bundle: str = ""
    entities: str = ""

    @property
    def allowed(self) -> bool:
        """Return whether the effect is allow."""
        return self.effect is Effect.ALLOW

    def to_json(self) -> dict[str, object]:
        """Return the decision as the command line and the audit record print it."""
        document: dict[str, object] = msgspec.to_builtins(self)
        return {"decision": document.pop("effect"), **document}
