"""The shadow role: decide samples of live decisions again in a process of its own, and act on a mismatch.

It follows the feed like a gateway and hears samples over a Unix socket. What it finds is first made
durable, then told to every deciding process, then put on record and into the log: stricter before louder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter, deque
from collections.abc import AsyncIterator
from datetime import UTC
from pathlib import Path
from typing import Final

import msgspec
import structlog

from doorward import __version__, peer, telemetry
from doorward.app.admin import JSON, NOT_FOUND, TEXT, AdminServer, Report
from doorward.app.supervisor import prepare_data, set_when_asked
from doorward.audit.writer import AuditWriter
from doorward.core.clock import Clock, SystemClock
from doorward.core.errors import UnavailableError
from doorward.core.feed import Bundle, Delta, Known
from doorward.core.identity import KeyRecord
from doorward.core.ids import IdSource
from doorward.core.ports import AuditLog
from doorward.core.record import AlertRecord
from doorward.core.shadow import Finding, Measure, Sample, ShadowMessage
from doorward.decisions import findings
from doorward.decisions.shadow import Check, State, Verdict
from doorward.decisions.shadow_link import SOCKET
from doorward.directory.feed import FeedClient
from doorward.directory.snapshot import Snapshot
from doorward.settings import Settings

_QUEUED: Final = 1024
_WAITING: Final = 256
_WAIT_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0
_LONGEST_LINE: Final = 1 << 20
_NICE: Final = 10
_SAID: Final = {
    Measure.EXACT: "its generated code is no longer used",
    Measure.ORACLE: "nothing is allowed there that Cedar itself does not allow",
    Measure.DENY: "nothing is allowed there",
}
_decoder = msgspec.json.Decoder(ShadowMessage)
_log = structlog.get_logger()


class Shadow:
    """Judge samples one by one; keep, tell and record what is found."""

    def __init__(self, data: Path, *, audit: AuditLog, clock: Clock, ids: IdSource) -> None:
        """Take up what stands on file; raises ValueError for a damaged file."""
        self._data, self._audit, self._clock, self._ids = data, audit, clock, ids
        self._check = Check()
        self._snapshot: Snapshot | None = None
        self._queue: asyncio.Queue[tuple[float, Sample]] = asyncio.Queue(_QUEUED)
        self._early: deque[tuple[float, Sample]] = deque()
        self._clients: set[asyncio.StreamWriter] = set()
        self._recording: set[asyncio.Task[None]] = set()
        self.findings = findings.read(data)
        self.counts: Counter[str] = Counter()

    # From the feed

    def on_known(self, known: Known) -> None:
        """Take the whole state; credentials are none of our business."""
        keys = tuple(map(_without_secrets, known.keys))
        bare = msgspec.structs.replace(known, keys=keys, identities=(), certificates=())
        self._move(Snapshot.of(bare))

    def on_delta(self, delta: Delta) -> None:
        """Take one change."""
        if self._snapshot is not None:
            keys = tuple(map(_without_secrets, delta.keys))
            bare = msgspec.structs.replace(
                delta,
                keys=keys,
                identities=(),
                identities_removed=(),
                certificates=(),
                certificates_removed=(),
            )
            self._move(self._snapshot.with_delta(bare))

    def on_bundle(self, bundle: Bundle) -> None:
        """Judge by this bundle, too."""
        self._check.on_bundle(bundle)
        self._again()

    def _move(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._check.on_snapshot(snapshot)
        self._again()

    def _again(self) -> None:
        """Judge again what waited for a version, and forget what waited in vain."""
        early, self._early = self._early, deque()
        for since, sample in early:
            self._queue_up(since, sample)

    # Samples

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to one deciding process until it leaves."""
        if peer.uid_of(writer.get_extra_info("socket")) != os.geteuid():
            writer.transport.abort()
            return
        self._clients.add(writer)
        writer.write(_line(self.findings))
        try:
            while True:
                message = _decoder.decode(await reader.readuntil(b"\n"))
                for sample in message.samples or ():
                    self._queue_up(self._clock.monotonic(), sample)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as reason:
            _log.info("decision_point_left", reason=type(reason).__name__)
        finally:
            self._clients.discard(writer)
            writer.transport.abort()

    def hang_up(self) -> None:
        """Let go of every deciding process."""
        for client in tuple(self._clients):
            client.transport.abort()

    def _queue_up(self, since: float, sample: Sample) -> None:
        if self._queue.full():
            self.counts["dropped"] += 1
        else:
            self._queue.put_nowait((since, sample))

    async def work(self) -> None:
        """Judge what comes until cancelled."""
        while True:
            since, sample = await self._queue.get()
            await self.judge(sample, since)
            await asyncio.sleep(0)

    async def judge(self, sample: Sample, since: float) -> None:
        """Judge one sample that came at `since` (monotonic), and act on it."""
        verdict = self._check.judge(sample)
        if verdict.state is State.WAITS:
            if len(self._early) < _WAITING and self._clock.monotonic() - since < _WAIT_SECONDS:
                self._early.append((since, sample))
            else:
                self.counts[State.GONE.value] += 1
            return
        self.counts[verdict.state.value] += 1
        if verdict.state is State.DIFFERS:
            await self._act(sample, verdict)

    async def _act(self, sample: Sample, verdict: Verdict) -> None:
        finding = self._finding(sample, verdict)
        known = {(one.slice, one.measure) for one in self.findings}
        if (finding.slice, finding.measure) in known or len(self.findings) >= findings.MOST:
            return
        self.findings = (*self.findings, finding)
        try:
            await asyncio.to_thread(findings.write, self._data, self.findings)
        except OSError as reason:  # told all the same: what rules now matters more than what is kept
            _log.critical("finding_not_kept", reason=reason.strerror or str(reason))
        for client in tuple(self._clients):
            client.write(_line((finding,)))
        _log.critical(
            "decision_mismatch",
            record=finding.record, slice=finding.slice, measure=finding.measure.value,
            action=finding.action, policies=list(finding.policies), said=finding.said,
        )  # fmt: skip
        recording = asyncio.create_task(self._recorded(finding))
        self._recording.add(recording)
        recording.add_done_callback(self._recording.discard)

    async def _recorded(self, finding: Finding) -> None:
        """Put a finding on record, however long the log refuses."""
        while True:
            try:
                await self._audit.write(_record(finding))
            except UnavailableError:
                _log.critical("finding_not_recorded", record=finding.record)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    def _finding(self, sample: Sample, verdict: Verdict) -> Finding:
        return Finding(
            slice=verdict.slice,
            measure=verdict.measure or Measure.DENY,
            engine=__version__,
            time=_stamp(self._clock),
            record=self._ids.new(),
            bundle=sample.bundle,
            entities=f"v{sample.entities}",
            policies=verdict.policies,
            principal=str(sample.principal),
            action=sample.action.id,
            resource=str(sample.resource),
            said=verdict.said,
        )

    # The admin socket

    async def report(self, path: str) -> Report:
        """Answer for health, readiness and numbers: how many samples came to what, and what was found."""
        match path:
            case "/healthz":
                return 200, TEXT, b"ok\n"
            case "/readyz":
                found = [
                    {"slice": one.slice, "measure": one.measure.value, "record": one.record}
                    for one in self.findings
                ]
                state = {"ready": True, "samples": dict(self.counts), "findings": found}
                return 200, JSON, msgspec.json.encode(state)
            case "/metrics":
                return 200, TEXT, self._numbers().encode()
        return NOT_FOUND

    def _numbers(self) -> str:
        states = (*(one.value for one in State if one is not State.WAITS), "dropped")
        lines = (f'doorward_shadow_samples{{state="{one}"}} {self.counts[one]}\n' for one in states)
        return (
            f"# TYPE doorward_shadow_samples gauge\n{''.join(lines)}"
            f"# TYPE doorward_shadow_findings gauge\ndoorward_shadow_findings {len(self.findings)}\n"
        )


