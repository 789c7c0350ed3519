"""Hold the newest bundle and snapshot, and decide every request on one of each.

A `Standpoint` never changes: everything one request asks is answered on the same two versions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from doorward.cedar.engine import Answer, Engine, Loaded
from doorward.cedar.env import Env
from doorward.cedar.schema import Schema
from doorward.cedar.scope import Rule
from doorward.cedar.sharing import shared
from doorward.cedar.slices import Slice, Watch
from doorward.cedar.world import Kept, Lookup, Node
from doorward.core.context import Context
from doorward.core.decision import AccessRequest, Decision, Effect
from doorward.core.errors import InvalidRequestError, UnavailableError
from doorward.core.feed import Bundle, Delta, PolicyText
from doorward.core.identity import Caller
from doorward.core.model import Action, Entity, EntityUid, Value
from doorward.core.shadow import Measure, stricter
from doorward.core.values import entity_to_json
from doorward.core.versions import AtLeast
from doorward.decisions import arrivals
from doorward.decisions.arrivals import Arrivals
from doorward.decisions.assembling import assembled
from doorward.decisions.explaining import Explanation
from doorward.decisions.inputs import Inputs
from doorward.directory.snapshot import Snapshot

_MAX_KNOWN = 262_144
_MAX_KINDS = 16_384
_MAX_DECISIONS = 16_384
_VIEW = Action.VIEW.uid
_AGENT = EntityUid.of("Agent", "").type
_UNKNOWN_RESOURCE = "request: the resource is not known"
# Stands where a context is asked for and none is read.
_ANY_CONTEXT = Context(now=datetime.fromtimestamp(0, UTC))


class Standpoint:
    """Answer questions on one bundle and one snapshot. Made by `DecisionPoint.pin`."""

    def __init__(
        self, engine: Engine, bundle: Bundle, snapshot: Snapshot, *, kept: Kept | None = None
    ) -> None:
        """Keep the versions; what is loaded for a question is kept for the next, within a bound.

        What standpoints of the same engine read is in `kept`, used again where it has not changed.
        """
        self.snapshot = snapshot
        self.bundle = bundle
        self.bundle_digest = bundle.digest
        self.entities_version = f"v{snapshot.version}"
        self._engine = engine
        self._kept = Kept() if kept is None else kept
        self._world = engine.world(snapshot.lookup, _MAX_KNOWN, kept=self._kept)
        self._world.stands_on = (bundle.digest, snapshot.version)
        # Who is known and active, and what is known, as the engine reads them.
        self._actors: dict[EntityUid, Node] = {}
        self._targets: dict[EntityUid, Node] = {}
        # The decisions of a kind of request by what its policies say: each is assembled once.
        self._kinds: dict[Any, tuple[Slice, dict[int, Decision]]] = {}
        self._decided = 0
        self._inputs = Inputs(snapshot, engine.literals)
        self._explanation = Explanation(engine, snapshot)

    @property
    def schema(self) -> Schema:
        """Return the schema requests and entities are checked against."""
        return self._engine.schema

    def decide(self, request: AccessRequest) -> Decision:
        """Return the decision on `request`. No I/O, never raises: what cannot be decided is denied."""
        context = request.context
        try:
            principal, resource = self._actors[request.principal], self._targets[request.resource]
            kept, decisions = self._kinds[request.action, principal.as_principal, resource.as_resource]
            if (fast := kept.fast) is not None and context.actor is None:
                satisfied = fast(principal, resource, context, self._world)
                kept.until -= 1
                if kept.until < 0:
                    self._engine.looks.look(kept, request, kept.answer(satisfied), self._world)
                found = decisions.get(satisfied)
                return self._decided_anew(kept, decisions, satisfied) if found is None else found
        except Exception:  # noqa: BLE001, S110 -- what is not kept or not usual is decided at length
            pass
        return self._at_length(request)

    def _at_length(self, request: AccessRequest) -> Decision:
        refused = self._unknown(request)
        if refused is not None:
            return self._decision(Answer(Effect.DENY, (), (refused,)))
        self._keep(request)
        return self._decision(self._engine.evaluate(request, self._world))

    def explain(self, request: AccessRequest, decision: Decision, caller: Caller | None) -> Decision:
        """Return a denial with `would_allow` and `advice`, within what the caller may be told.

        Advice of an erring policy is not told: nobody knows whether it applies.
        """
        if decision.allowed or self._unknown(request) is not None:
            return decision
        try:
            told = self._explanation.of(request, decision, caller, loaded=self._world, decide=self.decide)
        except InvalidRequestError:
            return decision
        return msgspec.structs.replace(decision, would_allow=told.changes, advice=told.advice)

    def visible(self, principal: EntityUid, resource: EntityUid) -> bool:
        """Return whether `view` is not constantly denied, whatever the circumstances.

        Unknown or inactive principals see nothing; an unknown resource does not exist.
        """
        request = AccessRequest(principal, _VIEW, resource, _ANY_CONTEXT)
        if self._unknown(request) is not None:
            return False
        try:
            return self._engine.could_allow(request, self._world)
        except InvalidRequestError:
            return False

    def touching(self, request: AccessRequest) -> tuple[str, ...]:
        """Return the ids of the policies that may bear on a request in some context.

        The request's own context is not read. Empty means for certain: no context leads to an allow.
        """
        if self._unknown(request) is not None:
            return ()
        engine, world = self._engine, self._world
        try:
            if not engine.could_allow(request, world):
                return ()
            rules = engine.applicable(request.principal, request.action, request.resource, world)
            outcomes = [(rule.id, engine.outcome(rule, request, world)) for rule in rules]
        except InvalidRequestError:
            return ()
        return tuple(name for name, outcome in outcomes if outcome.true or outcome.error)

    def supposing(self, entities: Iterable[Entity]) -> Standpoint:
        """Return this standpoint with more entities, for one question; its versions keep their names."""
        known = tuple(entity_to_json(entity) for entity in entities)
        delta = Delta(version=self.snapshot.version + 1, entities=known)
        kept = self._kept.after(None, self.schema)
        supposed = Standpoint(self._engine, self.bundle, self.snapshot.with_delta(delta), kept=kept)
        supposed.entities_version = self.entities_version
        supposed._world.stands_on = None  # nobody else knows these entities
        return supposed

    def among(self, request: AccessRequest, resources: Iterable[EntityUid]) -> Iterator[EntityUid]:
        """Yield the resources on which the request is allowed; its own is not read.

        The same as `decide` for each, but what does not depend on the resource is evaluated once.
        """
        if self.refused(request) is not None:
            return
        if self._engine.looks.measures:
            # Only deciding itself knows of measures.
            each = (msgspec.structs.replace(request, resource=uid) for uid in resources)
            yield from (asked.resource for asked in each if self.decide(asked).allowed)
            return
        sieve = self._engine.sieve(request, self._world)
        if sieve is None:
            return
        allows, targets = sieve.allows, self._targets
        for uid in resources:
            node = targets.get(uid) or self._target(uid)
            if node is not None and allows(node):
                yield uid

    def regions(
        self,
        request: AccessRequest,
        within: str,
        *,
        uid_of: Callable[[str], EntityUid],
        also: Iterable[str] = (),
    ) -> tuple[tuple[str, bool | None], ...] | None:
        """Return the verdicts on what lies under a name, by name (`decisions.regions`); None: decide each."""
        if self._engine.looks.measures:
            return None  # some answers are held to more than the policies say
        from doorward.decisions.regions import regions  # noqa: PLC0415 -- it rests on this module

        return regions(request, self, within, uid_of=uid_of, also=also)

    def _target(self, uid: EntityUid) -> Node | None:
        """Return a known resource as the engine reads it; None for one that no request is allowed on."""
        try:
            node = self._world.node(uid)
        except InvalidRequestError:
            return None
        if node is None or not (node.registered or self.snapshot.resolve(uid) is not None):
            return None
        node.registered = True
        if len(self._targets) >= _MAX_KNOWN:
            self._targets.clear()
        self._targets[uid] = node
        return node

    def world(self, lookup: Lookup | None = None) -> Loaded:
        """Return the entities decisions read here; with `lookup` other ones, checked as they are read."""
        return self._world if lookup is None else self._engine.world(lookup, _MAX_KNOWN)

    def values(self, request: AccessRequest, world: Loaded) -> Callable[[Mapping[str, Any]], Value]:
        """Return what evaluates expressions that do not name the resource (`cedar.engine.Engine.values`)."""
        return self._engine.values(request, world)

    def decide_in(self, request: AccessRequest, world: Loaded) -> Decision:
        """Decide with other entities than the directory's: those of `world`, which must know the resource."""
        refused = self.refused(request)
        if refused is None and world.entities.get(request.resource) is None:
            refused = _UNKNOWN_RESOURCE
        answer = (
            self._engine.evaluate(request, world) if refused is None else Answer(Effect.DENY, (), (refused,))
        )
        return self._decision(answer)

    def refused(self, request: AccessRequest) -> str | None:
        """Return why the request is denied whatever the resource is: nobody asks it; None otherwise."""
        said = self._principal(request.principal)
        return said if said is not None else self._actor(request.context.actor)

    # What explanations are made of

    def environment(self, request: AccessRequest) -> Env | None:
        """Return what the policies of a request read; None where it cannot be asked at all."""
        try:
            return self._engine.environment(request, self._world)
        except InvalidRequestError:
            return None

    def known(self, request: AccessRequest) -> bool:
        """Return whether everybody and everything a request names is known and active."""
        return self._unknown(request) is None

    def applicable(self, request: AccessRequest) -> tuple[Rule, ...]:
        """Return every policy whose scope holds for a request."""
        return self._engine.applicable(request.principal, request.action, request.resource, self._world)

    def permits_for_others(self, request: AccessRequest) -> tuple[Rule, ...]:
        """Return permits of this action on this resource that are for other principals."""
        return self._engine.permits_for_others(
            request.principal, request.action, request.resource, self._world
        )

    def policy(self, name: str) -> PolicyText | None:
        """Return a policy or guardrail by its id."""
        known = (*self.bundle.policies, *self.bundle.guardrails)
        return next((policy for policy in known if policy.id == name), None)

    def inputs(self, request: AccessRequest) -> str:
        """Return the sha256 (hex) of the canonical JSON of everything the decision reads."""
        return self._inputs.digest(request)

    def _unknown(self, request: AccessRequest) -> str | None:
        """Return why the request is denied before any policy is asked, or None."""
        if request.principal not in self._actors:
            refused = self._principal(request.principal)
            if refused is not None:
                return refused
        if request.resource not in self._targets and self.snapshot.resolve(request.resource) is None:
            return _UNKNOWN_RESOURCE
        return self._actor(request.context.actor)

    def _actor(self, actor: EntityUid | None) -> str | None:
        if actor is None or self.snapshot.is_active(actor):
            return None
        return "request: the acting agent is not known or not active"

    def _principal(self, uid: EntityUid) -> str | None:
        found = self.snapshot.resolve(uid)
        if found is None:
            return "request: the principal is not known"
        if found.attrs.get("active") is not True:
            return "request: the principal is not active"
        if uid.type == _AGENT and not self.snapshot.is_active(uid):
            return "request: the agent's owner is not known or not active"
        return None

    def _keep(self, request: AccessRequest) -> None:
        """Keep what was found to be known, and the policies of such requests, for the next question."""
        with suppress(InvalidRequestError):
            actor, target, slice_ = self._engine.meet(
                request.principal, request.action, request.resource, self._world
            )
            for table, node in ((self._actors, actor), (self._targets, target)):
                if len(table) >= _MAX_KNOWN:
                    table.clear()
                table[node.uid] = node
            key = request.action, actor.as_principal, target.as_resource
            if key not in self._kinds:
                if len(self._kinds) >= _MAX_KINDS:
                    self._kinds.clear()
                self._kinds[key] = slice_, {}

    def _decided_anew(self, kept: Slice, decisions: dict[int, Decision], satisfied: int) -> Decision:
        if self._decided >= _MAX_DECISIONS:
            for _, others in tuple(self._kinds.values()):
                others.clear()
            self._decided = 0
        self._decided += 1
        decisions[satisfied] = decision = self._decision(kept.answer(satisfied))
        return decision

    def _decision(self, answer: Answer) -> Decision:
        return assembled(
            answer, self._engine.by_id, bundle=self.bundle_digest, entities=self.entities_version
        )


