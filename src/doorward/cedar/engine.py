"""Evaluate a bundle: which policies are satisfied, which could not be evaluated, and so the effect.

Cedar's rules with one deliberate deviation: a `forbid` that applies and errs denies (Cedar would
skip it and could answer Allow). An erring `permit` is not satisfied. Both stand in `errors`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cedarpy
import msgspec

from doorward.cedar import scope
from doorward.cedar.annotations import AnnotationError, obligations
from doorward.cedar.possible import Outcome, possible
from doorward.cedar.scope import Rule
from doorward.core.decision import AccessRequest, Effect
from doorward.core.errors import InvalidPolicyError, InvalidRequestError
from doorward.core.feed import Bundle, PolicyText
from doorward.core.model import Entity, EntityUid
from doorward.core.values import entity_to_json, to_json, uid_to_json

_MAX_SLICES = 4096
_ERRING = re.compile(r"^error while evaluating policy `(p[0-9]+)`: (.*)$", re.DOTALL)
_EMPTY_SET: dict[str, Any] = {"templates": {}, "templateLinks": []}


class Answer(msgspec.Struct, frozen=True):
    """What the policies say: effect, ids of satisfied policies, `id: message` of erring ones."""

    effect: Effect
    determining: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class Loaded:
    """A few entities, ready for evaluation again and again; made by `Engine.load`."""

    __slots__ = ("ancestors", "entities", "handle", "slices")

    def __init__(
        self,
        handle: cedarpy.Entities,
        entities: Mapping[EntityUid, Entity],
        ancestors: dict[EntityUid, frozenset[EntityUid]],
    ) -> None:
        """Keep the evaluator's handle beside what the scopes need."""
        self.handle = handle
        self.entities = entities
        self.ancestors = ancestors
        self.slices: dict[tuple[EntityUid, EntityUid, EntityUid], tuple[Rule, ...]] = {}

    @classmethod
    def of(cls, handle: cedarpy.Entities, entities: Mapping[EntityUid, Entity]) -> Loaded:
        """Keep a handle with the same entities, whose parents say what lies above what."""
        parents = {uid: entity.parents for uid, entity in entities.items()}
        return cls(handle, entities, {uid: scope.ancestors(parents, uid) for uid in entities})

    def above(self, uid: EntityUid) -> frozenset[EntityUid]:
        """Return the ancestors of `uid`; none when it was not loaded."""
        return self.ancestors.get(uid, frozenset())


