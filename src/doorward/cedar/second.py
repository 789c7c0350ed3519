"""A second look at an answer: what a slice is called everywhere, and how one under a measure is decided.

The rule. Once our exact evaluator was seen to differ from Cedar on a slice, nothing is allowed there
that Cedar itself does not allow: both must. Where Cedar cannot be asked, or it was the choice of
policies that was wrong, nothing is allowed at all. No measure ever turns a denial into an allow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from doorward.cedar.slices import FRESH, NEVER, Answer, Slice, Watch
from doorward.core.decision import AccessRequest, Effect
from doorward.core.feed import PolicyText
from doorward.core.shadow import Measure, stricter
from doorward.core.values import to_json

if TYPE_CHECKING:
    from doorward.cedar.world import World

HELD: Final = frozenset({Measure.ORACLE, Measure.DENY})
_encode = msgspec.json.Encoder(order="deterministic").encode


class Looks:
    """What an engine has beside its answers: the watch that takes some of them, and the measures in force."""

    def __init__(self, schema: str, distrust: Callable[[Slice], None]) -> None:
        """Begin without either; `distrust` keeps a slice on tier 0 for good."""
        self._schema, self._digest = schema, hashlib.sha256(schema.encode()).hexdigest()
        self._distrust = distrust
        self.watch: Watch | None = None
        self.measures: Mapping[str, Measure] = {}

    def begin(self, slice_: Slice) -> None:
        """Put a new slice under its measure, and say when its first decision is looked at."""
        slice_.until = NEVER if self.watch is None else self.watch.first()
        if self.measures:
            self.bind(slice_)

    def named(self, slice_: Slice) -> Slice:
        """Give a slice its name if it has none yet."""
        slice_.name = slice_.name or name_of(slice_, self._digest)
        return slice_

    def bind(self, slice_: Slice) -> None:
        """Put a slice under its measure, if there is one and it is stricter."""
        measure = self.measures.get(self.named(slice_).name)
        if measure is not None and stricter(slice_.measure, measure) != slice_.measure:
            slice_.measure = measure
            self._distrust(slice_)
            # Tier 0 is looked at closely, too; under a stricter measure each decision is.
            slice_.fresh, slice_.until = FRESH, 0

    def look(self, slice_: Slice, request: AccessRequest, answer: Answer, loaded: World) -> Answer:
        """Hold an answer to what a measure demands, and hand it to the watch: its second look has come."""
        if slice_.measure in HELD:
            answer = held(slice_, request, answer, loaded, self._schema)
        waiting = NEVER
        if self.watch is not None and loaded.stands_on is not None:
            waiting = self.watch.take(self.named(slice_), request, answer, loaded.stands_on)
        slice_.until = 0 if slice_.measure in HELD else waiting
        return answer


def name_of(slice_: Slice, schema_digest: str) -> str:
    """Return what a slice is called in every process: the digest of all that its answers rest on."""
    kinds = (slice_.asks.principal, slice_.asks.action.cedar, slice_.asks.resource)
    policies = [(rule.id, rule.tree) for rule in slice_.rules]
    return hashlib.sha256(_encode((schema_digest, kinds, policies, slice_.strict))).hexdigest()[:32]


def held(slice_: Slice, request: AccessRequest, answer: Answer, loaded: World, schema: str) -> Answer:
    """Return the answer of a slice whose measure demands more than ours: the stricter of the two."""
    if answer.effect is Effect.DENY:
        return answer
    if slice_.measure is not Measure.ORACLE:
        return _denied(answer, "which policies apply here was found wrong, so nothing is allowed")
    try:
        return _stricter(answer, slice_, request, loaded, schema)
    except Exception as reason:  # noqa: BLE001 -- whatever goes wrong with the judge, the answer is deny
        return _denied(answer, f"Cedar cannot be asked, so nothing is allowed ({type(reason).__name__})")


def _stricter(answer: Answer, slice_: Slice, request: AccessRequest, loaded: World, schema: str) -> Answer:
    # cedarpy stays out of processes in which nothing was ever found wrong.
    from doorward.cedar.oracle import Oracle  # noqa: PLC0415

    if slice_.oracle is None:
        policies = [PolicyText(id=rule.id, text="", tree=dict(rule.tree)) for rule in slice_.rules]
        slice_.oracle = Oracle(policies, schema)
    context = to_json(request.context.to_record())
    opinion = slice_.oracle.opinion(
        request.principal, request.action, request.resource, context, lookup=loaded.entities.get
    )
    if opinion.effect is Effect.DENY:
        return Answer(Effect.DENY, opinion.determining, (*answer.errors, "oracle: Cedar denies this"))
    # What any satisfied policy demands is demanded.
    determining = tuple(sorted({*answer.determining, *opinion.determining}))
    return answer if determining == answer.determining else Answer(answer.effect, determining, answer.errors)


def _denied(answer: Answer, why: str) -> Answer:
    return Answer(Effect.DENY, (), (*answer.errors, f"oracle: {why}"))
