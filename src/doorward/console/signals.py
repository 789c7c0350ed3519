"""Hear security events (SSF 1.0): verify, find whom they are about, record, react.

Pushed ones come in here (RFC 8935); polled ones through the same `Receiver`. An event is answered only when
what it changes is on record and holds; what we cannot take is named to its transmitter and nothing else.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from doorward.console.acts import act_of
from doorward.core.errors import DoorwardError, NotFoundError
from doorward.core.model import Action, EntityUid
from doorward.core.record import AdminRecord
from doorward.directory import reactions
from doorward.directory.reactions import Effect, Heard
from doorward.identity.security_events import EventRefusedError, EventVerifier, SecurityEvent

if TYPE_CHECKING:
    from doorward.console.services import Services
    from doorward.directory.snapshot import Snapshot
    from doorward.identity.issuer_keys import Fetch
    from doorward.settings.signals import SignalSettings

PATH = "/ssf/events/{name}"
_TYPE = "application/secevent+jwt"
_log = structlog.get_logger()


class Receiver:
    """Take the events of one transmitter."""

    def __init__(self, services: Services, setting: SignalSettings, *, fetch: Fetch) -> None:
        """Verify with the transmitter's keys, got by `fetch`."""
        self._services, self.setting = services, setting
        self._verifier = EventVerifier(setting, fetch=fetch, clock=services.clock)

    async def take(self, text: str, request_id: str = "") -> SecurityEvent:
        """Let one token take effect; raise EventRefusedError, or DoorwardError if it could not be kept."""
        event = await self._verifier.verify(text)
        heard = self._heard(event)
        effect = reactions.effect_of(heard, self.setting.risk)
        await self._services.audit.write(self._record(event, effect, request_id))
        if effect is not None:
            news = await asyncio.to_thread(self._apply, effect, event.at)
            _log.info("security_event_taken", source=self.setting.source, type=event.type, news=news)
        return event

    async def close(self) -> None:
        """Stop what is under way."""
        await self._verifier.close()

    def _apply(self, effect: Effect, at: datetime) -> bool:
        try:
            return reactions.apply(
                effect,
                self._services.directory,
                source=self.setting.source,
                at=at,
                max_age=self.setting.max_age,
            )
        except NotFoundError:  # she left between the two steps: there is nothing to tighten any more
            return False

    def _heard(self, event: SecurityEvent) -> Heard:
        who, device = subjects_of(
            event.subject, self._services.directory.snapshot, self.setting.subjects or self.setting.issuer
        )
        return Heard(
            family=event.family, type=event.type, at=event.at, claims=event.claims, who=who, device=device
        )

    def _record(self, event: SecurityEvent, effect: Effect | None, request_id: str) -> AdminRecord:
        return act_of(
            self._services,
            asked_as=request_id,
            who=self.setting.source,
            action=(Action.CONTAIN if effect is not None else Action.INSPECT).value,
            resource=effect.uid if effect is not None else EntityUid.of("Control", "directory"),
            detail=f"{event.type}: " + (effect.said if effect is not None else "changes nothing here"),
            changes={"via": "signals", "jti": event.jti, "at": event.at.isoformat()},
        )


def subjects_of(
    sub_id: Mapping[str, Any], snapshot: Snapshot, issuer: str
) -> tuple[EntityUid | None, EntityUid | None]:
    """Return the principal and the device that a sub_id names (RFC 9493, SSF 1.0 4.2), as they are linked.

    Never by e-mail, telephone number or name: those change hands. `issuer` is whose the opaque ids are.
    """
    match sub_id.get("format"):
        case "complex":
            who = _linked(sub_id.get("user"), snapshot, issuer)
            device = _linked(sub_id.get("device"), snapshot, issuer)
            return who, device if device is not None and device.kind == "Device" else None
        case "aliases":
            named = sub_id.get("identifiers")
            found = [_linked(one, snapshot, issuer) for one in named] if isinstance(named, list) else []
            # Two aliases of two people are a transmitter's mistake, and no reason to pick one of them.
            known = {uid for uid in found if uid is not None}
            one = known.pop() if len(known) == 1 else None
        case _:
            one = _linked(sub_id, snapshot, issuer)
    return (None, one) if one is not None and one.kind == "Device" else (one, None)


def _linked(sub_id: Any, snapshot: Snapshot, issuer: str) -> EntityUid | None:
    match sub_id:
        case {"format": "iss_sub", "iss": str(iss), "sub": str(sub)}:
            return snapshot.principal_of(iss, sub)
        case {"format": "opaque", "id": str(name)}:
            return snapshot.principal_of(issuer, name)
    return None


def router(services: Services) -> APIRouter:
    """Build the route that transmitters push to; each shows what the settings say it must."""
    routes = APIRouter(tags=["signals"])

    @routes.post(PATH, include_in_schema=False)
    async def pushed(name: str, request: Request) -> Response:
        """Take one pushed event: 202 once it holds, 400 with a code of RFC 8935 if it cannot be taken."""
        receiver = services.signals.get(name)
        expected = None if receiver is None else receiver.setting.authorization
        shown = request.headers.get("authorization", "")
        if receiver is None or expected is None or not hmac.compare_digest(expected, shown):
            return _refused(401, "authentication_failed", "the Authorization header is not the agreed one")
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != _TYPE:
            return _refused(400, "invalid_request", f"send {_TYPE}")
        try:
            text = (await request.body()).decode("ascii")
            await receiver.take(text, _request_id(request))
        except UnicodeDecodeError:
            return _refused(400, "invalid_request", "the token is not ASCII")
        except EventRefusedError as refused:
            _log.warning("security_event_refused", source=receiver.setting.source, reason=refused.reason)
            return _refused(400, refused.error, refused.reason.replace("_", " "))
        except DoorwardError as fault:
            _log.error("security_event_not_kept", source=receiver.setting.source, reason=fault.message)
            return _refused(503, "not_kept", "it could not be kept; send it again")
        return Response(status_code=202)

    return routes


def _refused(status: int, error: str, description: str) -> Response:
    return JSONResponse(
        {"err": error, "description": description}, status, headers={"Content-Language": "en"}
    )


def _request_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))
