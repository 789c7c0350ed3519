"""Beside the control role: transmitters that are polled for security events (RFC 8936)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from doorward.console.signals import Receiver
from doorward.core.errors import DoorwardError, UnavailableError
from doorward.identity.fetching import HttpFetcher
from doorward.identity.security_events import EventRefusedError

if TYPE_CHECKING:
    from doorward.console.services import Services

_MOST = 100
_LONGEST_PAUSE = 60.0
_log = structlog.get_logger()
# POST JSON with headers; return the body of a 200 answer, raise UnavailableError for anything else.
Ask = Callable[[str, bytes, dict[str, str]], Awaitable[bytes]]


@contextlib.asynccontextmanager
async def hearing(services: Services) -> AsyncIterator[list[Coroutine[Any, Any, None]]]:
    """Receive events for the length of a block; give the jobs that poll, to be run beside it."""
    fetcher = HttpFetcher()
    for setting in services.settings.signals:
        services.signals[setting.name] = Receiver(services, setting, fetch=fetcher)
    receivers = list(services.signals.values())
    try:
        yield [Poller(one, fetcher.post_json).run() for one in receivers if one.setting.poll]
    finally:
        services.signals.clear()
        for receiver in receivers:
            await receiver.close()
        await fetcher.close()


class _Answer(msgspec.Struct):
    sets: dict[str, str] = {}
    moreAvailable: bool = False  # noqa: N815 -- the standard's name


class Poller:
    """Ask one transmitter again and again; what was taken is acknowledged with the next question."""

    def __init__(self, receiver: Receiver, ask: Ask) -> None:
        """Take where to deliver, and what asks."""
        self._receiver, self._ask = receiver, ask
        self._taken: list[str] = []
        self._refused: dict[str, dict[str, str]] = {}

    async def run(self) -> None:
        """Poll until cancelled; a transmitter that is down is asked less and less often."""
        pause = every = self._receiver.setting.poll_every
        while True:
            try:
                more = await self.once()
            except DoorwardError as fault:
                _log.warning("signals_not_polled", source=self._receiver.setting.source, reason=fault.message)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                pause = 0.0 if more else every
            await asyncio.sleep(pause)
            pause = max(pause, every)

    async def once(self) -> bool:
        """Ask once and take what came; return whether more waits. Raises UnavailableError."""
        taken, refused = tuple(self._taken), dict(self._refused)
        question: dict[str, Any] = {
            "maxEvents": _MOST, "returnImmediately": True, "ack": list(taken), "setErrs": refused,
        }  # fmt: skip
        answer = self._read(await self._ask(self._url, msgspec.json.encode(question), self._headers()))
        # It heard what we acknowledged: forget it, and only it.
        del self._taken[: len(taken)]
        for jti in refused:
            self._refused.pop(jti, None)
        for jti, text in answer.sets.items():
            await self._take(jti, text)
        return answer.moreAvailable

    async def _take(self, jti: str, text: str) -> None:
        try:
            event = await self._receiver.take(text)
        except EventRefusedError as refused:
            _log.warning(
                "security_event_refused", source=self._receiver.setting.source, reason=refused.reason
            )
            self._refused[jti] = {"err": refused.error, "description": refused.reason.replace("_", " ")}
            return
        if event.jti != jti:
            self._refused[jti] = {"err": "invalid_request", "description": "jti differs from its token's"}
            return
        self._taken.append(jti)

    @property
    def _url(self) -> str:
        return self._receiver.setting.poll

    def _headers(self) -> dict[str, str]:
        shown = self._receiver.setting.poll_authorization
        base = {"Content-Type": "application/json", "Accept": "application/json"}
        return base if shown is None else {**base, "Authorization": shown}

    @staticmethod
    def _read(body: bytes) -> _Answer:
        try:
            return msgspec.json.decode(body, type=_Answer)
        except msgspec.MsgspecError as reason:
            raise UnavailableError(f"the transmitter's answer cannot be read: {reason}") from reason
