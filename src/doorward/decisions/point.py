"""Hold the newest bundle and snapshot, and decide every request on one of each.

A `Standpoint` never changes: everything one request asks is answered on the same two versions.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from doorward.cedar.engine import Answer, Engine, Loaded
from doorward.cedar.scope import Rule
from doorward.core.context import Context
from doorward.core.decision import AccessRequest, Decision, Effect
from doorward.core.errors import InvalidRequestError, UnavailableError
from doorward.core.feed import Bundle, Delta
from doorward.core.identity import Caller
from doorward.core.model import Action, Entity, EntityUid
from doorward.core.obligation import Notify
from doorward.core.values import entity_to_json, to_json, uid_to_json
from doorward.decisions.explaining import Explanation
from doorward.decisions.joining import join
from doorward.directory.snapshot import Snapshot

_MAX_LOADED = 4096
_VIEW = Action.VIEW.uid
# Stands where a context is asked for and none is read.
_ANY_CONTEXT = Context(now=datetime.fromtimestamp(0, UTC))


class Standpoint:
    """Answer questions on one bundle and one snapshot. Made by `DecisionPoint.pin`."""

    def __init__(self, engine: Engine, bundle: Bundle, snapshot: Snapshot) -> None:
        """Keep the versions; what is loaded for a question is kept for the next, within a bound."""
        self.snapshot = snapshot
        self.bundle = bundle
        self.bundle_digest = bundle.digest
        self.entities_version = f"v{snapshot.version}"
        self._engine = engine
        self._loaded: dict[tuple[EntityUid, ...], Loaded] = {}
        self._explanation = Explanation(engine, snapshot)

    def decide(self, request: AccessRequest) -> Decision:
        """Return the decision on `request`. No I/O, never raises: what cannot be decided is denied."""
        refused = self._unknown(request)
        if refused is not None:
            return self._decision(Answer(Effect.DENY, (), (refused,)))
        try:
            loaded = self._load(request)
        except InvalidRequestError as reason:
            return self._decision(Answer(Effect.DENY, (), (f"request: {reason.message}",)))
        return self._decision(self._engine.evaluate(request, loaded))

    def explain(self, request: AccessRequest, decision: Decision, caller: Caller | None) -> Decision:
        """Return a denial with `would_allow` and `advice`, within what the caller may be told.

        Advice of an erring policy is not told: nobody knows whether it applies.
        """
        if decision.allowed or self._unknown(request) is not None:
            return decision
        try:
            loaded = self._load(request)
        except InvalidRequestError:
            return decision
        told = self._explanation.of(request, decision, caller, loaded=loaded, decide=self.decide)
        return msgspec.structs.replace(decision, would_allow=told.changes, advice=told.advice)

    def visible(self, principal: EntityUid, resource: EntityUid) -> bool:
        """Return whether `view` is not constantly denied, whatever the circumstances.

        Unknown or inactive principals see nothing; an unknown resource does not exist.
        """
        request = AccessRequest(principal, _VIEW, resource, _ANY_CONTEXT)
        if self._unknown(request) is not None:
            return False
        try:
            return self._engine.could_allow(request, self._load(request))
        except InvalidRequestError:
            return False

    def touching(self, request: AccessRequest) -> tuple[str, ...]:
        """Return the ids of the policies that may bear on a request in some context.

        The request's own context is not read. Empty means for certain: no context leads to an allow.
        """
        if self._unknown(request) is not None:
            return ()
        try:
            loaded = self._load(request)
        except InvalidRequestError:
            return ()
        if not self._engine.could_allow(request, loaded):
            return ()
        rules = self._engine.applicable(request.principal, request.action, request.resource, loaded)
        outcomes = ((rule.id, self._engine.outcome(rule, request, loaded)) for rule in rules)
        return tuple(name for name, outcome in outcomes if outcome.true or outcome.error)

    def supposing(self, entities: Iterable[Entity]) -> Standpoint:
        """Return this standpoint with more entities, for one question; its versions keep their names."""
        known = tuple(entity_to_json(entity) for entity in entities)
        delta = Delta(version=self.snapshot.version + 1, entities=known)
        supposed = Standpoint(self._engine, self.bundle, self.snapshot.with_delta(delta))
        supposed.entities_version = self.entities_version
        return supposed

    def inputs(self, request: AccessRequest) -> str:
        """Return the sha256 (hex) of the canonical JSON of everything the decision reads."""
        entities = self._entities(request)
        document = {
            "action": uid_to_json(request.action),
            "context": to_json(request.context.to_record()),
            "entities": [entity_to_json(entities[uid]) for uid in sorted(entities)],
            "principal": uid_to_json(request.principal),
            "resource": uid_to_json(request.resource),
        }
        try:
            canonical = msgspec.json.encode(document, order="deterministic")
        except UnicodeEncodeError:  # a name that is no text was denied, and still needs its record
            canonical = json.dumps(document, sort_keys=True).encode()
        return hashlib.sha256(canonical).hexdigest()

    def _unknown(self, request: AccessRequest) -> str | None:
        """Return why the request is denied before any policy is asked, or None."""
        principal = self.snapshot.resolve(request.principal)
        if principal is None:
            return "request: the principal is not known"
        if principal.attrs.get("active") is not True:
            return "request: the principal is not active"
        if self.snapshot.resolve(request.resource) is None:
            return "request: the resource is not known"
        actor = request.context.actor
        if actor is not None and not self.snapshot.is_active(actor):
            return "request: the acting agent is not known or not active"
        return None

    def _load(self, request: AccessRequest) -> Loaded:
        key = tuple(_named(request))
        loaded = self._loaded.get(key)
        if loaded is None:
            loaded = self._engine.load(self._entities(request))
            if len(self._loaded) >= _MAX_LOADED:
                self._loaded.clear()
            self._loaded[key] = loaded
        return loaded

    def _entities(self, request: AccessRequest) -> Mapping[EntityUid, Entity]:
        return self.snapshot.closure(_named(request))

    def _decision(self, answer: Answer) -> Decision:
        rules = [self._engine.by_id[name] for name in answer.determining]
        demanded = [obligation for rule in rules for obligation in rule.obligations]
        allowed = answer.effect is Effect.ALLOW
        kept = demanded if allowed else [o for o in demanded if isinstance(o, Notify)]
        return Decision(
            effect=answer.effect,
            determining=answer.determining,
            obligations=join(kept),
            advice=() if allowed else _advice(rules),
            errors=answer.errors,
            bundle=self.bundle_digest,
            entities=self.entities_version,
        )


class DecisionPoint:
    """Keep the newest bundle and snapshot; safe to publish from another thread than it is read."""

    def __init__(self) -> None:
        """Know nothing: until a bundle and a snapshot are there, nothing is decided."""
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._bundle: Bundle | None = None
        self._snapshot: Snapshot | None = None
        self._standpoint: Standpoint | None = None
        self.changed = 0

    def publish(self, bundle: Bundle) -> None:
        """Decide by this bundle from now on; raise InvalidPolicyError and keep the old one if it fails."""
        engine = Engine.of(bundle)
        with self._lock:
            self._engine, self._bundle = engine, bundle
            self._move()

    def advance(self, snapshot: Snapshot) -> None:
        """Decide on this snapshot from now on."""
        with self._lock:
            self._snapshot = snapshot
            self._move()

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
            self._standpoint = Standpoint(self._engine, self._bundle, self._snapshot)
        self.changed += 1


def _advice(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(r.annotations["advice"] for r in rules if "advice" in r.annotations))


def _named(request: AccessRequest) -> Iterator[EntityUid]:
    """Yield every entity the request names, in one order."""
    yield request.principal
    yield request.resource
    context = request.context
    for uid in (context.device.id, context.actor, context.environment, context.request.arguments):
        if uid is not None:
            yield uid
