"""One gateway process: the data port, the watch over open answers, the admin socket, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from doorward.core.errors import DoorwardError, InvalidConfigError, UnavailableError
from doorward.core.wire import Answer, Peer, UpstreamClient
from doorward.gateway.edge import Edge
from doorward.gateway.faults import origin_of
from doorward.gateway.flow import Flow
from doorward.gateway.metrics import GatewayMetrics
from doorward.gateway.ports import Point
from doorward.gateway.streams import OpenAnswers
from doorward.http1.budget import Budget
from doorward.http1.heads import RequestHead
from doorward.http1.incoming import IncomingBody
from doorward.http1.listener import Bounds, Listener
from doorward.peer import socket_address

_log = structlog.get_logger()
_GRACE_SECONDS = 30.0
_HOUSEKEEPING_SECONDS = 1.0
_ADMIN_BYTES = 1024 * 1024
_ADMIN_LAST_SECONDS = 0.1


class Readiness:
    """Say whether this gateway can decide: it has a bundle and a snapshot that are not too old."""

    def __init__(  # noqa: PLR0913 -- what readiness rests on
        self,
        point: Point,
        *,
        staleness: Callable[[], float],
        max_staleness: float,
        shadow: Callable[[], dict[str, object]] | None = None,
        location: Callable[[], dict[str, object]] | None = None,
        policies_refused: Callable[[], bool] = bool,
    ) -> None:
        """Take what readiness rests on; seconds. `shadow` tells the state of the shadow check.

        `location` tells what is known of where requests come from, `policies_refused` whether newer
        policies were refused, so that the last good ones rule on.
        """
        self._point, self._staleness, self._max = point, staleness, max_staleness
        self._shadow, self._location, self._policies_refused = shadow, location, policies_refused

    def report(self) -> tuple[bool, dict[str, object]]:
        """Return whether requests can be decided, and the versions they are decided on."""
        staleness = self._staleness()
        report: dict[str, object] = {
            "staleness": round(staleness, 3) if staleness < self._max * 1000 else None
        }
        if self._shadow is not None:
            report["shadow"] = self._shadow()
        if self._location is not None:
            report["location"] = self._location()
        try:
            standpoint = self._point.pin()
        except UnavailableError as reason:
            return False, {"ready": False, "reason": reason.message, **report}
        report |= {"bundle": standpoint.bundle_digest, "entities": standpoint.entities_version}
        report["policies_refused"] = self._policies_refused()
        if staleness > self._max:
            return False, {"ready": False, "reason": "what is known is too old", **report}
        return True, {"ready": True, **report}


class AdminSocket:
    """Serve healthz, readyz and metrics on a Unix socket that only the owner can open."""

    def __init__(self, path: Path, readiness: Readiness, metrics: GatewayMetrics) -> None:
        """Listen at `path` once started."""
        self._path, self._readiness, self._metrics = path, readiness, metrics
        self._http: Listener | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; raise InvalidConfigError when the socket cannot be made."""
        self._http = Listener(self, Bounds(), Budget(_ADMIN_BYTES))
        try:
            self._path.unlink(missing_ok=True)
            # Nobody else may connect, not even between making the socket and narrowing its mode.
            before = os.umask(0o177)
            try:
                with socket_address(self._path) as address:
                    loop = asyncio.get_running_loop()
                    self._listener = await loop.create_unix_server(self._http, address)
            finally:
                os.umask(before)
        except OSError as reason:
            raise InvalidConfigError(
                f"cannot make the admin socket {self._path}: {reason.strerror or reason}",
                hint="Its directory must exist and be yours.",
            ) from reason

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._listener is not None and self._http is not None:
            self._listener.close()
            await self._http.close(_ADMIN_LAST_SECONDS)
            self._listener = self._http = None
        self._path.unlink(missing_ok=True)

    async def serve(self, head: RequestHead, body: IncomingBody, peer: Peer) -> tuple[Answer, bool]:  # noqa: ARG002 -- the port's signature
        """Answer one of the three questions."""
        if head.method not in {"GET", "HEAD"}:
            return _said(405, b"GET only\n"), True
        match head.target.partition(b"?")[0]:
            case b"/healthz":
                return _said(200, b"ok\n"), True
            case b"/readyz":
                ready, report = self._readiness.report()
                return _said(
                    200 if ready else 503, msgspec.json.encode(report), kind="application/json"
                ), True
            case b"/metrics":
                return _said(200, self._metrics.text(), kind="text/plain; charset=utf-8"), True
        return _said(404, b"healthz, readyz, metrics\n"), True

    async def refuse(self, error: DoorwardError, peer: Peer) -> Answer:  # noqa: ARG002 -- the port's signature
        """Answer bytes that are no request."""
        return _said(400, f"{error.message}\n".encode())

    def broken(self, error: Exception) -> None:
        """Note a fault of our own."""
        _log.error("admin_answer_failed", error=origin_of(error))


def _said(status: int, body: bytes, *, kind: str = "text/plain; charset=utf-8") -> Answer:
    return Answer(status=status, headers=[("Content-Type", kind)], body=body)


class GatewayServer:
    """Start and stop the parts of a gateway in order."""

    def __init__(  # noqa: PLR0913 -- the composition root names every part once
        self,
        *,
        flow: Flow,
        edge: Edge,
        admin: AdminSocket,
        open_answers: OpenAnswers,
        upstreams: tuple[UpstreamClient, ...],
        grace: float = _GRACE_SECONDS,
    ) -> None:
        """Take constructed parts; `grace` is how long open answers may take at the end, in seconds."""
        self._flow, self._edge, self._admin = flow, edge, admin
        self._open, self._upstreams, self.grace = open_answers, upstreams, grace
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """Return the data port."""
        return self._edge.port

    async def start(self) -> None:
        """Open the data port, then the admin socket that says so; raise InvalidConfigError for either."""
        await self._edge.start()
        try:
            await self._admin.start()
        except BaseException:
            await self._edge.close()
            raise
        self._tasks = [
            asyncio.create_task(self._open.watch(), name="watch"),
            asyncio.create_task(self._keep_house(), name="housekeeping"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._died)
        _log.info("gateway_started", port=self.port)

    async def stop(self) -> None:
        """Drain: accept nothing more, let open answers finish within the grace, cut the rest, close."""
        await self._edge.drain(self.grace)
        self._open.cut_all("the gateway stopped")
        await self._edge.close()
        for task in self._tasks:
            task.remove_done_callback(self._died)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._flow.flush_floods(last=True)
        for upstream in self._upstreams:
            await upstream.close()
        await self._admin.stop()
        _log.info("gateway_stopped")

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set (SIGTERM), then drain."""
        await self.start()
        try:
            await stop.wait()
        finally:
            await self.stop()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            self._flow.flush_floods()

    def _died(self, task: asyncio.Task[None]) -> None:
        """Without the watch no deny reaches an open answer: cut them all, and keep nothing open."""
        if task.cancelled():
            return
        error = task.exception()
        _log.error("gateway_task_died", task=task.get_name(), error=origin_of(error) if error else "ended")
        self._open.cut_all("open answers can no longer be decided again")
        self._tasks = [t for t in self._tasks if t is not task]
        if task.get_name() == "watch":
            again = asyncio.create_task(self._open.watch(), name="watch")
            again.add_done_callback(self._died)
            self._tasks.append(again)
