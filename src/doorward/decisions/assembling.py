"""Make a decision of what the policies say: what it demands, what it tells, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from doorward.cedar.engine import Answer
from doorward.cedar.scope import Rule
from doorward.core.decision import Decision, Effect
from doorward.core.obligation import Notify
from doorward.decisions.joining import join


def assembled(answer: Answer, rules: Mapping[str, Rule], *, bundle: str, entities: str) -> Decision:
    """Return the decision; of a denial only who is to be notified is demanded, and its advice told."""
    found = [rules[name] for name in answer.determining]
    demanded = [obligation for rule in found for obligation in rule.obligations]
    allowed = answer.effect is Effect.ALLOW
    kept = demanded if allowed else [o for o in demanded if isinstance(o, Notify)]
    return Decision(
        effect=answer.effect,
        determining=answer.determining,
        obligations=join(kept),
        advice=() if allowed else _advice(found),
        errors=answer.errors,
        bundle=bundle,
        entities=entities,
    )


def _advice(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(r.annotations["advice"] for r in rules if "advice" in r.annotations))
