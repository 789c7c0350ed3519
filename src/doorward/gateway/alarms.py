"""Each episode of an odd credential becomes one alert: what happened, what is odd, what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from doorward.core.clock import Clock, rfc3339
from doorward.core.errors import UnavailableError
from doorward.core.ids import IdSource
from doorward.core.ports import AuditLog
from doorward.core.record import AlertRecord
from doorward.core.sightings import Oddity, Seen, Signal

_SEVERITY: Final = {Signal.TRAVEL: "high", Signal.SHARED: "high", Signal.CLIENT: "low"}
_TO_DO: Final = {
    Signal.TRAVEL: "Ask the person where they are. If it was not them, revoke the credential and look at"
    " what it did. Zones that are left at a distance, like a VPN's, belong under [network] together.",
    Signal.SHARED: "Ask who uses it. One credential belongs to one person at one place: revoke it and give"
    " each their own. Zones that one person uses at once belong under [network] together.",
    Signal.CLIENT: "Ask the owner whether they changed programs. If not, revoke the credential.",
}
_RETRY_SECONDS: Final = 1.0
_MOST_WAITING: Final = 1000
_log = structlog.get_logger()


class Alarms:
    """Put oddities on record, count and log them; one that the log refuses waits until it takes it."""

    def __init__(
        self, audit: AuditLog, *, clock: Clock, ids: IdSource, count: Callable[[str], None] = lambda _: None
    ) -> None:
        """Take where to; `count` hears each signal's name."""
        self._audit, self._clock, self._ids, self._count = audit, clock, ids, count
        self._recording: set[asyncio.Task[None]] = set()

    def raise_(self, oddity: Oddity) -> None:
        """Tell everybody of an episode that began."""
        self._count(oddity.signal.value)
        _log.warning(
            "credential_found_odd",
            signal=oddity.signal.value,
            principal=oddity.now.sighting.principal,
            credential=oddity.credential,
            odd=oddity.odd,
            request_id=oddity.now.sighting.request_id,
        )
        if len(self._recording) >= _MOST_WAITING:
            _log.error("alert_lost", signal=oddity.signal.value, credential=oddity.credential)
            return
        record = alert_of(oddity, record_id=self._ids.new(), time=rfc3339(self._clock.now()))
        task = asyncio.create_task(self._record(record))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def _record(self, alert: AlertRecord) -> None:
        while True:
            try:
                await self._audit.write(alert)
            except UnavailableError:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return


def alert_of(oddity: Oddity, *, record_id: str, time: str) -> AlertRecord:
    """Return the alert of an episode."""
    happened = [_told(oddity.before), _told(oddity.now)]
    return AlertRecord(
        id=record_id,
        kind="alert",
        time=time,
        request_id=oddity.now.sighting.request_id,
        code=oddity.signal.value,
        severity=_SEVERITY.get(oddity.signal, "medium"),
        detail=f"What happened: {_sentence(oddity.before)}; then {_sentence(oddity.now)}. "
        f"What is odd: {oddity.odd}. What to do: {_TO_DO.get(oddity.signal, '')}",
        principal=oddity.now.sighting.principal,
        facts={
            "credential": oddity.credential,
            "what_happened": happened,
            "what_is_odd": oddity.odd,
            "what_to_do": _TO_DO.get(oddity.signal, ""),
        },
    )


def _sentence(seen: Seen) -> str:
    told = _told(seen)
    return f"used at {told['time']} from {seen.sighting.where} with `{seen.sighting.client}`"


def _told(seen: Seen) -> dict[str, Any]:
    """Return one sighting for a record; what is not known of it is not there."""
    sighting, where = seen.sighting, seen.sighting.where
    known: dict[str, Any] = {
        "time": rfc3339(datetime.fromtimestamp(seen.time, UTC)),
        "ip": where.ip,
        "zone": where.zone,
        "client": sighting.client,
        "tls": sighting.tls,
        "request_id": sighting.request_id,
    }
    if where.country is not None:
        known["country"] = where.country
    if where.at is not None:
        known["at"] = list(where.at)
    return known
