"""Evaluate a bundle: which policies are satisfied, which could not be evaluated, and so the effect.

Cedar's rules with one deliberate deviation: a `forbid` that applies and errs denies (Cedar would
skip it and could answer Allow). An erring `permit` is not satisfied. Both stand in `errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

from doorward.cedar import closures, contexts, generated, scope, second, types
from doorward.cedar.annotations import AnnotationError
from doorward.cedar.circumstances import Circumstances
from doorward.cedar.data import outside
from doorward.cedar.env import Env, Expr
from doorward.cedar.forge import Forge, Functions, Lane
from doorward.cedar.index import Index
from doorward.cedar.possible import Outcome, possible
from doorward.cedar.rules import rules_of
from doorward.cedar.schema import Schema
from doorward.cedar.scope import Asks, Rule
from doorward.cedar.sieve import Sieve
from doorward.cedar.slices import Answer, Slice, undecided
from doorward.cedar.world import Kept, Lookup, Node, World
from doorward.core.decision import AccessRequest, Effect
from doorward.core.errors import DoorwardError, InvalidPolicyError, InvalidRequestError
from doorward.core.feed import Bundle, PolicyText
from doorward.core.model import Entity, EntityUid, Value
from doorward.core.shadow import Measure

__all__ = ["Answer", "Effect", "Engine", "Loaded"]

# Slices of a large installation: some thousands of kinds of principals times kinds of resources.
_MAX_SLICES = 16_384
# A slice asked this often is worth its 0.2 ms of generating.
_HOT = 32
# A slice that could not be generated is not tried again for this many questions.
_TRIED = 1_000_000
_MAX_EXPRESSIONS = 65_536

Loaded: TypeAlias = World
_FORGE = Forge()


class Engine:
    """One admitted set of policies. Immutable but for bounded caches; safe to share between threads."""

    def __init__(  # noqa: PLR0913 -- switches, each with its usual value
        self,
        policies: Sequence[PolicyText],
        schema: str,
        *,
        guardrails: Sequence[PolicyText] = (),
        erring_forbid_denies: bool = True,
        hot: int | None = _HOT,
        beside: bool = True,
    ) -> None:
        """Load admitted trees; raise InvalidPolicyError when one cannot be used.

        A slice asked more than `hot` times is generated (tier 1); None keeps to tier 0. It is made
        `beside` deciding, in a thread of its own, or at once.
        """
        self._strict = erring_forbid_denies
        self._hot = hot
        try:
            self.schema = Schema.of(schema)
            self._rules = tuple(rules_of(policies, guardrails))
            self._tests = {rule.key: closures.policy(rule.tree) for rule in self._rules}
            self._index = Index(self._rules, self.schema)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, AnnotationError) as reason:
            raise InvalidPolicyError(
                f"the admitted policies cannot be loaded: {reason}", hint="Run `doorward check`."
            ) from reason
        self.literals = frozenset(uid for rule in self._rules for uid in scope.literals_read(rule.tree))
        self.by_id: Mapping[str, Rule] = {rule.id: rule for rule in self._rules}
        self._readers: dict[frozenset[str] | None, list[tuple[types.RecordType, contexts.Reader]]] = {}
        # One for each kind of context, of which there are as many as actions at most.
        self._checkers: list[tuple[types.RecordType, contexts.Checker | None]] = []
        self._slices: dict[Any, Slice] = {}
        self._expressions: dict[int, tuple[Mapping[str, Any], Expr]] = {}
        self._forge = _FORGE if beside else None
        self._functions = Functions(self._forge)
        self.looks = second.Looks(schema, self._distrust)

    @classmethod
    def of(cls, bundle: Bundle) -> Engine:
        """Load a bundle: its policies and, as forbids, its guardrails."""
        return cls(bundle.policies, bundle.schema, guardrails=bundle.guardrails)

    def load(self, entities: Mapping[EntityUid, Entity]) -> Loaded:
        """Check entities against the schema and keep them ready; raise InvalidRequestError if they fail."""
        world = self.world(entities.get, len(entities) * 2 + 64)
        try:
            for uid in entities:
                world.node(uid)
        except InvalidRequestError as reason:
            raise InvalidRequestError(f"entities do not fit the schema: {reason.message}") from reason
        return world

    def world(self, lookup: Lookup, limit: int, *, kept: Kept | None = None) -> Loaded:
        """Return the entities that `lookup` finds, each checked when it is first read.

        Worlds of this engine that follow each other share `kept`: what has not changed is not read again.
        """
        return World(lookup, self.schema, limit, kept)

    def evaluate(self, request: AccessRequest, loaded: Loaded) -> Answer:
        """Return what the policies say of one request on these entities. No I/O; never raises on data."""
        try:
            principal, resource, slice_ = self.meet(
                request.principal, request.action, request.resource, loaded
            )
            if slice_.context is None:
                return _outside(request.principal, request.action, request.resource)
            read = slice_.read or self._reader(slice_, slice_.context)
            if slice_.fast is None:
                self._count(slice_, slice_, live=True)
            answer = self._answered(slice_, read, request, (principal, resource), loaded)
            slice_.until -= 1
            return answer if slice_.until >= 0 else self.looks.look(slice_, request, answer, loaded)
        except DoorwardError as reason:
            return undecided(reason.message)
        except Exception as reason:  # noqa: BLE001 -- whatever goes wrong in here, the answer is deny
            return undecided(f"{type(reason).__name__}: {reason}")

    def _answered(
        self,
        slice_: Slice,
        read: contexts.Reader,
        request: AccessRequest,
        nodes: tuple[Node, Node],
        loaded: Loaded,
    ) -> Answer:
        if (fast := slice_.fast) is not None:
            with suppress(Exception):  # an error, or a case the generated code leaves to tier 0
                return slice_.answer(fast(*nodes, request.context, loaded))
        context = read(request.context)
        return slice_.exact(Env(request.principal, request.action, request.resource, context, loaded))

    def evaluate_record(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: dict[str, Any],
        *,
        loaded: Loaded,
    ) -> Answer:
        """Evaluate with the context in Cedar JSON."""
        try:
            actor, target, slice_ = self.meet(principal, action, resource, loaded)
            if slice_.context is None:
                return _outside(principal, action, resource)
            record = types.read(context, slice_.context, "context")
            lane = slice_.records
            if lane.fast is None:
                self._count(slice_, lane, live=False)
            if (fast := lane.fast) is not None:
                with suppress(Exception):  # as above
                    return slice_.answer(fast(actor, target, record, loaded))
            return slice_.exact(Env(principal, action, resource, record, loaded))
        except DoorwardError as reason:
            return undecided(reason.message)
        except Exception as reason:  # noqa: BLE001 -- whatever goes wrong in here, the answer is deny
            return undecided(f"{type(reason).__name__}: {reason}")

    def values(self, request: AccessRequest, loaded: Loaded) -> Callable[[Mapping[str, Any]], Value]:
        """Return what evaluates expressions of policies that do not name the resource.

        Raises InvalidRequestError where the request fits no action of the schema: it is denied whatever
        the resource. What is returned raises Fault where an expression errs, ValueError where its value
        has no form outside, and InvalidRequestError where it reads an entity that breaks the schema.
        """
        known = self.schema.actions.get(request.action)
        if known is None or request.principal.type not in known.principals:
            raise InvalidRequestError(f"the schema has no such {request.action.cedar}")
        if loaded.node(request.principal) is None:
            loaded.stranger(request.principal)
        context = types.taken(request.context.to_record(), known.context, "context")
        env = Env(request.principal, request.action, EntityUid("", ""), context, loaded)
        return lambda tree: outside(self._expression(tree)(env))

    def _expression(self, tree: Mapping[str, Any]) -> Expr:
        """Compile once; the tree is kept, so that its identity stays its own."""
        kept = self._expressions.get(id(tree))
        if kept is None:
            if len(self._expressions) >= _MAX_EXPRESSIONS:
                self._expressions.clear()
            self._expressions[id(tree)] = kept = (tree, closures.compiled(tree))
        return kept[1]

    def meet(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, loaded: Loaded
    ) -> tuple[Node, Node, Slice]:
        """Return what acts, what is acted on, and the policies of such requests."""
        actor = loaded.node(principal) or loaded.stranger(principal)
        target = loaded.node(resource) or loaded.stranger(resource)
        key = (
            action,
            actor.as_principal or self._as_principal(actor),
            target.as_resource or self._as_resource(target),
        )
        return actor, target, self._slices.get(key) or self._new_slice(key)

    def sieve(self, request: AccessRequest, loaded: Loaded) -> Sieve | None:
        """Return what tells which resources a request allows; its own is not read. None: it allows none.

        The same as evaluating each request by itself, but what does not name the resource is done once.
        """
        known = self.schema.actions.get(request.action)
        if known is None:
            return None
        try:
            principal = loaded.node(request.principal) or loaded.stranger(request.principal)
            record = types.taken(request.context.to_record(), known.context, "context")
        except DoorwardError:
            return None
        return Sieve(
            principal=principal,
            action=request.action,
            record=record,
            world=loaded,
            index=self._index,
            tests=self._tests,
            schema=self.schema,
            strict=self._strict,
        )

    @property
    def tier_1(self) -> Mapping[str, int]:
        """Return how many functions were generated, failed, refused, forgotten and distrusted."""
        return dict(self._functions.counts)

    def distrust(self, request: AccessRequest, loaded: Loaded) -> None:
        """Keep the policies of such requests on tier 0 from now on: their function was seen to be wrong."""
        self._distrust(self.meet(request.principal, request.action, request.resource, loaded)[2])

    def _distrust(self, slice_: Slice) -> None:
        for lane, live in ((slice_, True), (slice_.records, False)):
            self._functions.distrust(_key(slice_, live=live), lane)

    def restrict(self, measures: Mapping[str, Measure]) -> None:
        """Put slices under measures, now and whenever they are made. Callable from any thread."""
        self.looks.measures = dict(measures)
        for slice_ in tuple(self._slices.values()):
            self.looks.bind(slice_)

    def settle(self, timeout: float = 60.0) -> bool:
        """Wait until every function ordered so far is made; return whether it was in time (seconds)."""
        return self._forge is None or self._forge.settle(timeout)

    def _count(self, slice_: Slice, lane: Lane, *, live: bool) -> None:
        """Order the function of a slice that has been asked often enough."""
        lane.asked += 1
        if self._hot is None or lane.asked <= self._hot or slice_.context is None:
            return
        # Once ordered it is not asked for again; refused, it is after as many questions.
        lane.asked = -_TRIED
        parts, size = partial(self._parts, slice_, slice_.context, live=live), max(1, len(slice_.rules))
        if not self._functions.order(lane, _key(slice_, live=live), parts, size=size):
            lane.asked = 0

    def _parts(self, slice_: Slice, context: types.RecordType, *, live: bool) -> Iterator[generated.Fast]:
        check = self._checker(context) if live else None
        read = slice_.read or self._reader(slice_, context)
        if check is not None:
            circumstances = Circumstances(context, check, read)
            yield from generated.parts(slice_.rules, slice_.asks, self.schema, circumstances)
            return
        for part in generated.parts(slice_.rules, slice_.asks, self.schema):
            yield generated.reading(part, read) if live else part

    def _checker(self, context: types.RecordType) -> contexts.Checker | None:
        for wanted, checker in self._checkers:
            if wanted is context or wanted == context:
                return checker
        made = contexts.checker(context)
        self._checkers.append((context, made))
        return made

    def _as_principal(self, node: Node) -> Any:
        node.as_principal = self._index.as_principal(node)
        return node.as_principal

    def _as_resource(self, node: Node) -> Any:
        node.as_resource = self._index.as_resource(node)
        return node.as_resource

    def _new_slice(self, key: Any) -> Slice:
        action, principal, resource = key
        rules = self._index.rules(action, principal, resource)
        known = self.schema.actions.get(action)
        fits = known is not None and principal.type in known.principals and resource.type in known.resources
        context = known.context if known is not None and fits else None
        asks = Asks(principal.type, action, resource.type)
        made = Slice(asks, rules, [self._tests[rule.key] for rule in rules], context, strict=self._strict)
        self.looks.begin(made)
        if len(self._slices) >= _MAX_SLICES:
            self._slices.clear()
        self._slices[key] = made
        return made

    def _reader(self, slice_: Slice, context: types.RecordType) -> contexts.Reader:
        """Give a slice what reads contexts for its rules; shared by all slices that read the same."""
        named = {rule.reads for rule in slice_.rules}
        reads = None if None in named else frozenset[str]().union(*[one for one in named if one is not None])
        if len(self._readers) >= _MAX_SLICES:
            self._readers.clear()
        known = self._readers.setdefault(reads, [])
        for wanted, reader in known:
            if wanted is context or wanted == context:
                slice_.read = reader
                return reader
        slice_.read = made = contexts.reader(context, reads)
        known.append((context, made))
        return made

    def applicable(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, loaded: Loaded
    ) -> tuple[Rule, ...]:
        """Return every policy whose scope holds; the rest cannot be satisfied and cannot err."""
        return self.meet(principal, action, resource, loaded)[2].rules

    def permits_for_others(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, loaded: Loaded
    ) -> tuple[Rule, ...]:
        """Return the permits whose scope holds but for the principal, in the order of their ids."""
        mine = {rule.key for rule in self.applicable(principal, action, resource, loaded)}
        above = loaded.above(resource)
        known = self.schema.actions.get(action)
        groups = frozenset[EntityUid]() if known is None else known.groups
        return tuple(
            rule
            for rule in sorted(self._rules, key=lambda rule: rule.id)
            if not rule.forbid
            and rule.key not in mine
            and rule.resource.matches(resource, above)
            and (rule.actions is None or action in rule.actions or not groups.isdisjoint(rule.actions))
        )

    def environment(self, request: AccessRequest, loaded: Loaded) -> Env | None:
        """Return what a request's policies read; None for one that the schema does not know."""
        _, _, slice_ = self.meet(request.principal, request.action, request.resource, loaded)
        if slice_.context is None:
            return None
        context = (slice_.read or self._reader(slice_, slice_.context))(request.context)
        return Env(request.principal, request.action, request.resource, context, loaded)

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
                if not outcome.false and not (outcome.error and not self._strict):
                    return False
            else:
                possible_permit = possible_permit or outcome.true
        return possible_permit


def _key(slice_: Slice, *, live: bool) -> Hashable:
    """Return what functions are shared by; rules go by identity and live as long as the engine."""
    return tuple(map(id, slice_.rules)), slice_.asks, live


def _outside(principal: EntityUid, action: EntityUid, resource: EntityUid) -> Answer:
    return undecided(f"the schema has no {action.cedar} of a {principal.type} on a {resource.type}")
