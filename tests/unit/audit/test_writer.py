from __future__ import annotations

import asyncio
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from doorward.audit.head import read_head
from doorward.audit.query import Query
from doorward.audit.reader import AuditReader
from doorward.audit.verify import verify
from doorward.audit.writer import AuditWriter
from doorward.core.errors import AuditUnavailableError, ConflictError

Make = Callable[..., AuditWriter]


def read(tmp_path: Path, **conditions: str) -> list[dict[str, Any]]:
    return list(AuditReader(tmp_path / "audit").records(Query(**conditions)))


def events(tmp_path: Path) -> list[str]:
    return [record["event"] for record in read(tmp_path, kind="log")]


async def settled(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.005)


async def test_a_record_is_on_disk_when_write_returns(
    writer: AuditWriter, record: Any, tmp_path: Path
) -> None:
    written = record()
    await writer.write(written)
    on_disk = (tmp_path / "audit/gateway" / f"{1:020d}.jsonl").read_text()
    assert written.id in on_disk
    assert read(tmp_path, request_id=written.request_id)[0]["decision"] == "allow"


async def test_many_waiting_writers_share_few_syncs(
    writer: AuditWriter, record: Any, disk: Any, tmp_path: Path
) -> None:
    before = disk.syncs
    await asyncio.gather(*(writer.write(record()) for _ in range(500)))
    assert disk.syncs - before < 50
    numbers = [entry["seq"] for entry in read(tmp_path)]
    assert numbers == list(range(1, 502))


async def test_only_the_owner_may_read_files_and_directories(writer: AuditWriter, tmp_path: Path) -> None:
    del writer
    for path in (tmp_path / "audit").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o700


async def test_a_full_disk_refuses_and_heals_when_space_returns(
    writer: AuditWriter, record: Any, disk: Any, tmp_path: Path
) -> None:
    kept = record()
    await writer.write(kept)
    disk.room = 100
    for _ in range(3):
        with pytest.raises(AuditUnavailableError, match="No space left"):
            await writer.write(record(detail="refused"))
    assert not writer.healthy
    disk.room = None
    after = record()
    await writer.write(after)
    assert writer.healthy
    await settled(lambda: "healed" in events(tmp_path))
    decisions = [entry["id"] for entry in read(tmp_path, kind="decision")]
    assert decisions == [kept.id, after.id]
    assert verify(tmp_path / "audit").intact
    healed = [entry for entry in read(tmp_path, kind="log") if entry["event"] == "healed"]
    assert [entry["facts"]["refused"] for entry in healed] == [3]


async def test_a_failing_sync_is_never_called_durable_and_its_file_not_trusted_again(
    writer: AuditWriter, record: Any, disk: Any, tmp_path: Path
) -> None:
    await writer.write(record())
    disk.sync_fails = True
    refused = record()
    with pytest.raises(AuditUnavailableError, match="Input/output error"):
        await writer.write(refused)
    disk.sync_fails = False
    await writer.write(record())
    assert read(tmp_path, request_id=refused.request_id) == []
    assert len(list((tmp_path / "audit/gateway").glob("*.jsonl"))) == 2
    assert verify(tmp_path / "audit").intact


async def test_while_a_half_written_batch_cannot_be_cut_nothing_more_is_accepted(
    writer: AuditWriter, record: Any, disk: Any, tmp_path: Path
) -> None:
    disk.room, disk.truncate_fails = 50, True
    with pytest.raises(AuditUnavailableError):
        await writer.write(record())
    disk.room = None
    with pytest.raises(AuditUnavailableError):
        await writer.write(record())
    disk.truncate_fails = False
    await writer.write(record())
    assert verify(tmp_path / "audit").intact


async def test_a_blocked_disk_is_refused_within_the_deadline_and_told_afterwards(
    make_writer: Make, record: Any, disk: Any, tmp_path: Path
) -> None:
    gate = threading.Event()
    async with make_writer(deadline=0.2) as writer:
        real = disk.sync
        disk.sync = lambda descriptor: (gate.wait(10), real(descriptor))
        late, queued = record(), record()
        with pytest.raises(AuditUnavailableError, match="not durable within"):
            await writer.write(late)
        with pytest.raises(AuditUnavailableError, match="not durable within"):
            await writer.write(queued)
        gate.set()
        await settled(lambda: "unclaimed" in events(tmp_path))
        note = read(tmp_path, kind="log")[-1]
        assert note["facts"]["request"] == late.request_id
        assert read(tmp_path, request_id=queued.request_id) == []


async def test_the_queue_is_bounded(make_writer: Make, record: Any, disk: Any) -> None:
    gate = threading.Event()
    async with make_writer(queue=10, deadline=5) as writer:
        real, busy = disk.sync, threading.Event()
        disk.sync = lambda descriptor: (busy.set(), gate.wait(10), real(descriptor))
        first = asyncio.create_task(writer.write(record()))
        await settled(busy.is_set)
        waiting = [asyncio.create_task(writer.write(record())) for _ in range(10)]
        await asyncio.sleep(0)
        with pytest.raises(AuditUnavailableError, match="too many"):
            await writer.write(record())
        gate.set()
        await asyncio.gather(first, *waiting)


async def test_a_dropped_outcome_is_counted_and_the_count_is_on_record(
    make_writer: Make, record: Any, disk: Any, tmp_path: Path
) -> None:
    gate = threading.Event()
    async with make_writer(queue=10, deadline=5) as writer:
        real = disk.sync
        disk.sync = lambda descriptor: (gate.wait(10), real(descriptor))
        for _ in range(100):
            writer.write_soon(record())
        assert writer.lost >= 80
        gate.set()
        await settled(lambda: "lost" in events(tmp_path))
        lost = [entry["facts"]["lost"] for entry in read(tmp_path, kind="log") if entry["event"] == "lost"]
        assert sum(lost) == writer.lost


