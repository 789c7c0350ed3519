"""Obligations a policy may attach to a permit: a closed set, each with one grammar.

An obligation the gateway cannot keep for this upstream turns the permit into a denial.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Per(StrEnum):
    """Say what a counter belongs to; the default is one per policy, principal and asset."""

    BOTH = ""
    PRINCIPAL = "principal"
    ASSET = "asset"
    PROJECT = "project"


class Obligation(msgspec.Struct, frozen=True, tag_field="type"):
    """Base of all obligations."""


class Mask(Obligation, frozen=True, tag="mask"):
    """Blank these columns or JSON fields, byte for byte, wherever they occur (`@mask`)."""

    fields: tuple[str, ...]


class Redact(Obligation, frozen=True, tag="redact"):
    """Remove kinds of text (`pii`, `secrets`) both ways (`@redact`)."""

    kinds: tuple[str, ...]


class Screen(Obligation, frozen=True, tag="screen"):
    """Refuse text of these kinds (`injection`) (`@screen`)."""

    kinds: tuple[str, ...]


class Limit(Obligation, frozen=True, tag="limit"):
    """Allow at most `count` requests in any span of `seconds` (`@limit`)."""

    policy: str
    count: int
    seconds: int
    per: Per = Per.BOTH


class Budget(Obligation, frozen=True, tag="budget"):
    """Allow at most `amount` of `unit` (`tokens`, `bytes`) in any span of `seconds` (`@budget`)."""

    policy: str
    amount: int
    unit: str
    seconds: int
    per: Per = Per.BOTH


class Cap(Obligation, frozen=True, tag="cap"):
    """Clamp a number in the request (`max_tokens`) to `value` (`@cap`)."""

    field: str
    value: int


class StepUp(Obligation, frozen=True, tag="stepup"):
    """Demand this authentication context, at most `max_age` seconds old (`@stepup`, RFC 9470)."""

    acr: str
    max_age: int | None = None


class ReadOnly(Obligation, frozen=True, tag="readonly"):
    """Refuse everything that writes (`@readonly`)."""


class Watermark(Obligation, frozen=True, tag="watermark"):
    """Mark what leaves with who took it (`@watermark`)."""


class Notify(Obligation, frozen=True, tag="notify"):
    """Tell `who` (`owner`) that it happened (`@notify`)."""

    who: str


AnyObligation = Mask | Redact | Screen | Limit | Budget | Cap | StepUp | ReadOnly | Watermark | Notify
