from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from doorward.audit.follow import Follower
from doorward.audit.query import Query, moment
from doorward.audit.reader import AuditReader, joined, read_cursor, write_cursor
from doorward.audit.writer import AuditWriter
from doorward.core.errors import InvalidRequestError
from doorward.core.record import Check, OutcomeRecord

Make = Callable[..., AuditWriter]
DECISIONS = Query(kind="decision")


@pytest.fixture
def reader(tmp_path: Path) -> AuditReader:
    return AuditReader(tmp_path / "audit")


async def test_writers_are_merged_by_time(make_writer: Make, record: Any, reader: AuditReader) -> None:
    async with make_writer("gateway") as one, make_writer("control") as two:
        for index in range(10):
            await (one if index % 3 else two).write(record(detail=str(index)))
    assert [entry["detail"] for entry in reader.records(DECISIONS)] == [str(index) for index in range(10)]
    assert [entry["detail"] for entry in reader.latest(4, DECISIONS).records] == ["9", "8", "7", "6"]


async def test_pages_cover_everything_once_over_segments(
    make_writer: Make, record: Any, reader: AuditReader
) -> None:
    async with make_writer("gateway", segment_bytes=3_000) as one, make_writer("control") as two:
        for index in range(60):
            await (one if index % 2 else two).write(record(detail=str(index)))
    seen: list[str] = []
    older = ""
    while True:
        page = reader.latest(7, DECISIONS, older_than=older)
        seen += [entry["detail"] for entry in page.records]
        older = page.older
        if not older:
            break
    assert seen == [str(index) for index in reversed(range(60))]


@pytest.mark.parametrize("size", [1, 7, 100, 65_535, 65_536, 65_537, 200_000])
async def test_reading_backwards_gives_what_reading_forwards_gives(
    make_writer: Make, record: Any, reader: AuditReader, size: int
) -> None:
    async with make_writer() as writer:
        for length in (size, 3, size, 1):
            await writer.write(record(detail="x" * length))
    forwards = list(reader.records())
    assert list(reversed(reader.latest(100).records)) == forwards
    assert len(forwards) == 5


async def test_a_follower_sees_each_record_once_across_rotation(
    make_writer: Make, record: Any, reader: AuditReader
) -> None:
    async with make_writer(segment_bytes=1_500) as writer:
        await writer.write(record(detail="before"))
        follower = Follower(reader, query=DECISIONS)
        assert follower.poll() == []
        seen = []
        for index in range(12):
            await writer.write(record(detail=str(index)))
            if index % 3 == 0:
                seen += follower.poll()
        seen += follower.poll()
    assert [entry["detail"] for entry in seen] == [str(index) for index in range(12)]


async def test_a_follower_resumes_from_its_cursor(
    make_writer: Make, record: Any, reader: AuditReader
) -> None:
    async with make_writer(segment_bytes=1_500) as writer:
        for index in range(8):
            await writer.write(record(detail=str(index)))
        cursor = read_cursor(write_cursor({"gateway": 5}))
        assert [entry["seq"] for entry in Follower(reader, cursor).poll()] == [6, 7, 8, 9]


async def test_a_follower_starts_with_a_log_that_is_not_there_yet(
    make_writer: Make, record: Any, reader: AuditReader
) -> None:
    follower = Follower(reader)
    assert follower.poll() == []
    async with make_writer() as writer:
        await writer.write(record())
    assert len(follower.poll()) == 2


async def test_a_follower_sees_what_replaces_a_batch_that_was_cut(
    make_writer: Make, record: Any, reader: AuditReader, tmp_path: Path
) -> None:
    async with make_writer() as writer:
        await writer.write(record(detail="one"))
    place = tmp_path / "audit/gateway" / f"{1:020d}.jsonl"
    whole = place.read_bytes()
    follower = Follower(reader, {})
    assert len(follower.poll()) == 2
    place.write_bytes(whole.splitlines(keepends=True)[0])
    assert follower.poll() == []
    place.write_bytes(whole)
    assert [entry["seq"] for entry in follower.poll()] == [2]


