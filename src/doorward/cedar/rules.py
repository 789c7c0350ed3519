"""Read admitted trees as the rules an engine holds: guardrails are forbids among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from doorward.cedar import scope
from doorward.cedar.annotations import obligations
from doorward.cedar.scope import Rule
from doorward.core.feed import PolicyText


def rules_of(policies: Sequence[PolicyText], guardrails: Sequence[PolicyText]) -> Iterator[Rule]:
    """Yield the rules; raise ValueError, KeyError or AnnotationError for what cannot be one."""
    seen: set[str] = set()
    for number, policy in enumerate((*policies, *guardrails)):
        if policy.id in seen:
            raise ValueError(f"@id {policy.id} is used twice")
        seen.add(policy.id)
        tree, guardrail = policy.tree, number >= len(policies)
        forbid = {"permit": False, "forbid": True}[tree["effect"]]
        if guardrail and not forbid:
            raise ValueError(f"guardrail {policy.id} is not a forbid")
        actions, within = scope.actions(tree["action"])
        yield Rule(
            key=f"p{number}",
            id=policy.id,
            forbid=forbid,
            actions=actions,
            action_within=within,
            principal=scope.side(tree["principal"]),
            resource=scope.side(tree["resource"]),
            tree=tree,
            annotations=policy.annotations,
            obligations=obligations(policy.annotations, policy.id),
            guardrail=guardrail,
            reads=scope.context_reads(tree["conditions"]),
        )