def _without_secrets(key: KeyRecord) -> KeyRecord:
    return msgspec.structs.replace(key, hash="", s3_secret=None)


def _line(told: tuple[Finding, ...]) -> bytes:
    return msgspec.json.encode(ShadowMessage(findings=told)) + b"\n"


def _stamp(clock: Clock) -> str:
    now = clock.now().astimezone(UTC)
    return now.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _record(finding: Finding) -> AlertRecord:
    said = "; ".join(f"{who} said {what}" for who, what in finding.said.items())
    return AlertRecord(
        id=finding.record,
        kind="alert",
        time=finding.time,
        request_id=finding.record,
        code="decision_mismatch",
        severity="critical",
        detail=f"a decision was not what Cedar decides ({said}): {_SAID[finding.measure]}",
        principal=finding.principal,
        action=finding.action,
        resource=finding.resource,
        bundle=finding.bundle,
        entities=finding.entities,
        facts={
            "slice": finding.slice,
            "measure": finding.measure.value,
            "policies": list(finding.policies),
            "said": finding.said,
        },
    )


async def run_shadow(settings: Settings, *, lifeline: int | None = None) -> None:
    """Run the shadow role until it is asked to stop."""
    telemetry.configure(role="shadow")
    prepare_data(settings.data)
    os.nice(_NICE)  # whatever else runs on this machine goes first
    clock = SystemClock()
    ids = IdSource(clock)
    stop = asyncio.Event()
    async with AuditWriter(
        settings.data / "audit", "shadow", clock=clock, ids=ids, settings=settings.audit
    ) as audit:
        shadow = Shadow(settings.data, audit=audit, clock=clock, ids=ids)
        feed = FeedClient(
            settings.data / "feed.sock", shadow.on_known, shadow.on_delta, shadow.on_bundle, lambda _: None
        )
        jobs = [asyncio.create_task(job) for job in (feed.run(), shadow.work())]
        asking = asyncio.create_task(set_when_asked(stop, lifeline))
        try:
            async with _listening(shadow, settings.data):
                done, _ = await asyncio.wait({asking, *jobs}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a check that no longer checks ends loudly: the supervisor starts another
        finally:
            for task in (asking, *jobs):
                task.cancel()
            await asyncio.gather(asking, *jobs, return_exceptions=True)


@contextlib.asynccontextmanager
async def _listening(shadow: Shadow, data: Path) -> AsyncIterator[None]:
    server = await asyncio.start_unix_server(
        shadow.serve, sock=peer.listen(data / SOCKET), limit=_LONGEST_LINE
    )
    admin = AdminServer(data / "shadow.sock", shadow.report)
    await admin.start()
    try:
        yield
    finally:
        server.close()
        shadow.hang_up()
        await admin.stop()
        (data / SOCKET).unlink(missing_ok=True)
