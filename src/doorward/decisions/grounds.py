"""The grounds of a decision, for whoever may know all of them: `can --why`, owners, auditors.

On an allow, or a deny by a forbid: the determining policies and what their conditions saw. On a deny
for want of a permit: the nearest permits, and what kept each of them from holding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from doorward.cedar import scope, witness
from doorward.cedar.env import Env
from doorward.core.decision import AccessRequest, Decision
from doorward.decisions import together
from doorward.decisions.phrases import for_whom, listed, phrase
from doorward.decisions.point import Standpoint
from doorward.decisions.question import Question, answer, request_of

_MOST_NEAR = 2


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """One policy that bears on a decision.

    `saw` are the attributes its conditions name with their values; `missed` says, for a permit that
    does not hold, why not, and `failed` is that in Cedar.
    """

    id: str
    effect: str
    place: str
    doc: str
    annotations: dict[str, str]
    saw: dict[str, str] = {}
    missed: str = ""
    failed: tuple[str, ...] = ()


class Grounds(msgspec.Struct, frozen=True):
    """What decided, and what came nearest to allowing; `because` says the case in one sentence."""

    determining: tuple[Ground, ...] = ()
    nearest: tuple[Ground, ...] = ()
    because: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return all of it as the management API gives it."""
        return {
            "policies": msgspec.to_builtins(self.determining),
            "nearest": msgspec.to_builtins(self.nearest),
            "because": self.because,
        }


def explained(question: Question, standpoint: Standpoint, now: datetime) -> tuple[Decision, Grounds]:
    """Answer a question in words, with all its grounds; raise InvalidRequestError as `answer` does."""
    decision, request = answer(question, standpoint, now), request_of(question, standpoint.snapshot, now)
    if not together.is_alone(request):
        request, _ = together.judged(request, standpoint.decide, standpoint.snapshot)
    if question.purpose not in {None, *standpoint.snapshot.purposes_of(request.principal)}:
        return decision, Grounds()  # refused before any policy was asked: its advice says why
    return decision, grounds_of(request, decision, standpoint)


def grounds_of(request: AccessRequest, decision: Decision, standpoint: Standpoint) -> Grounds:
    """Return the grounds of a decision made on this standpoint; never raises on data."""
    env = standpoint.environment(request)
    found = (_ground(name, standpoint, env) for name in decision.determining)
    decided = tuple(ground for ground in found if ground is not None)
    if env is None and standpoint.known(request):
        who, what = request.principal.kind.lower(), request.resource.kind.lower()
        return Grounds(
            because=f"The schema has no `{request.action.id}` of a {who} on a {what}, so it is denied."
        )
    if decision.allowed or decided or decision.errors or env is None:
        return Grounds(decided)
    if near := tuple(_missed(request, standpoint, env)):
        return Grounds(nearest=near, because="No policy permits this as things stand.")
    who = request.principal.id
    if others := tuple(_for_others(request, standpoint)):
        return Grounds(nearest=others, because=f"No policy permits this to {who}.")
    return Grounds(because="No policy speaks of this at all, and what is not permitted is denied.")


def _ground(name: str, standpoint: Standpoint, env: Env | None, **more: Any) -> Ground | None:
    policy = standpoint.policy(name)
    if policy is None:
        return None
    return Ground(
        id=name,
        effect=policy.effect,
        place=policy.place,
        doc=policy.annotations.get("doc", ""),
        annotations=dict(policy.annotations),
        saw={} if env is None else witness.seen(policy.tree["conditions"], env),
        **more,
    )


def _missed(request: AccessRequest, standpoint: Standpoint, env: Env) -> Iterator[Ground]:
    """Yield the permits that speak of this request, those first that lack least."""
    permits = [rule for rule in standpoint.applicable(request) if not rule.forbid]
    near = [(clauses, rule) for rule in permits if (clauses := witness.failed(rule.tree, env))]
    near.sort(key=lambda pair: (not _circumstantial(pair[0]), len(pair[0]), pair[1].id))
    for clauses, rule in near[:_MOST_NEAR]:
        missed = listed(dict.fromkeys(phrase(clause, env) for clause in clauses))
        failed = tuple(clause.text for clause in clauses)
        if (found := _ground(rule.id, standpoint, env, missed=missed, failed=failed)) is not None:
            yield found


def _circumstantial(clauses: Sequence[witness.Clause]) -> bool:
    """Return whether other circumstances would be enough: nothing in the directory need change."""
    return all(scope.context_reads(clause.tree) != frozenset() for clause in clauses)


def _for_others(request: AccessRequest, standpoint: Standpoint) -> Iterator[Ground]:
    for rule in standpoint.permits_for_others(request)[:_MOST_NEAR]:
        missed = for_whom(rule.principal, request.principal)
        if (found := _ground(rule.id, standpoint, None, missed=missed)) is not None:
            yield found