async def test_half_a_record_is_not_read(make_writer: Make, record: Any, reader: AuditReader) -> None:
    async with make_writer() as writer:
        await writer.write(record())
    place = next((reader.directory / "gateway").glob("*.jsonl"))
    follower = Follower(reader)
    with place.open("ab") as file:
        file.write(b'{"half":')
    assert follower.poll() == []
    assert len(list(reader.records())) == 2
    assert len(reader.latest(10).records) == 2


@pytest.mark.parametrize("junk", [b"\xff\n", b"[1]\n", b"{}\n", b"null\n", b"[" * 9000 + b"\n", b"\n"])
async def test_a_line_that_is_no_record_never_stops_reading(
    make_writer: Make, record: Any, reader: AuditReader, junk: bytes
) -> None:
    async with make_writer() as writer:
        await writer.write(record())
    place = next((reader.directory / "gateway").glob("*.jsonl"))
    place.write_bytes(junk + place.read_bytes())
    assert len(list(reader.records())) == len(reader.latest(10).records) == 2


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({"principal": "dana"}, {"a"}),
        ({"principal": 'User::"dana"'}, {"a"}),
        ({"principal": 'Doorward::User::"dana"'}, {"a"}),
        ({"principal": 'Service::"dana"'}, set()),
        ({"principal": "dan"}, set()),
        ({"principal": "scout"}, {"b"}),
        ({"decision": "deny"}, {"b", "c"}),
        ({"code": "limit_exceeded"}, {"c"}),
        ({"resource": "store/other"}, {"c"}),
        ({"action": "export", "decision": "deny"}, {"b"}),
        ({"text": "GRÜSSE"}, {"c"}),
        ({"text": "nowhere"}, set()),
    ],
)
async def test_every_condition_must_hold(
    make_writer: Make, record: Any, reader: AuditReader, conditions: dict[str, str], found: set[str]
) -> None:
    async with make_writer() as writer:
        await writer.write(record(id="a"))
        await writer.write(
            record(
                id="b", decision="deny", action="export", principal='User::"eli"', actor=('Agent::"scout"',)
            )
        )
        check = {"principal": "", "action": "read", "resource": 'Dataset::"store/other"', "decision": "deny"}
        await writer.write(
            record(
                id="c",
                decision="deny",
                code="limit_exceeded",
                principal="",
                detail="Grüße",
                checks=(Check(**check),),
            )
        )
    assert {entry["id"] for entry in reader.records(Query(kind="decision", **conditions))} == found


async def test_times_bound_a_search(make_writer: Make, record: Any, reader: AuditReader, clock: Any) -> None:
    async with make_writer() as writer:
        await writer.write(record(detail="old"))
        clock.advance(3600)
        await writer.write(record(detail="new"))
    since = moment("30m", clock.now())
    assert [entry["detail"] for entry in reader.records(Query(kind="decision", since=since))] == ["new"]
    assert [entry["detail"] for entry in reader.records(Query(kind="decision", until=since))] == ["old"]


def test_a_time_may_be_written_in_several_ways() -> None:
    now = datetime(2026, 11, 23, 8, tzinfo=UTC)
    assert moment("2026-11-23T09:30:00+01:30", now) == "2026-11-23T08:00:00.000Z"
    assert moment("2026-11-22", now) == "2026-11-22T00:00:00.000Z"
    assert moment("7d", now) == "2026-11-16T08:00:00.000Z"
    with pytest.raises(InvalidRequestError, match="not a time"):
        moment("yesterday", now)


@pytest.mark.parametrize("text", ["", "x", ":", "a:", ":1", "a:-1", "a:b", "a:٣", ",,,", "a:1,b"])
def test_a_cursor_from_a_client_never_fails(text: str) -> None:
    assert set(read_cursor(text)) <= {"a"}


async def test_a_decision_is_joined_with_its_outcome(
    make_writer: Make, record: Any, reader: AuditReader
) -> None:
    decision = record()
    async with make_writer() as writer:
        await writer.write(decision)
        writer.write_soon(
            OutcomeRecord(
                id="o", kind="outcome", time=decision.time, request_id=decision.request_id,
                outcome={"status": 200, "ended": "complete"},
            )
        )  # fmt: skip
    story = joined(reader.request(decision.request_id))
    assert story is not None
    assert (story["decision"], story["outcome"]["status"]) == ("allow", 200)
    assert joined(reader.request("nobody")) is None
