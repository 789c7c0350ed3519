"""The shadow check: decide samples of live decisions again, exactly and by Cedar itself, and compare.

It runs in a process of its own, beside the feed, on the very bundle and version of entities that the
decision stood on. What it finds is a measure on the slice (`core.shadow.Measure`):

1. live differs, tier 0 and Cedar agree: the generated function is at fault -> EXACT. If it was tier 0
   that answered live, that process reads something wrongly -> ORACLE.
2. tier 0 differs from Cedar: our evaluator is at fault -> ORACLE; if Cedar on the slice's policies alone
   says something else than Cedar on all, it was the choice of policies -> DENY.
3. a slice under ORACLE still allows what Cedar denies -> DENY.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Final

import msgspec
import structlog

from doorward.cedar.engine import Answer, Engine, Loaded
from doorward.cedar.oracle import NoOpinionError, Opinion, Oracle
from doorward.cedar.slices import Slice
from doorward.core.decision import Effect
from doorward.core.feed import Bundle, PolicyText
from doorward.core.shadow import Measure, Sample
from doorward.directory.snapshot import Snapshot

_BUNDLES: Final = 2
_SNAPSHOTS: Final = 64
_MAX_KNOWN: Final = 4096
_HELD = frozenset({Measure.ORACLE, Measure.DENY})
_log = structlog.get_logger()


class State(Enum):
    """Say what became of a sample."""

    AGREES = "agrees"
    DIFFERS = "differs"
    WAITS = "waits"  # for a version that has not arrived here yet
    GONE = "gone"  # its version is no longer kept
    FAILED = "failed"  # the check itself could not be carried out


class Verdict(msgspec.Struct, frozen=True):
    """What the check says of one sample; the rest is filled in where it differs."""

    state: State
    measure: Measure | None = None
    slice: str = ""
    policies: tuple[str, ...] = ()
    said: dict[str, str] = msgspec.field(default_factory=dict)


class Check:
    """Judge samples on the versions they stood on; a few of each are kept."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._bundles: OrderedDict[str, Bundle] = OrderedDict()
        self._judges: dict[str, _Judge] = {}
        self._snapshots: OrderedDict[int, Snapshot] = OrderedDict()

    def on_bundle(self, bundle: Bundle) -> None:
        """Keep a bundle; it is loaded when the first sample asks for it."""
        self._bundles[bundle.digest] = bundle
        self._bundles.move_to_end(bundle.digest)
        while len(self._bundles) > _BUNDLES:
            digest, _ = self._bundles.popitem(last=False)
            self._judges.pop(digest, None)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a version of the entities; versions that went back (a restore) replace what was."""
        if self._snapshots and snapshot.version < next(reversed(self._snapshots)):
            self._snapshots.clear()
        self._snapshots[snapshot.version] = snapshot
        while len(self._snapshots) > _SNAPSHOTS:
            self._snapshots.popitem(last=False)

    def judge(self, sample: Sample) -> Verdict:
        """Decide a sample again. Never raises: a check that cannot be carried out is told and counted."""
        bundle, snapshot = self._bundles.get(sample.bundle), self._snapshots.get(sample.entities)
        if bundle is None or snapshot is None:
            newest = next(reversed(self._snapshots), -1)
            old = bundle is not None and sample.entities < newest
            return Verdict(State.GONE if old else State.WAITS)
        try:
            judge = self._judges.get(sample.bundle)
            if judge is None:
                judge = self._judges[sample.bundle] = _Judge(bundle)
            return judge.compare(sample, snapshot)
        except Exception as reason:  # noqa: BLE001 -- one sample that cannot be judged must not end the check
            _log.error("shadow_check_failed", kind=type(reason).__name__, action=str(sample.action))
            return Verdict(State.FAILED)


class _Judge:
    """Tier 0 and Cedar on one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._engine = Engine(bundle.policies, bundle.schema, guardrails=bundle.guardrails, hot=None)
        self._oracle = Oracle.of(bundle)
        self._world: tuple[Snapshot, Loaded] | None = None

    def compare(self, sample: Sample, snapshot: Snapshot) -> Verdict:
        loaded = self._loaded(snapshot)
        live = Opinion(sample.effect, sample.determining, sample.erring)
        exact = _told(
            self._engine.evaluate_record(
                sample.principal, sample.action, sample.resource, sample.context, loaded=loaded
            )
        )
        cedar = _asked(self._oracle, sample, loaded)
        slice_ = self._engine.meet(sample.principal, sample.action, sample.resource, loaded)[2]
        measure = self._measure(sample, live, exact, cedar, slice_=slice_, loaded=loaded)
        if measure is None:
            return Verdict(State.AGREES)
        return Verdict(
            State.DIFFERS,
            measure,
            slice=sample.slice,
            policies=tuple(rule.id for rule in slice_.rules),
            said={"live": _said(live), "tier 0": _said(exact), "cedar": _said(cedar)},
        )

    def _measure(  # noqa: PLR0913 -- three opinions and what they are about
        self,
        sample: Sample,
        live: Opinion,
        exact: Opinion,
        cedar: Opinion | None,
        *,
        slice_: Slice,
        loaded: Loaded,
    ) -> Measure | None:
        if cedar is None:
            # Outside what Cedar decides only a denial is right.
            return None if Effect.ALLOW not in {live.effect, exact.effect} else Measure.ORACLE
        if sample.measure in _HELD:
            return Measure.DENY if (live.effect, cedar.effect) == (Effect.ALLOW, Effect.DENY) else None
        if exact == cedar:
            if live == exact:
                return None
            return Measure.EXACT if sample.generated else Measure.ORACLE
        alone = Oracle([_text(rule.id, rule.tree) for rule in slice_.rules], self._bundle.schema)
        return Measure.ORACLE if _asked(alone, sample, loaded) == cedar else Measure.DENY

    def _loaded(self, snapshot: Snapshot) -> Loaded:
        if self._world is None or self._world[0] is not snapshot:
            self._world = (snapshot, self._engine.world(snapshot.lookup, _MAX_KNOWN))
        return self._world[1]


def _text(name: str, tree: object) -> PolicyText:
    return PolicyText(id=name, text="", tree=dict(tree))  # type: ignore[call-overload]  # a policy's tree


def _asked(oracle: Oracle, sample: Sample, loaded: Loaded) -> Opinion | None:
    try:
        return oracle.opinion(
            sample.principal, sample.action, sample.resource, sample.context, lookup=loaded.entities.get
        )
    except NoOpinionError as reason:
        _log.info("shadow_without_opinion", action=str(sample.action), reason=reason.message)
        return None


def _told(answer: Answer) -> Opinion:
    erring = (error.partition(":")[0] for error in answer.errors)
    return Opinion(answer.effect, tuple(sorted(answer.determining)), tuple(sorted(erring)))


def _said(opinion: Opinion | None) -> str:
    if opinion is None:
        return "no decision"
    said = f"{opinion.effect.value} [{', '.join(opinion.determining)}]"
    return f"{said} (erring: {', '.join(opinion.erring)})" if opinion.erring else said
