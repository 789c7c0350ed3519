"""Let equal parts of policies be one object: most policies are made of the same few expressions."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from msgspec.structs import replace

from doorward.core.feed import Bundle, PolicyText


def shared(bundle: Bundle) -> Bundle:
    """Return an equal bundle whose trees share their equal parts. Nobody may write to a tree."""
    known: dict[Hashable, Any] = {}

    def one(policy: PolicyText) -> PolicyText:
        try:
            return replace(policy, tree=_of(policy.tree, known))
        except RecursionError:  # deeper than we can follow: it stays as it is
            return policy

    return replace(
        bundle,
        policies=tuple(map(one, bundle.policies)),
        guardrails=tuple(map(one, bundle.guardrails)),
    )


def _of(tree: Any, known: dict[Hashable, Any]) -> Any:
    """Return the one object for a tree; `known` keeps every part, so that its id stays its own."""
    if isinstance(tree, dict):
        parts = {_of(name, known): _of(value, known) for name, value in tree.items()}
        return known.setdefault((dict, tuple((id(name), id(value)) for name, value in parts.items())), parts)
    if isinstance(tree, list):
        items = [_of(item, known) for item in tree]
        return known.setdefault((list, tuple(map(id, items))), items)
    # True and 1 are equal, and are two things in Cedar.
    return known.setdefault((type(tree), tree), tree)
