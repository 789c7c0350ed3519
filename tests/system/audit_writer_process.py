"""Write decisions as fast as they become durable; print each id once it is acknowledged.

`python audit_writer_process.py DIRECTORY SEGMENT_BYTES`
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from doorward import telemetry
from doorward.audit.writer import AuditWriter
from doorward.core.clock import SystemClock
from doorward.core.errors import AuditUnavailableError
from doorward.core.ids import IdSource
from doorward.core.record import DecisionRecord
from doorward.settings import AuditSettings

CALLERS = 20


async def caller(log: AuditWriter, ids: IdSource) -> None:
    """Write one record after another; print those that are durable, and `refused` for others."""
    while True:
        name = ids.new()
        record = DecisionRecord(
            id=name, kind="decision", time="2026-11-23T08:00:00.000Z", request_id=name,
            decision="allow", code="allowed", detail="x" * 300,
        )  # fmt: skip
        try:
            await log.write(record)
        except AuditUnavailableError as reason:
            os.write(1, f"refused {reason.message}\n".encode())
            await asyncio.sleep(0.02)
        else:
            # One unbuffered write a line: what the test reads was acknowledged before the kill.
            os.write(1, f"{name}\n".encode())


async def main() -> None:
    """Write until killed."""
    telemetry.configure(role="test")
    clock = SystemClock()
    ids = IdSource(clock)
    settings = AuditSettings(segment_bytes=int(sys.argv[2]))
    async with AuditWriter(Path(sys.argv[1]), "gateway", clock=clock, ids=ids, settings=settings) as log:
        await asyncio.gather(*(caller(log, ids) for _ in range(CALLERS)))


asyncio.run(main())
