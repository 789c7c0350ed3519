"""Cedar itself (cedarpy) on one set of policies: what our own answers are compared with.

Slow on purpose: every policy is evaluated, on entities read anew for each question, and nothing is
kept from one question to the next. Cedar skips a `forbid` that errs; `strictly` turns that one
difference around exactly as the engine does, so that two answers can be compared for equality.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import cedarpy
import msgspec

from doorward.core.decision import Effect
from doorward.core.errors import DoorwardError, InvalidPolicyError
from doorward.core.feed import Bundle, PolicyText
from doorward.core.model import Entity, EntityUid, Value
from doorward.core.values import entity_to_json, uid_from_json, uid_to_json

_ERRING = re.compile(r"error while evaluating policy `(p[0-9]+)`")
Lookup = Callable[[EntityUid], Entity | None]


class Opinion(msgspec.Struct, frozen=True):
    """What somebody says of one request: effect, satisfied policies, policies that erred (sorted ids)."""

    effect: Effect
    determining: tuple[str, ...] = ()
    erring: tuple[str, ...] = ()


class NoOpinionError(DoorwardError):
    """Cedar gives no decision on this request: it, or an entity it reads, does not fit the schema."""

    code = "no_opinion"


def strictly(opinion: Opinion, forbids: Container[str]) -> Opinion:
    """Return Cedar's opinion under our one deviation: an allow past an erring forbid is a denial."""
    if opinion.effect is Effect.ALLOW and any(name in forbids for name in opinion.erring):
        return Opinion(Effect.DENY, (), opinion.erring)
    return opinion


class Oracle:
    """Judge requests by cedarpy. Not for the path of a request but where a slice is held to it."""

    def __init__(
        self, policies: Sequence[PolicyText], schema: str, *, guardrails: Sequence[PolicyText] = ()
    ) -> None:
        """Load admitted trees; raise InvalidPolicyError when Cedar refuses one."""
        every = {f"p{number}": policy for number, policy in enumerate((*policies, *guardrails))}
        self._ids = {name: policy.id for name, policy in every.items()}
        self.forbids = frozenset(p.id for p in every.values() if p.tree["effect"] == "forbid")
        self._literals = frozenset(uid for policy in every.values() for uid in _entities_in(policy.tree))
        document = {
            "staticPolicies": {name: policy.tree for name, policy in every.items()},
            "templates": {},
            "templateLinks": [],
        }
        try:
            self._schema = cedarpy.Schema.from_str(schema)
            self._policies = cedarpy.PolicySet.from_json_str(json.dumps(document), release_gil=True)
        except ValueError as reason:
            raise InvalidPolicyError(
                f"Cedar refuses the admitted policies: {reason}", hint="Run `doorward check`."
            ) from reason

    @classmethod
    def of(cls, bundle: Bundle) -> Oracle:
        """Load a bundle: its policies and its guardrails."""
        return cls(bundle.policies, bundle.schema, guardrails=bundle.guardrails)

    def opinion(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: Mapping[str, Any],
        *,
        lookup: Lookup,
    ) -> Opinion:
        """Return what Cedar says, erring forbids denying; `context` is Cedar JSON.

        Raises NoOpinionError where Cedar does not decide.
        """
        named = (principal, resource, *_entities_in(context), *self._literals)
        entities = [entity_to_json(entity) for entity in _reachable(named, lookup)]
        request = {
            "principal": uid_to_json(principal),
            "action": uid_to_json(action),
            "resource": uid_to_json(resource),
            "context": dict(context),
        }
        try:
            known = cedarpy.Entities.from_json_str(json.dumps(entities), self._schema)
            result = cedarpy.is_authorized(request, self._policies, known, self._schema)
        except ValueError as reason:
            raise NoOpinionError(f"Cedar cannot read the question: {reason}") from reason
        return strictly(read(result, self._ids), self.forbids)


def read(result: cedarpy.AuthzResult, ids: Mapping[str, str]) -> Opinion:
    """Return a result as an opinion; `ids` maps Cedar's names of policies to ours.

    Raises NoOpinionError for a result without a decision, or with an error that names no policy.
    """
    errors = result.diagnostics.errors
    if result.decision is cedarpy.Decision.NoDecision:
        raise NoOpinionError(f"Cedar does not decide: {'; '.join(errors)}")
    found = [_ERRING.match(error) for error in errors]
    if None in found:
        raise NoOpinionError(f"Cedar's errors cannot be read: {'; '.join(errors)}")
    return Opinion(
        Effect.ALLOW if result.decision is cedarpy.Decision.Allow else Effect.DENY,
        tuple(sorted(ids[name] for name in result.diagnostics.reasons)),
        tuple(sorted(ids[match[1]] for match in found if match is not None)),
    )


def _entities_in(tree: Any) -> Iterator[EntityUid]:
    """Yield every entity that a policy's tree or a context in Cedar JSON names as a value."""
    match tree:
        case {"__entity": {"type": _, "id": _}}:
            yield uid_from_json(tree)
        case Mapping():
            for part in tree.values():
                yield from _entities_in(part)
        case list() | tuple():
            for part in tree:
                yield from _entities_in(part)


def _reachable(named: Iterable[EntityUid], lookup: Lookup) -> Iterator[Entity]:
    """Yield what an evaluation can read: the named entities, all above them, all they refer to."""
    seen: set[EntityUid] = set()
    waiting = list(named)
    while waiting:
        uid = waiting.pop()
        if uid in seen:
            continue
        seen.add(uid)
        entity = lookup(uid)
        if entity is not None:
            yield entity
            waiting += entity.parents
            waiting += _referred(entity.attrs.values())


def _referred(values: Iterable[Value]) -> Iterator[EntityUid]:
    for value in values:
        if isinstance(value, EntityUid):
            yield value
        elif isinstance(value, frozenset):
            yield from _referred(value)
        elif isinstance(value, Mapping):
            yield from _referred(value.values())
