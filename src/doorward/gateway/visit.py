"""One request on its way through the flow: what each step has found out so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from doorward.core.errors import DoorwardError
from doorward.core.wire import NoBody, Peer, Request
from doorward.gateway.refusal import of_error

if TYPE_CHECKING:
    from doorward.core.decision import Decision
    from doorward.core.identity import Caller
    from doorward.core.obligation import AnyObligation
    from doorward.core.versions import AtLeast
    from doorward.gateway.adapter import Adapter, Naming, Refusal
    from doorward.gateway.circumstances import Circumstances
    from doorward.gateway.judgement import Judgement
    from doorward.gateway.ports import Standpoint
    from doorward.gateway.streams import Place, SharedPlace


@dataclass(slots=True)
class Visit:
    """Filled step by step; a field that is still None belongs to a step that was not reached."""

    request: Request
    started: float
    upstream: str = ""
    adapter: Adapter | None = None
    caller: Caller | None = None
    body: bytes = b""
    naming: Naming | None = None
    standpoint: Standpoint | None = None
    circumstances: Circumstances | None = None
    judgement: Judgement | None = None
    obligations: tuple[AnyObligation, ...] = ()
    outcome: dict[str, int] = field(default_factory=dict)
    generation: int = 0
    explained: Decision | None = None
    unrecorded: bool = False
    demand: AtLeast | None = None
    place: Place | SharedPlace | None = None
    reason: str = ""

    def leave(self) -> None:
        """Give up the place among the caller's requests under way; again changes nothing."""
        place, self.place = self.place, None
        if place is not None:
            place.leave()


class TurnedAway(Exception):  # noqa: N818 -- a verdict, not a fault
    """End a visit with a refusal; `hidden` answers as the upstream does for a name that does not exist."""

    def __init__(self, refusal: Refusal, *, hidden: bool = False) -> None:
        """Keep the verdict."""
        super().__init__(refusal.code)
        self.refusal = refusal
        self.hidden = hidden
        # For the record only: what exactly was wrong with a credential is not the caller's to know.
        self.reason = ""

    @classmethod
    def by(cls, error: DoorwardError, request_id: str) -> TurnedAway:
        """Turn an error of a step into the verdict it means."""
        verdict = cls(of_error(error, request_id))
        verdict.reason = str(getattr(error, "reason", ""))
        return verdict


class StepLeftOutError(RuntimeError):
    """Raised when a step runs before the one it rests on: a mistake in the flow, answered as an error."""


def adapter_of(visit: Visit) -> Adapter:
    """Return the protocol file; raise StepLeftOutError before step 2 has found it."""
    if visit.adapter is None:
        raise StepLeftOutError
    return visit.adapter


def decided_on(visit: Visit) -> tuple[Standpoint, Circumstances, Naming]:
    """Return what the decision rests on; raise StepLeftOutError before step 4."""
    if visit.standpoint is None or visit.circumstances is None or visit.naming is None:
        raise StepLeftOutError
    return visit.standpoint, visit.circumstances, visit.naming


def unreadable(request_id: str, peer: Peer) -> Request:
    """Return what stands for a request that has no canonical reading."""
    return Request(
        id=request_id,
        method="",
        path="/",
        raw_path="/",
        query=(),
        raw_query="",
        headers=(),
        peer=peer,
        body=NoBody(),
    )
