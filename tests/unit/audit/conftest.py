"""A log in a temporary directory, a disk that can fail, and records to write."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from doorward.audit.disk import Disk
from doorward.audit.writer import AuditWriter
from doorward.core.clock import ManualClock
from doorward.core.ids import IdSource
from doorward.core.record import DecisionRecord
from doorward.settings import AuditSettings


class FailingDisk(Disk):
    """A real disk that refuses when told: `full` after so many bytes, or a failing sync."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.sync_fails = False
        self.truncate_fails = False
        self.syncs = 0

    def write(self, descriptor: int, data: bytes) -> None:
        if self.room is not None and len(data) > self.room:
            os.write(descriptor, data[: self.room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        if self.sync_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        if self.truncate_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().truncate(descriptor, size)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 23, 8, tzinfo=UTC))


@pytest.fixture
def record(clock: ManualClock) -> Callable[..., DecisionRecord]:
    ids = IdSource(clock)

    def make(**fields: object) -> DecisionRecord:
        clock.advance(0.001)
        now = clock.now()
        base: dict[str, object] = {
            "id": ids.new(),
            "kind": "decision",
            "time": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z",
            "request_id": ids.new(),
            "decision": "allow",
            "code": "allowed",
            "principal": 'User::"dana"',
            "action": "read",
            "resource": 'Dataset::"store/training"',
        }
        return DecisionRecord(**{**base, **fields})

    return make


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def make_writer(tmp_path: Path, clock: ManualClock, disk: FailingDisk) -> Callable[..., AuditWriter]:
    def make(name: str = "gateway", *, queue: int = 10_000, **settings: float) -> AuditWriter:
        return AuditWriter(
            tmp_path / "audit",
            name,
            clock=clock,
            ids=IdSource(clock),
            settings=AuditSettings(**settings),
            disk=disk,
            queue=queue,
        )

    return make


@pytest.fixture
async def writer(make_writer: Callable[..., AuditWriter]) -> AsyncIterator[AuditWriter]:
    async with make_writer() as opened:
        yield opened
