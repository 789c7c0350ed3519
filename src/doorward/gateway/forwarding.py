"""Steps 8 to 10: the upstream, the open answer decided again, the outcome; for allowed requests only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import structlog

from doorward.core.clock import Clock
from doorward.core.errors import DoorwardError, UnavailableError
from doorward.core.ids import IdSource
from doorward.core.model import EntityUid
from doorward.core.obligation import AnyObligation, Limit, StepUp
from doorward.core.ports import AuditLog, Reservation
from doorward.core.wire import Answer, UpstreamClient
from doorward.gateway.adapter import Ask, Permit
from doorward.gateway.body import BoundedBody, WatchedBody
from doorward.gateway.circumstances import PURPOSE_HEADER, purpose_of
from doorward.gateway.faults import UnreachableError, origin_of
from doorward.gateway.headers import downward
from doorward.gateway.judgement import judge, outlook, sees
from doorward.gateway.obligations import unmet_step_up
from doorward.gateway.passage import Passage
from doorward.gateway.ports import Authenticates, Standpoint
from doorward.gateway.prefixes import Place, Prefixes
from doorward.gateway.recording import outcome_record
from doorward.gateway.refusal import of_error, refusal
from doorward.gateway.streams import OpenAnswer, OpenAnswers
from doorward.gateway.surroundings import Surroundings
from doorward.gateway.visit import Visit, adapter_of, decided_on

_log = structlog.get_logger()
_ENDED = "Access ended while the request ran."
_BROKE_OFF = "The upstream broke off its answer."


class Rejudge:
    """Decide an allowed request again, as everything stands now."""

    def __init__(
        self,
        *,
        authenticator: Authenticates,
        pin: Callable[[], Standpoint],
        clock: Clock,
        around: Surroundings,
    ) -> None:
        """Take what may have changed since: credentials, standpoint, time."""
        self._authenticator, self._pin, self._clock = authenticator, pin, clock
        self._around = around

    def __call__(self, visit: Visit) -> str | None:
        """Return why the request may not go on, or None; raise if it cannot be decided at all."""
        _, circumstances, naming = decided_on(visit)
        caller, now = circumstances.caller, self._clock.now()
        if not self._authenticator.still_valid(caller):
            return "the credential ended"
        standpoint = self._pin()
        circumstances = self._around.renewed(circumstances, standpoint.snapshot)
        purpose_of(caller, visit.request.header(PURPOSE_HEADER), standpoint.snapshot)
        judgement = judge(standpoint, naming.asks, circumstances=circumstances, now=now)
        if naming.asks and not judgement.allowed:
            return "denied: " + (
                ", ".join(judgement.denied[0].decision.determining) or "no policy permits it"
            )
        # What a new policy demands cannot be kept for bytes that are already on their way.
        kept = set(visit.obligations)
        if any(o not in kept for o in judgement.obligations if not isinstance(o, Limit | StepUp)):
            return "new obligations"
        if unmet_step_up(judgement.obligations, caller, now) is not None:
            return "the sign-in is too old"
        return None


class Forwarding:
    """Send what was allowed, watch it while it is open, and record how it ended."""

    def __init__(  # noqa: PLR0913 -- built once, by the flow
        self,
        *,
        upstreams: Mapping[str, UpstreamClient],
        audit: AuditLog,
        open_answers: OpenAnswers,
        rejudge: Rejudge,
        changed: Callable[[], int],
        clock: Clock,
        ids: IdSource,
        max_body: int,
    ) -> None:
        """Take the ports; `max_body` bounds streamed bodies, in bytes."""
        self._upstreams, self._audit, self._open = upstreams, audit, open_answers
        self._rejudge, self._changed = rejudge, changed
        self._clock, self._ids, self._max_body = clock, ids, max_body

    async def carry(self, visit: Visit, reservation: Reservation | None) -> Answer:
        """Forward one request whose verdict is on record, and return the answer."""
        adapter, request = adapter_of(visit), visit.request
        client = self._upstreams[visit.upstream]
        passage = Passage(client, adapter.settings, caller=request.headers)
        open_answer = self._open.add(partial(self._rejudge, visit))
        ending = _Ending(self, visit, reservation, open_answer=open_answer, passage=passage)
        if self._changed() != visit.generation and (reason := open_answer.judge()) is not None:
            # Bundle or snapshot moved while the record was written: the newer one rules.
            open_answer.cut_reason = reason
            return await self._stopped(visit, ending, sent=False)
        try:
            answer = await adapter.forward(self._permit(visit), passage)
        except asyncio.CancelledError:
            if not open_answer.absorb():
                await ending.end("client_left", 0)
                raise
            return await self._stopped(visit, ending, sent=True)
        except Exception as error:  # noqa: BLE001 -- whatever fails behind the door is answered without its words
            return await self._failed(visit, error, ending)
        answer.headers = downward(answer.headers)
        ending.status = answer.status
        if isinstance(answer.body, bytes):
            await ending.end("complete", len(answer.body))
        else:
            words = partial(self._last_words, visit) if _is_event_stream(answer) else None
            answer.body = WatchedBody(aiter(answer.body), open_answer, ending.end, last_words=words)
        return answer

    def _last_words(self, visit: Visit, how: str) -> bytes:
        """Return the event that tells a caller why its stream ends here (HTTP has no other place for it)."""
        code, detail = ("denied", _ENDED) if how == "cut" else ("upstream_unavailable", _BROKE_OFF)
        return adapter_of(visit).broken_off(visit.request, refusal(code, detail, visit.request.id))

    def _permit(self, visit: Visit) -> Permit:
        _, circumstances, naming = decided_on(visit)
        body = BoundedBody(visit.request.body, self._max_body)
        return Permit(
            request=msgspec.structs.replace(visit.request, body=body),
            body=visit.body,
            naming=naming,
            caller=circumstances.caller,
            obligations=visit.obligations,
            sees=partial(self._sees, visit),
            outcome=visit.outcome,
            foresees=partial(self._foresees, visit),
            outlook=partial(self._outlook, visit),
        )

    def _sees(self, visit: Visit, uid: EntityUid) -> bool:
        standpoint, circumstances, _ = decided_on(visit)
        return sees(standpoint, uid, circumstances=circumstances, now=self._clock.now())

    def _outlook(self, visit: Visit, place: Place) -> Prefixes | None:
        standpoint, circumstances, _ = decided_on(visit)
        return outlook(standpoint, place, circumstances=circumstances, now=self._clock.now())

    def _foresees(self, visit: Visit, ask: Ask) -> tuple[AnyObligation, ...] | None:
        standpoint, circumstances, _ = decided_on(visit)
        judgement = judge(standpoint, (ask,), circumstances=circumstances, now=self._clock.now())
        return judgement.obligations if judgement.allowed else None

    async def _stopped(self, visit: Visit, ending: _Ending, *, sent: bool) -> Answer:
        refused = refusal("denied", _ENDED, visit.request.id)
        ending.status = refused.status
        if not sent:
            await ending.release()
        await ending.end("cut", 0)
        return adapter_of(visit).refuse(visit.request, refused)

    async def _failed(self, visit: Visit, error: Exception, ending: _Ending) -> Answer:
        if isinstance(error, UnreachableError):
            await ending.release()
        if not isinstance(error, DoorwardError):
            _log.error("forwarding_failed", request_id=visit.request.id, error=origin_of(error))
        refused = of_error(error, visit.request.id)
        ending.status = refused.status
        await ending.end("upstream_failed" if isinstance(error, UnavailableError) else "refused", 0)
        return adapter_of(visit).refuse(visit.request, refused)

    def record_outcome(self, visit: Visit, outcome: dict[str, Any]) -> None:
        """Queue the outcome record (step 10)."""
        outcome["ms"] = round((self._clock.monotonic() - visit.started) * 1000)
        now = self._clock.now()
        self._audit.write_soon(outcome_record(visit, record_id=self._ids.new(), now=now, outcome=outcome))

    def forget(self, open_answer: OpenAnswer) -> None:
        """Stop deciding an answer that ended."""
        self._open.remove(open_answer)


def _is_event_stream(answer: Answer) -> bool:
    return any(
        name.lower() == "content-type" and value.lower().startswith("text/event-stream")
        for name, value in answer.headers
    )


class _Ending:
    """End one forwarded request once: connections closed, reservation settled, outcome recorded."""

    def __init__(
        self,
        forwarding: Forwarding,
        visit: Visit,
        reservation: Reservation | None,
        *,
        open_answer: OpenAnswer,
        passage: Passage,
    ) -> None:
        self._forwarding, self._visit, self._reservation = forwarding, visit, reservation
        self._open_answer, self._passage = open_answer, passage
        self.status = 0

    async def release(self) -> None:
        if self._reservation is not None:
            await self._reservation.release()

    async def end(self, how: str, sent: int) -> None:
        self._forwarding.forget(self._open_answer)
        self._visit.leave()
        outcome: dict[str, Any] = {"status": self.status, "bytes": sent, "ended": how}
        if self._open_answer.cut_reason is not None:
            outcome["cut_by"] = self._open_answer.cut_reason
        try:
            await self._passage.close()
            if self._reservation is not None:
                counted = self._visit.outcome
                await self._reservation.settle(counted.get("tokens_in", 0) + counted.get("tokens_out", 0))
        finally:
            self._forwarding.record_outcome(self._visit, outcome)
