"""What a security event changes: who is signed out, who is shut out, what a device or a risk is worth now.

Each kind of word is a statement of its own with its own time, so that events which arrive in another order
than they happened end in the same state. An event only ever tightens what others said (docs/decisions/0006).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from doorward.core.model import EntityUid, Value
from doorward.core.provisioning import Statement
from doorward.directory.vocabulary import MAX_RISK

if TYPE_CHECKING:
    from doorward.directory.administration import Directory

_ENDING_CHANGES: Final = frozenset({"revoke", "delete", "update"})
_ACCOUNT, _COMPLIANCE, _RISK = "account", "compliance", "risk"


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One event about known entities: `who` acts, `device` is what she acts from; either may be unknown."""

    family: str
    type: str
    at: datetime
    claims: Mapping[str, Any]
    who: EntityUid | None
    device: EntityUid | None


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What an event changes for one entity: a sign-out, or attributes that a source states of it."""

    uid: EntityUid
    sign_out: bool = False
    mfa_only: bool = False
    topic: str = ""
    attrs: Mapping[str, Value] = msgspec.field(default_factory=dict)

    @property
    def said(self) -> str:
        """Return the effect in words for the record."""
        if self.sign_out:
            return f"sign {self.uid} out" + (" of MFA" if self.mfa_only else "")
        return f"{self.uid}: " + ", ".join(f"{name} = {value}" for name, value in self.attrs.items())


def effect_of(heard: Heard, risk: Mapping[str, int]) -> Effect | None:  # noqa: PLR0911 -- one case an event
    """Return what an event changes; None if nothing, or if it is about nobody we know.

    `risk` is what a transmitter's levels are worth; a level it does not list is worth the highest.
    """
    match heard.family, heard.type:
        case "caep", "session-revoked" | "token-claims-change":
            return _signs_out(heard.who)
        case "caep", "credential-change":
            ending = heard.claims.get("change_type") in _ENDING_CHANGES
            return _signs_out(heard.who) if ending else None
        case "risc", "credential-compromise":
            return _signs_out(heard.who)
        case "caep", "assurance-level-change":
            raised = heard.claims.get("change_direction") == "increase"
            return None if raised else _signs_out(heard.who, mfa_only=True)
        case "caep", "device-compliance-change":
            compliant = heard.claims.get("current_status") == "compliant"
            return _states(heard.device, _COMPLIANCE, {"compliant": compliant})
        case "caep", "risk-level-change":
            level = risk.get(str(heard.claims.get("current_level")), MAX_RISK)
            about = heard.device if heard.claims.get("principal") == "DEVICE" else heard.who
            return _states(about or heard.device, _RISK, {"risk": level})
        case "risc", "account-disabled" | "account-purged":
            return _states(heard.who, _ACCOUNT, {"active": False})
        case "risc", "account-enabled":
            return _states(heard.who, _ACCOUNT, {"active": True})
    return None


def apply(effect: Effect, directory: Directory, *, source: str, at: datetime, max_age: float | None) -> bool:
    """Make an effect hold; return whether it was news. An older word never undoes a newer one."""
    if effect.sign_out:
        before = directory.snapshot.sign_out_of(effect.uid)
        return directory.sign_out(effect.uid, before=at, mfa_only=effect.mfa_only, operator=source) != before
    # An account that is out stays out: only what says how things stand grows old.
    lasting = effect.topic == _ACCOUNT
    return directory.state(
        Statement(
            uid=effect.uid,
            source=f"{source}/{effect.topic}",
            seen=at,
            attrs=effect.attrs,
            max_age=None if lasting else max_age,
        ),
        operator=source,
    )


def _signs_out(who: EntityUid | None, *, mfa_only: bool = False) -> Effect | None:
    return None if who is None else Effect(uid=who, sign_out=True, mfa_only=mfa_only)


def _states(about: EntityUid | None, topic: str, attrs: Mapping[str, Value]) -> Effect | None:
    if about is None:
        return None
    # Only what has the attribute can be spoken of: a service is never `compliant`.
    fits = about.kind == "Device" if topic == _COMPLIANCE else True
    return Effect(uid=about, topic=topic, attrs=attrs) if fits else None
