"""The ledger role: owns counters, places and one-time things; no database, no keys, no network."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from doorward import telemetry
from doorward.app.admin import JSON, NOT_FOUND, TEXT, AdminServer, Report
from doorward.app.supervisor import prepare_data, set_when_asked
from doorward.core.clock import SystemClock
from doorward.core.errors import UnavailableError
from doorward.ledger.journal import Journal
from doorward.ledger.keeper import Keeper
from doorward.settings import Settings

SOCKET = "uses.sock"
_log = structlog.get_logger()


async def run_ledger(settings: Settings, *, lifeline: int | None = None) -> None:
    """Keep the ledger until asked to stop.

    Raises ConflictError if another process keeps it, UnavailableError if its disk refuses: memory that
    the disk does not hold is no ledger, so the process ends and is started again.
    """
    telemetry.configure(role="ledger")
    prepare_data(settings.data)
    stop = asyncio.Event()
    failures: list[Exception] = []

    def fail(reason: Exception) -> None:
        _log.critical("journal_failed", reason=str(reason))
        failures.append(reason)
        stop.set()

    keeper = Keeper(
        settings.data / SOCKET,
        Journal(settings.data / "ledger"),
        clock=SystemClock(),
        fail=fail,
        network=settings.network,
    )
    await keeper.start()
    admin = AdminServer(settings.data / "ledger.sock", lambda path: _report(keeper, path))
    try:
        await admin.start()
        await set_when_asked(stop, lifeline)
    finally:
        await admin.stop()
        await keeper.stop()
    if failures:
        raise UnavailableError(
            f"the journal of the counters cannot be written: {failures[0]}", hint="Free the disk."
        )


async def _report(keeper: Keeper, path: str) -> Report:
    match path:
        case "/healthz":
            return 200, TEXT, b"ok\n"
        case "/readyz":
            return 200, JSON, msgspec.json.encode({"ready": True, **keeper.numbers()})
        case "/metrics":
            lines = (
                f"# TYPE doorward_ledger_{name} gauge\ndoorward_ledger_{name} {value}\n"
                for name, value in keeper.numbers().items()
            )
            return 200, TEXT, "".join(lines).encode()
    return NOT_FOUND