async def test_outcomes_wait_out_a_full_disk(
    writer: AuditWriter, record: Any, disk: Any, tmp_path: Path
) -> None:
    disk.room = 0
    outcome = record()
    writer.write_soon(outcome)
    with pytest.raises(AuditUnavailableError):
        await writer.write(record())
    disk.room = None
    await settled(lambda: bool(read(tmp_path, request_id=outcome.request_id)))
    assert writer.lost == 0


async def test_a_closed_writer_refuses(make_writer: Make, record: Any) -> None:
    writer = make_writer()
    with pytest.raises(AuditUnavailableError, match="closed"):
        await writer.write(record())
    await writer.open()
    await writer.close()
    await writer.close()
    with pytest.raises(AuditUnavailableError, match="closed"):
        await writer.write(record())


async def test_closing_writes_what_is_queued_and_marks_a_clean_stop(
    make_writer: Make, record: Any, tmp_path: Path
) -> None:
    async with make_writer() as writer:
        for _ in range(50):
            writer.write_soon(record())
    head = read_head(tmp_path / "audit/gateway")
    assert head is not None
    assert (head.size, head.clean) == (51, True)
    assert len(read(tmp_path, kind="decision")) == 50


async def test_two_processes_cannot_write_one_log(make_writer: Make) -> None:
    async with make_writer():
        with pytest.raises(ConflictError, match="another process"):
            await make_writer().open()


async def test_the_chain_goes_on_after_a_restart_and_over_segments(
    make_writer: Make, record: Any, tmp_path: Path
) -> None:
    for _ in range(3):
        async with make_writer(segment_bytes=2_000) as writer:
            for _ in range(10):
                await writer.write(record())
    assert len(list((tmp_path / "audit/gateway").glob("*.jsonl"))) > 5
    report = verify(tmp_path / "audit")
    assert report.intact
    assert report.writers[0].records == 33


async def test_a_torn_tail_is_cut_set_aside_and_noted(make_writer: Make, record: Any, tmp_path: Path) -> None:
    async with make_writer() as writer:
        await writer.write(record())
    place = tmp_path / "audit/gateway"
    head = place / "head.json"
    head.write_text(head.read_text().replace("true", "false"))
    segment = place / f"{1:020d}.jsonl"
    with segment.open("ab") as file:
        file.write(b'{"half":"a reco')
    async with make_writer() as writer:
        await writer.write(record())
    assert verify(tmp_path / "audit").intact
    opened = [entry for entry in read(tmp_path, kind="log") if entry["event"] == "opened"][-1]
    assert (opened["facts"]["bytes"], opened["facts"]["whole_lines"]) == (15, 0)
    assert [path.read_bytes() for path in place.glob("torn-*.bin")] == [b'{"half":"a reco']


async def test_a_tail_cut_while_stopped_is_still_known_after_the_next_start(
    make_writer: Make, record: Any, tmp_path: Path
) -> None:
    async with make_writer() as writer:
        for _ in range(5):
            await writer.write(record())
    segment = tmp_path / "audit/gateway" / f"{1:020d}.jsonl"
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[:-2]))
    async with make_writer() as writer:
        await writer.write(record())
    report = verify(tmp_path / "audit")
    assert [(found.what, found.seq) for found in report.broken] == [("cut", 5)]


async def test_a_lost_head_is_still_known_after_the_next_start(
    make_writer: Make, record: Any, tmp_path: Path
) -> None:
    async with make_writer() as writer:
        await writer.write(record())
    (tmp_path / "audit/gateway/head.json").unlink()
    async with make_writer():
        pass
    assert not verify(tmp_path / "audit").intact


async def test_what_changes_after_the_call_is_not_what_is_written(
    writer: AuditWriter, record: Any, tmp_path: Path
) -> None:
    context = {"risk": 1}
    task = asyncio.create_task(writer.write(record(context=context)))
    await asyncio.sleep(0)
    context["risk"] = 99
    await task
    assert read(tmp_path, kind="decision")[0]["context"] == {"risk": 1}


async def test_a_caller_who_leaves_does_not_stop_the_log(
    writer: AuditWriter, record: Any, tmp_path: Path
) -> None:
    task = asyncio.create_task(writer.write(record()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await writer.write(record())
    assert verify(tmp_path / "audit").intact


async def test_a_record_nested_beyond_reason_is_refused_not_fatal(writer: AuditWriter, record: Any) -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"d": deep}
    with pytest.raises(AuditUnavailableError):
        await writer.write(record(context=deep))
    await writer.write(record())
    while deep:
        deep = deep["d"]


async def test_a_directory_that_cannot_be_written_says_so(make_writer: Make, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit/gateway").write_text("a file where a directory must be")
    with pytest.raises(AuditUnavailableError, match="cannot be opened"):
        await make_writer().open()
    assert [path.name for path in (tmp_path / "audit").iterdir()] == ["gateway"]


async def test_a_record_made_durable_in_time_counts_though_the_loop_was_busy_past_the_deadline(
    make_writer: Make, record: Any
) -> None:
    async with make_writer(deadline=0.2) as writer:
        writing = asyncio.create_task(writer.write(record()))
        await asyncio.sleep(0)
        time.sleep(0.6)  # noqa: ASYNC251 -- a loop that is busy, which is the point
        await writing
