"""The policies one kind of request meets, ready to be evaluated: tier 0 exact, tier 1 generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from doorward.cedar.contexts import Reader
from doorward.cedar.data import Fault
from doorward.cedar.env import Env
from doorward.cedar.generated import Fast
from doorward.cedar.scope import Asks, Rule
from doorward.cedar.types import RecordType
from doorward.core.decision import AccessRequest, Effect
from doorward.core.shadow import Measure

if TYPE_CHECKING:
    from doorward.cedar.oracle import Oracle

_MAX_ANSWERS = 1024
# So many decisions that the next look never comes.
NEVER: Final = 1 << 62
# Every one of the first decisions of a fresh function is looked at again elsewhere.
FRESH: Final = 8

Test = Callable[[Env], bool]


class Answer(msgspec.Struct, frozen=True):
    """What the policies say: effect, ids of satisfied policies, `id: message` of erring ones."""

    effect: Effect
    determining: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class RecordLane:
    """How a slice is asked with contexts in Cedar JSON: conformance, and whoever has no `Context`."""

    __slots__ = ("asked", "fast")

    def __init__(self) -> None:
        """Begin cold."""
        self.asked = 0
        self.fast: Fast | None = None

    def given(self, fast: Fast) -> None:
        """Use a generated function from now on."""
        self.fast = fast


class Watch(Protocol):
    """Take decisions to look at again (the shadow check). On the path of a request: never waits."""

    def first(self) -> int:
        """Return how many decisions of a new slice pass before the first is taken."""

    def take(self, slice_: Slice, request: AccessRequest, answer: Answer, stands_on: tuple[str, int]) -> int:
        """Take one decision on a bundle and a version of entities; return how many pass before the next."""


class Slice:
    """Every policy whose scope holds for one action and one pair of signatures.

    `context` is the type a context must have, None where the schema knows no such request; `read`, made
    when first needed, brings one into that form. `fast`, where generated, takes a `Context` and returns
    the satisfied policies as bits or raises, and then tier 0 speaks. `answers` are those given so far,
    by these bits. `until` is how many decisions pass before one gets a second look; `measure` is what
    the shadow check demands.
    """

    __slots__ = (
        "_forbids",
        "_tests",
        "answers",
        "asked",
        "asks",
        "context",
        "fast",
        "fresh",
        "measure",
        "name",
        "oracle",
        "read",
        "records",
        "rules",
        "strict",
        "until",
    )

    def __init__(
        self,
        asks: Asks,
        rules: Sequence[Rule],
        tests: Sequence[Test],
        context: RecordType | None,
        *,
        strict: bool,
    ) -> None:
        """Keep the rules, in the order of their ids, beside their compiled conditions."""
        self.asks = asks
        self.rules = tuple(rules)
        self._tests = [
            (1 << bit, rule, test) for bit, (rule, test) in enumerate(zip(rules, tests, strict=True))
        ]
        self._forbids = sum([bit for bit, rule, _ in self._tests if rule.forbid])
        self.answers: dict[int, Answer] = {}
        self.context = context
        self.strict = strict
        self.read: Reader | None = None
        self.asked = 0
        self.fast: Fast | None = None
        self.records = RecordLane()
        self.until = NEVER
        self.fresh = 0
        self.measure: Measure | None = None
        self.oracle: Oracle | None = None
        self.name = ""

    def given(self, fast: Fast) -> None:
        """Use a generated function from now on; its first decisions are looked at."""
        self.fast = fast
        self.fresh, self.until = FRESH, 0

    def exact(self, env: Env) -> Answer:
        """Evaluate by tier 0."""
        satisfied = 0
        errors: list[tuple[Rule, str]] = []
        for bit, rule, test in self._tests:
            try:
                if test(env):
                    satisfied |= bit
            except Fault as fault:
                errors.append((rule, str(fault)))
        return self._erring(satisfied, errors) if errors else self.answer(satisfied)

    def answer(self, satisfied: int) -> Answer:
        """Return the answer when these policies are satisfied and none errs."""
        found = self.answers.get(satisfied)
        if found is None:
            if len(self.answers) >= _MAX_ANSWERS:
                self.answers.clear()
            self.answers[satisfied] = found = self._made(satisfied)
        return found

    def _made(self, satisfied: int) -> Answer:
        forbids = satisfied & self._forbids
        told = tuple(rule.id for bit, rule, _ in self._tests if (forbids or satisfied) & bit)
        return Answer(Effect.DENY if forbids or not satisfied else Effect.ALLOW, told)

    def _erring(self, satisfied: int, errors: Sequence[tuple[Rule, str]]) -> Answer:
        plain = self.answer(satisfied)
        told = tuple(sorted(f"{rule.id}: {message}" for rule, message in errors))
        if plain.effect is Effect.ALLOW and self.strict and any(rule.forbid for rule, _ in errors):
            return Answer(Effect.DENY, (), told)
        return Answer(plain.effect, plain.determining, told)


def undecided(message: str) -> Answer:
    """Return the denial of a request that could not be evaluated at all."""
    return Answer(Effect.DENY, (), (f"request: {message}",))
