"""A decision point in this very process: a policies directory and an org file, no server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from doorward.core import versions
from doorward.core.decision import AccessRequest, Decision
from doorward.core.errors import DoorwardError, InvalidConfigError
from doorward.core.model import NAMESPACE, EntityUid
from doorward.decisions import point, together
from doorward.decisions.arrivals import at_least_blocking
from doorward.decisions.listing import Listing
from doorward.decisions.question import Question, answer, request_of
from doorward.directory.fitting import Fitting
from doorward.directory.org import offline_snapshot, parse
from doorward.directory.schema_attributes import vocabulary_of
from doorward.policies.workspace import Workspace
from doorward.sdk.asking import Name, denied, uid_of

_log = structlog.get_logger()


class DecisionPoint:
    """Decide in process. Loading is loud, deciding never raises; safe to share between threads."""

    def __init__(
        self,
        policies: str | Path,
        org: str | Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Load both; raise InvalidPolicyError or InvalidConfigError when one cannot be used."""
        self._policies, self._org, self._now = Path(policies), Path(org), now
        self._point = point.DecisionPoint()
        self.reload()

    def reload(self) -> None:
        """Load again, all or nothing: when one is broken, what ruled before goes on ruling, and it raises."""
        bundle = Workspace(self._policies).load()
        try:
            text = self._org.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as reason:
            raise InvalidConfigError(
                f"{self._org} cannot be read as text", hint="Name an org file."
            ) from reason
        stated = parse(text, str(self._org), vocabulary=vocabulary_of(bundle.schema))
        snapshot = offline_snapshot(stated)
        Fitting(bundle.schema).require(snapshot, snapshot.stated, stated.places)
        fresh = point.DecisionPoint()
        fresh.publish(bundle)
        fresh.advance(snapshot)
        self._point = fresh

    def can(
        self,
        principal: Name,
        action: str,
        resource: Name,
        *,
        context: Mapping[str, Any] | None = None,
        at_least: str | None = None,
    ) -> Decision:
        """Return whether a principal may do this now; `context` is merged over neutral circumstances.

        With `at_least` what was loaded must be that version; nothing is waited for.
        """
        try:
            if at_least is not None:
                at_least_blocking(self._point, versions.read(at_least), 0)
            question = Question(
                principal=uid_of(principal).cedar,
                action=action,
                resource=uid_of(resource).cedar,
                context=dict(context or {}),
            )
            return answer(question, self._point.pin(), self._now())
        except DoorwardError as reason:
            return denied(f"sdk: {reason.message}")
        except Exception as fault:  # noqa: BLE001 -- whatever went wrong, the answer is no
            _log.error("sdk_decision_failed", kind=type(fault).__name__)
            return denied(f"sdk: a fault while deciding ({type(fault).__name__})")

    async def acan(
        self,
        principal: Name,
        action: str,
        resource: Name,
        *,
        context: Mapping[str, Any] | None = None,
        at_least: str | None = None,
    ) -> Decision:
        """Return the same; a decision takes microseconds, so nothing is handed to a thread."""
        return self.can(principal, action, resource, context=context, at_least=at_least)

    def listing(
        self,
        principal: Name,
        action: str,
        resource_type: str,
        *,
        context: Mapping[str, Any] | None = None,
        keeps: Collection[str] = (),
    ) -> Listing:
        """Return what may be shown of many resources of one type, for a list another system holds.

        Unlike `can` it raises: InvalidRequestError for a question that cannot be read.
        """
        kind = resource_type if "::" in resource_type else f"{NAMESPACE}::{resource_type}"
        question = Question(
            principal=uid_of(principal).cedar,
            action=action,
            resource=EntityUid(kind, "").cedar,
            context=dict(context or {}),
        )
        standpoint = self._point.pin()
        return Listing(request_of(question, standpoint.snapshot, self._now()), standpoint, keeps=keeps)

    def decide(self, request: AccessRequest) -> Decision:
        """Return the decision on a whole request, without an explanation."""
        try:
            standpoint = self._point.pin()
            return together.judged(request, standpoint.decide, standpoint.snapshot)[1]
        except Exception as fault:  # noqa: BLE001 -- as `can`
            return denied(f"sdk: a fault while deciding ({type(fault).__name__})")
