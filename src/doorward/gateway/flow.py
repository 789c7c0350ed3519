"""A request walks in: ten numbered steps, free of any HTTP library; I/O only through ports.

(1) refuse the ambiguous  (2) who  (3) what  (4) under which circumstances  (5) decide  (6) reserve
(7) record, durably  (8) upstream  (9) obligations after, decided again while open  (10) outcome.
Every step that cannot be carried out refuses; nothing is forwarded before step 7 has succeeded.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping

import msgspec
import structlog

from doorward.core.clock import Clock
from doorward.core.decision import Decision, Effect
from doorward.core.errors import DeniedError, DoorwardError, UnavailableError
from doorward.core.ids import IdSource
from doorward.core.ports import AuditLog, LimitExceeded, LimitStore, Places, Reservation
from doorward.core.record import DecisionRecord
from doorward.core.wire import Answer, Peer, Request, UpstreamClient
from doorward.gateway.absence import absence
from doorward.gateway.adapter import Adapter, BodyNeed, Naming, Refining, Refusal, UnknownRouteError
from doorward.gateway.body import declared_length, whole
from doorward.gateway.circumstances import PURPOSE_HEADER, Circumstances, purpose_of
from doorward.gateway.faults import origin_of
from doorward.gateway.floods import Floods
from doorward.gateway.forwarding import Forwarding, Rejudge
from doorward.gateway.judgement import UNEXPLAINED, Judged, is_hidden, judge, said_of
from doorward.gateway.metadata import ProtectedResources
from doorward.gateway.obligations import breaks_readonly, challenge_of, counters, impossible, unmet_step_up
from doorward.gateway.passage import Passage
from doorward.gateway.ports import Authenticates, Meter, Point, Standpoint
from doorward.gateway.preconditions import await_demanded, require_bounded, require_demanded
from doorward.gateway.recording import decision_record, flood_record
from doorward.gateway.refusal import of_error, problem, refusal
from doorward.gateway.streams import Crowd, OpenAnswers
from doorward.gateway.surroundings import Surroundings
from doorward.gateway.visit import StepLeftOutError, TurnedAway, Visit, adapter_of, decided_on, unreadable
from doorward.http1.incoming import too_large
from doorward.settings import GatewaySettings

_log = structlog.get_logger()
REQUEST_ID_HEADER = "Doorward-Request-Id"
_NAMING_ATTEMPTS = 3


class Flow:
    """Carry requests through the ten steps. One per process; it holds no state of a request."""

    def __init__(  # noqa: PLR0913 -- the composition root names every part once
        self,
        *,
        authenticator: Authenticates,
        point: Point,
        adapters: Mapping[str, Adapter],
        upstreams: Mapping[str, UpstreamClient],
        audit: AuditLog,
        limits: LimitStore,
        open_answers: OpenAnswers,
        clock: Clock,
        ids: IdSource,
        settings: GatewaySettings,
        staleness: Callable[[], float],
        meter: Meter | None = None,
        resources: ProtectedResources | None = None,
        places: Places | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        """Take every port; `staleness` returns the seconds since the control plane was last heard.

        `resources` answers the metadata path, and challenges point to it. `places` are those that the
        gateways of the machine share.
        """
        self._authenticator, self._point = authenticator, point
        self._adapters, self._upstreams = adapters, upstreams
        # Asked once: whether a class fits a protocol is a slow question.
        self._refining = {name: one for name, one in adapters.items() if isinstance(one, Refining)}
        self._audit, self._limits = audit, limits
        self._clock, self._ids, self._settings = clock, ids, settings
        self._staleness, self._meter, self._resources = staleness, meter, resources
        around = self._surroundings = surroundings or Surroundings()
        self._floods = Floods(clock)
        self._crowd = Crowd(settings.streams_per_principal, gateways=settings.workers, places=places)
        self._forwarding = Forwarding(
            upstreams=upstreams,
            audit=audit,
            open_answers=open_answers,
            rejudge=Rejudge(authenticator=authenticator, pin=self._pin, clock=clock, around=around),
            changed=lambda: point.changed,
            clock=clock,
            ids=ids,
            max_body=settings.max_body,
        )

    async def handle(self, request: Request) -> Answer:
        """Return the answer to one request, which is in its one canonical reading (step 1)."""
        if self._resources is not None and (told := self._resources.answer(request)) is not None:
            return _identified(told, request.id)
        visit = Visit(request=request, started=self._clock.monotonic())
        code = "allowed"
        try:
            answer = await self._walk(visit)
        except TurnedAway as verdict:
            code = verdict.refusal.code
            visit.leave()
            answer = await self._turn_away(visit, verdict)
        except BaseException:
            visit.leave()
            raise
        self._count(visit, code, answer.status)
        return _identified(answer, request.id)

    async def malformed(self, error: DoorwardError, *, request_id: str, peer: Peer) -> Answer:
        """Refuse a request that has no canonical reading (step 1); floods are counted."""
        refused = of_error(error, request_id)
        visit = Visit(request=unreadable(request_id, peer), started=self._clock.monotonic())
        answer = await self._turn_away(visit, TurnedAway(refused))
        self._count(visit, refused.code, answer.status)
        return _identified(answer, request_id)

    async def _walk(self, visit: Visit) -> Answer:
        try:
            await self._who(visit)
            await await_demanded(visit, self._point)
            await self._surroundings.notice(visit, self._pin().snapshot)
            await self._what(visit)
            self._circumstances(visit)
            self._decide(visit)
            reservation = await self._reserve(visit)
        except DoorwardError as error:
            raise TurnedAway.by(error, visit.request.id) from error
        except (TurnedAway, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.error("flow_failed", request_id=visit.request.id, error=origin_of(error))
            raise TurnedAway(of_error(error, visit.request.id)) from error
        await self._record(visit, reservation)
        # (8) upstream, (9) obligations after, (10) outcome
        return await self._forwarding.carry(visit, reservation)

    # (2) Who

    async def _who(self, visit: Visit) -> None:
        visit.upstream = name = visit.request.path.split("/", 2)[1]
        visit.adapter = self._adapters.get(name)
        try:
            visit.caller = await self._authenticator.authenticate(visit.request)
        except DoorwardError:
            if visit.adapter is None:
                raise self._no_upstream(visit) from None
            raise
        if visit.adapter is None or name not in self._upstreams:
            raise self._no_upstream(visit)

    def _no_upstream(self, visit: Visit) -> TurnedAway:
        visit.upstream = ""
        detail = "No upstream has this name. The first segment of the path is the upstream's name."
        return TurnedAway(refusal("not_found", detail, visit.request.id))

    # (3) What

    async def _what(self, visit: Visit) -> None:
        adapter, request = adapter_of(visit), visit.request
        self._pin()
        match adapter.body_need(request):
            case BodyNeed.WHOLE:
                limit = min(self._settings.max_json_body, self._settings.max_body)
                visit.body = await whole(request, limit=limit, seconds=self._settings.body_timeout)
            case BodyNeed.STREAM:
                if (declared_length(request) or 0) > self._settings.max_body:
                    raise too_large(self._settings.max_body)
            case BodyNeed.NONE:
                pass
        naming = await self._named(visit, adapter)
        size = len(visit.body) or declared_length(request) or 0
        facts = msgspec.structs.replace(naming.facts, bytes=size)
        visit.naming = msgspec.structs.replace(naming, facts=facts)

    async def _named(self, visit: Visit, adapter: Adapter) -> Naming:
        """Name the request on the standpoint it will be decided on: after this, nothing awaits until then."""
        for _ in range(_NAMING_ATTEMPTS):
            visit.generation, visit.standpoint = self._point.changed, self._pin()
            require_demanded(visit)
            try:
                naming = adapter.name(visit.request, visit.body, visit.standpoint.snapshot)
            except UnknownRouteError as unknown:
                raise DeniedError(
                    f"`{visit.request.method}` on this path is no route that Doorward knows here",
                    hint="Routes that are not on the list are denied.",
                ) from unknown
            require_bounded(naming)
            refining = self._refining.get(visit.upstream)
            if refining is not None:
                naming = await self._refined(visit, refining, naming)
                require_bounded(naming)
            if self._point.changed == visit.generation:
                return naming
        raise UnavailableError("what is known changed while the request was read", hint="Try again.")

    async def _refined(self, visit: Visit, adapter: Refining, naming: Naming) -> Naming:
        standpoint, caller = visit.standpoint, visit.caller
        if standpoint is None or caller is None:
            raise StepLeftOutError
        # What may not even be seen is not probed: its denial needs no answer of the upstream.
        if not all(standpoint.visible(caller.principal, ask.resource) for ask in naming.asks):
            return naming
        probe = Passage(
            self._upstreams[visit.upstream],
            adapter_of(visit).settings,
            caller=visit.request.headers,
            probe=True,
        )
        try:
            return await adapter.refine(visit.request, naming, probe)
        finally:
            await probe.close()

    def _pin(self) -> Standpoint:
        if self._staleness() > self._settings.max_staleness:
            raise UnavailableError(
                "what is known is too old to decide on",
                hint="The control plane has not been heard for too long.",
            )
        return self._point.pin()

    # (4) Under which circumstances

    def _circumstances(self, visit: Visit) -> None:
        standpoint, caller, naming = visit.standpoint, visit.caller, visit.naming
        if standpoint is None or caller is None or naming is None:
            raise StepLeftOutError
        claimed, ip = visit.request.header(PURPOSE_HEADER), visit.request.peer.ip
        purpose = purpose_of(caller, claimed, standpoint.snapshot)
        brought = Circumstances(
            caller=caller, ip=ip, purpose=purpose, facts=naming.facts, arguments=naming.arguments
        )
        visit.circumstances = self._surroundings.renewed(brought, standpoint.snapshot)

    # (5) Decide

    def _decide(self, visit: Visit) -> None:
        standpoint, circumstances, naming = decided_on(visit)
        if not self._authenticator.still_valid(circumstances.caller):
            raise DeniedError("the credential ended while the request was read", hint="Sign in again.")
        visit.judgement = judgement = judge(
            standpoint, naming.asks, circumstances=circumstances, now=self._clock.now()
        )
        visit.obligations = judgement.obligations
        # A listing without asks of its own is decided name by name while it is filtered.
        if judgement.allowed or (naming.lists and not naming.asks):
            return
        request_id = visit.request.id
        if not naming.asks:
            raise TurnedAway(
                refusal("denied", "The request names nothing that could be allowed.", request_id)
            )
        if is_hidden(standpoint, judgement, circumstances):
            raise self._absent(visit, standpoint)
        denied = judgement.denied[0]
        visit.explained = explained = self._explained(visit, standpoint, denied)
        raise TurnedAway(said_of(denied, explained, resource=denied.request.resource, request_id=request_id))

    def _absent(self, visit: Visit, standpoint: Standpoint) -> TurnedAway:
        """Answer for a hidden name what is answered for one that does not exist: maybe a plain denial."""
        _, circumstances, naming = decided_on(visit)
        request_id = visit.request.id
        not_found = TurnedAway(refusal("not_found", "No such name.", request_id), hidden=True)
        try:
            missing = absence(
                standpoint, naming.asks, circumstances=circumstances, now=self._clock.now(), mark=request_id
            )
        except Exception as error:  # noqa: BLE001 -- what cannot be judged visible is hidden
            _log.error("absence_failed", error=origin_of(error))
            return not_found
        if missing is None:
            return not_found
        visit.naming = msgspec.structs.replace(naming, within=missing.within)
        if missing.judgement is None or missing.judgement.allowed:
            return not_found
        denied = missing.judgement.denied[0]
        explained = self._explained(visit, standpoint, denied)
        said = said_of(denied, explained, resource=missing.named(denied), request_id=request_id)
        return TurnedAway(msgspec.structs.replace(said, detail=missing.restored(said.detail)))

    def _explained(self, visit: Visit, standpoint: Standpoint, denied: Judged) -> Decision:
        if UNEXPLAINED.intersection(denied.decision.determining):
            return denied.decision
        try:
            return standpoint.explain(denied.request, denied.decision, visit.caller)
        except Exception as error:  # noqa: BLE001 -- a denial without an explanation is still a denial
            _log.error("explanation_failed", error=origin_of(error))
            return Decision(Effect.DENY)

    # (6) Reserve

    async def _reserve(self, visit: Visit) -> Reservation | None:
        standpoint, circumstances, naming = decided_on(visit)
        request_id, obligations = visit.request.id, visit.obligations
        visit.place = await self._crowd.enter(circumstances.caller.principal)
        if visit.place is None:
            detail = "Too many of your requests are under way at this moment; let some of them end."
            raise TurnedAway(refusal("limit_exceeded", detail, request_id, retry_after=1))
        cannot = impossible(obligations, adapter_of(visit).keeps(naming))
        if cannot is not None:
            kind = type(cannot).__struct_config__.tag
            detail = f"Allowed only with `@{kind}`, which cannot be kept for this request; so it is denied."
            raise TurnedAway(refusal("denied", detail, request_id))
        if breaks_readonly(obligations, naming.asks):
            raise TurnedAway(refusal("denied", "Allowed for reading only, and this writes.", request_id))
        step = unmet_step_up(obligations, circumstances.caller, self._clock.now())
        if step is not None:
            detail = "A stronger or more recent sign-in is needed. Sign in again with MFA."
            raise TurnedAway(
                refusal(
                    "insufficient_user_authentication",
                    detail,
                    request_id,
                    challenge=challenge_of(step, circumstances.caller),
                )
            )
        keys = counters(visit.judgement, standpoint.snapshot) if visit.judgement is not None else ()
        if not keys:
            return None
        try:
            return await self._limits.reserve(keys)
        except LimitExceeded as reached:
            wait = max(1, math.ceil(reached.retry_after))
            detail = (
                f"The limit of policy `{reached.obligation.policy}` is reached; try again in {wait} seconds."
            )
            raise TurnedAway(refusal("limit_exceeded", detail, request_id, retry_after=wait)) from None

    # (7) Record

    async def _record(self, visit: Visit, reservation: Reservation | None) -> None:
        try:
            await self._audit.write(self._decision_record(visit, None))
        except BaseException as error:
            if reservation is not None:
                await reservation.release()
            if isinstance(error, asyncio.CancelledError):
                # The verdict may be on record already: it says too that nothing came of it.
                self._forwarding.record_outcome(visit, {"status": 0, "bytes": 0, "ended": "client_left"})
            if isinstance(error, UnavailableError):
                visit.unrecorded = True
                raise TurnedAway.by(error, visit.request.id) from error
            raise

    def _decision_record(self, visit: Visit, refused: Refusal | None) -> DecisionRecord:
        return decision_record(
            visit,
            record_id=self._ids.new(),
            now=self._clock.now(),
            refusal=refused,
            explained=visit.explained,
        )

    async def _turn_away(self, visit: Visit, verdict: TurnedAway) -> Answer:
        """Record a refusal and say it in the protocol's own shape."""
        refused, visit.reason = verdict.refusal, verdict.reason
        if visit.caller is None:
            self.flush_floods()
        if not visit.unrecorded and (
            visit.caller is not None or self._floods.note(visit.request.peer.ip, visit.reason or refused.code)
        ):
            try:
                await self._audit.write(self._decision_record(visit, refused))
            except UnavailableError as error:
                refused, verdict = of_error(error, visit.request.id), TurnedAway(refused)
        if verdict.hidden and visit.naming is not None and visit.adapter is not None:
            return visit.adapter.not_found(visit.request, visit.naming, visit.request.id)
        if refused.challenge and self._resources is not None:
            pointed = self._resources.pointed_to(refused.challenge, visit.request.path)
            refused = msgspec.structs.replace(refused, challenge=pointed)
        answer = problem(refused) if visit.adapter is None else visit.adapter.refuse(visit.request, refused)
        answer.headers.extend(refused.headers)
        return answer

    def flush_floods(self, *, last: bool = False) -> None:
        """Record what was only counted in the seconds that are over, at the end also in this one."""
        bursts = self._floods.collect(last=last)
        if bursts is not None:
            self._audit.write_soon(flood_record(bursts, record_id=self._ids.new(), now=self._clock.now()))

    def _count(self, visit: Visit, code: str, status: int) -> None:
        if self._meter is not None:
            seconds = self._clock.monotonic() - visit.started
            self._meter.answered(upstream=visit.upstream, code=code, status=status, seconds=seconds)


def _identified(answer: Answer, request_id: str) -> Answer:
    low = REQUEST_ID_HEADER.lower()
    answer.headers = [(name, value) for name, value in answer.headers if name.lower() != low]
    answer.headers.append((REQUEST_ID_HEADER, request_id))
    return answer