class Engine:
    """One admitted set of policies. Immutable but for bounded caches; safe to share between threads."""

    def __init__(
        self,
        policies: Sequence[PolicyText],
        schema: str,
        *,
        guardrails: Sequence[PolicyText] = (),
        erring_forbid_denies: bool = True,
    ) -> None:
        """Load admitted trees; raise InvalidPolicyError when one cannot be used."""
        self._erring_forbid_denies = erring_forbid_denies
        try:
            self._schema = cedarpy.Schema.from_str(schema)
            self._rules = tuple(_rules(policies, guardrails))
            _handle(self._rules)
        except (ValueError, KeyError, AnnotationError) as reason:
            raise InvalidPolicyError(
                f"the admitted policies cannot be loaded: {reason}", hint="Run `doorward check`."
            ) from reason
        self.by_id: Mapping[str, Rule] = {rule.id: rule for rule in self._rules}
        self._by_key = {rule.key: rule for rule in self._rules}
        self._by_action: dict[EntityUid, tuple[Rule, ...]] = {}
        self._members: dict[tuple[EntityUid, EntityUid], bool] = {}
        self._handles: dict[tuple[Rule, ...] | tuple[str, ...], cedarpy.PolicySet] = {}

    @classmethod
    def of(cls, bundle: Bundle) -> Engine:
        """Load a bundle: its policies and, as forbids, its guardrails."""
        return cls(bundle.policies, bundle.schema, guardrails=bundle.guardrails)

    def load(self, entities: Mapping[EntityUid, Entity]) -> Loaded:
        """Check entities against the schema and keep them ready; raise InvalidRequestError if they fail."""
        try:
            text = json.dumps([entity_to_json(entity) for entity in entities.values()])
            handle = cedarpy.Entities.from_json_str(text, self._schema)
        except ValueError as reason:
            raise InvalidRequestError(f"entities do not fit the schema: {reason}") from reason
        return Loaded.of(handle, entities)

    def evaluate(self, request: AccessRequest, loaded: Loaded) -> Answer:
        """Return what the policies say of one request on these entities. No I/O; never raises on data."""
        try:
            context: Any = to_json(request.context.to_record())
        except (InvalidRequestError, ValueError, OverflowError) as reason:
            return _undecided(str(reason))
        return self.evaluate_record(
            request.principal, request.action, request.resource, context, loaded=loaded
        )

    def evaluate_record(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: dict[str, Any],
        *,
        loaded: Loaded,
    ) -> Answer:
        """Evaluate with the context already in Cedar JSON."""
        question = {
            "principal": uid_to_json(principal),
            "action": uid_to_json(action),
            "resource": uid_to_json(resource),
            "context": context,
        }
        rules = self.applicable(principal, action, resource, loaded)
        try:
            result = cedarpy.is_authorized(question, self._slice(rules), loaded.handle, self._schema)
        except (ValueError, TypeError) as reason:
            return _undecided(str(reason))
        return self._answer(result)

    def _answer(self, result: cedarpy.AuthzResult) -> Answer:
        reasons = sorted(self._by_key[key].id for key in result.diagnostics.reasons)
        raw = result.diagnostics.errors
        if result.decision is cedarpy.Decision.NoDecision:
            return _undecided("; ".join(raw) or "the request could not be built")
        errors, denies = self._errors(raw)
        if result.decision is cedarpy.Decision.Allow:
            if denies:
                return Answer(Effect.DENY, (), errors)
            return Answer(Effect.ALLOW, tuple(reasons), errors)
        return Answer(Effect.DENY, tuple(reasons), errors)

    def _errors(self, raw: Sequence[str]) -> tuple[tuple[str, ...], bool]:
        """Return the errors under policy ids, and whether one of them denies."""
        told: list[str] = []
        denies = False
        for text in raw:
            found = _ERRING.match(text)
            rule = self._by_key.get(found[1]) if found else None
            if found is None or rule is None:
                told.append(f"evaluator: {text}")
                denies = True  # an error nobody can attribute may be a forbid's
                continue
            told.append(f"{rule.id}: {found[2]}")
            denies = denies or (rule.forbid and self._erring_forbid_denies)
        return tuple(sorted(told)), denies

    def applicable(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, loaded: Loaded
    ) -> tuple[Rule, ...]:
        """Return every policy whose scope holds; the rest cannot be satisfied and cannot err."""
        key = (principal, action, resource)
        found = loaded.slices.get(key)
        if found is None:
            above = {principal: loaded.above(principal), resource: loaded.above(resource)}
            candidates = self._speaking_of(action)
            found = tuple(rule for rule in candidates if rule.meant(principal, resource, above))
            if len(loaded.slices) < _MAX_SLICES:
                loaded.slices[key] = found
        return found

    def outcome(self, rule: Rule, request: AccessRequest, loaded: Loaded) -> Outcome:
        """Return how a policy's conditions may turn out when the context is unknown."""
        return possible(rule.tree, request.principal, request.action, request.resource, loaded)

    def could_allow(self, request: AccessRequest, loaded: Loaded) -> bool:
        """Return whether some context may lead to an allow; the request's own context is not read.

        False is certain; True may be wrong only where conditions of several policies exclude each
        other, so nothing is ever called hidden that a context would show.
        """
        possible_permit = False
        for rule in self.applicable(request.principal, request.action, request.resource, loaded):
            outcome = self.outcome(rule, request, loaded)
            if rule.forbid:
                if not outcome.false and not (outcome.error and not self._erring_forbid_denies):
                    return False
            else:
                possible_permit = possible_permit or outcome.true
        return possible_permit

    def _speaking_of(self, action: EntityUid) -> tuple[Rule, ...]:
        found = self._by_action.get(action)
        if found is None:
            found = tuple(rule for rule in self._rules if rule.speaks_of(action, self._member))
            if len(self._by_action) < _MAX_SLICES:
                self._by_action[action] = found
        return found

    def _member(self, action: EntityUid, group: EntityUid) -> bool:
        """Ask Cedar itself whether the schema puts an action into a group."""
        known = self._members.get((action, group))
        if known is None:
            known = _in_group(action, group, self._schema)
            if len(self._members) < _MAX_SLICES:
                self._members[action, group] = known
        return known

    def _slice(self, rules: tuple[Rule, ...]) -> cedarpy.PolicySet:
        keys = tuple(rule.key for rule in rules)
        handle = self._handles.get(keys)
        if handle is None:
            handle = _handle(rules)
            if len(self._handles) >= _MAX_SLICES:
                self._handles.clear()
            self._handles[keys] = handle
        return handle


def _undecided(message: str) -> Answer:
    return Answer(Effect.DENY, (), (f"request: {message}",))


def _handle(rules: Sequence[Rule]) -> cedarpy.PolicySet:
    trees = {rule.key: rule.tree for rule in rules}
    return cedarpy.PolicySet.from_json_str(json.dumps({**_EMPTY_SET, "staticPolicies": trees}))


def _rules(policies: Sequence[PolicyText], guardrails: Sequence[PolicyText]) -> Iterator[Rule]:
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


def _in_group(action: EntityUid, group: EntityUid, schema: cedarpy.Schema) -> bool:
    tree = {
        "effect": "permit",
        "principal": {"op": "All"},
        "action": {"op": "in", "entity": uid_to_json(group)},
        "resource": {"op": "All"},
        "conditions": [],
    }
    policies = cedarpy.PolicySet.from_json_str(json.dumps({**_EMPTY_SET, "staticPolicies": {"member": tree}}))
    nobody = {"type": "Nobody", "id": ""}
    question = {"principal": nobody, "action": uid_to_json(action), "resource": nobody, "context": {}}
    actions = cedarpy.Entities.from_json_str("[]", schema)
    return cedarpy.is_authorized(question, policies, actions).allowed
