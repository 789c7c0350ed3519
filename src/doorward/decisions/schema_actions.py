"""Which principals may be asked to do what to which resources: what a domain schema says of its actions.

Only to know what to ask; whether a request fits the schema is the evaluator's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from doorward.cedar.schema import Schema
from doorward.core.model import EntityUid


class Applies(msgspec.Struct, frozen=True):
    """Name the full types an action speaks of."""

    principals: frozenset[str]
    resources: frozenset[str]


@lru_cache(maxsize=8)
def groups_of(schema: str) -> Mapping[EntityUid, frozenset[EntityUid]]:
    """Return the groups of every declared action, direct and indirect; raise ValueError for no schema."""
    return {uid: rule.groups for uid, rule in Schema.of(schema).actions.items()}


@lru_cache(maxsize=8)
def actions_of(schema: str) -> Mapping[EntityUid, Applies]:
    """Return every action that applies to something, in the schema's order; raise as `groups_of`."""
    return {
        uid: Applies(rule.principals, rule.resources)
        for uid, rule in Schema.of(schema).actions.items()
        if rule.principals and rule.resources
    }
