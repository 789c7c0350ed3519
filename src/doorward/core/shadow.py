"""What decision points and the shadow check tell each other: decisions to look at again, and measures.

A measure rests on one slice, named by its content: schema, action, the two types and the policies.
A bundle that still holds that slice brings the measure with it; one that changes the slice does not.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from doorward.core.decision import Effect
from doorward.core.model import EntityUid


class Measure(StrEnum):
    """Say how a slice is decided after a mismatch; each later one is stricter, and none is taken back."""

    EXACT = "exact"
    """Tier 0 alone: the generated function of the slice is not used."""
    ORACLE = "oracle"
    """Allowed only where tier 0 and Cedar itself, on the slice's policies, both allow."""
    DENY = "deny"
    """Nothing is allowed: which policies apply was itself wrong."""


_ORDER = (None, *Measure)


def stricter(one: Measure | None, other: Measure | None) -> Measure | None:
    """Return the stricter of two measures; None is no measure."""
    return max(one, other, key=_ORDER.index)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One decision as it was made: `context` is Cedar JSON, `generated` says that tier 1 answered.

    `determining` and `erring` are sorted ids of policies; `measure` is what the slice was under.
    """

    bundle: str
    entities: int
    slice: str
    principal: EntityUid
    action: EntityUid
    resource: EntityUid
    context: dict[str, Any]
    effect: Effect
    determining: tuple[str, ...] = ()
    erring: tuple[str, ...] = ()
    generated: bool = False
    measure: Measure | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One slice found wrong: the measure from now on, and the request that showed it.

    `engine` is the version of Doorward whose evaluator was wrong; another version starts afresh.
    `said` maps who answered (`live`, `tier 0`, `cedar`) to `effect [determining] (erring)`.
    """

    slice: str
    measure: Measure
    engine: str
    time: str
    record: str
    bundle: str
    entities: str
    policies: tuple[str, ...]
    principal: str
    action: str
    resource: str
    said: dict[str, str]


class ShadowMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line between a decision point and the shadow check: exactly one field is set.

    `samples` goes to the check; `findings` is everything that stands, and comes back first of all and
    whenever there is more.
    """

    samples: tuple[Sample, ...] | None = None
    findings: tuple[Finding, ...] | None = None