class DecisionPoint:
    """Keep the newest bundle and snapshot; safe to publish from another thread than it is read."""

    def __init__(self, watch: Watch | None = None) -> None:
        """Know nothing: until a bundle and a snapshot are there, nothing is decided.

        `watch` takes decisions for the shadow check.
        """
        self._lock = threading.Lock()
        self._watch = watch
        self._measures: dict[str, Measure] = {}
        self._engine: Engine | None = None
        self._bundle: Bundle | None = None
        self._snapshot: Snapshot | None = None
        self._standpoint: Standpoint | None = None
        self._kept = Kept()
        self.changed = 0
        self.arrivals = Arrivals()

    def publish(self, bundle: Bundle) -> None:
        """Decide by this bundle from now on; raise InvalidPolicyError and keep the old one if it fails."""
        bundle = shared(bundle)
        engine = Engine.of(bundle)
        engine.looks.watch = self._watch
        with self._lock:
            engine.restrict(self._measures)
            self._engine, self._bundle, self._kept = engine, bundle, Kept()
            self._move()

    def restrict(self, measures: Mapping[str, Measure]) -> None:
        """Decide slices under measures from now on, in this bundle and those to come; none is ever relaxed.

        Open answers are decided again.
        """
        with self._lock:
            before = dict(self._measures)
            for name, measure in measures.items():
                self._measures[name] = stricter(before.get(name), measure) or measure
            if self._measures == before:
                return
            if self._engine is not None:
                self._engine.restrict(self._measures)
            self.changed += 1

    def advance(self, snapshot: Snapshot) -> None:
        """Decide on this snapshot from now on."""
        with self._lock:
            if self._engine is not None:
                changed = None if self._snapshot is None else snapshot.changed_from(self._snapshot)
                self._kept = self._kept.after(changed, self._engine.schema)
            self._snapshot = snapshot
            self._move()

    async def at_least(self, demand: AtLeast, seconds: float) -> None:
        """Return once decisions rest on what is demanded; raise BehindError after so long."""
        await arrivals.at_least(self, demand, seconds)

    @property
    def tier_1(self) -> Mapping[str, int]:
        """Return how many functions this bundle got: generated, failed, refused, forgotten, distrusted."""
        return {} if self._engine is None else self._engine.tier_1

    def settle(self, timeout: float = 60.0) -> bool:
        """Wait (seconds) until every function ordered so far is made; return whether it was in time."""
        return self._engine is None or self._engine.settle(timeout)

    def pin(self) -> Standpoint:
        """Return the present standpoint; raise UnavailableError until bundle and snapshot are there."""
        standpoint = self._standpoint
        if standpoint is None:
            missing = "policies" if self._bundle is None else "people and assets"
            raise UnavailableError(
                f"nothing is decided yet: the {missing} have not arrived",
                hint="Look at /readyz and at the log of the control plane.",
            )
        return standpoint

    def _move(self) -> None:
        if self._engine is not None and self._bundle is not None and self._snapshot is not None:
            self._standpoint = Standpoint(self._engine, self._bundle, self._snapshot, kept=self._kept)
        self.changed += 1
        self.arrivals.moved()
