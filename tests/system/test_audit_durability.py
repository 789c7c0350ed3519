"""The log against kill -9 and a really full disk, in a process of its own."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from doorward.audit.query import Query
from doorward.audit.reader import AuditReader
from doorward.audit.verify import verify

PROGRAM = Path(__file__).with_name("audit_writer_process.py")
KILLS = 50


def start(directory: Path, segment_bytes: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(directory), str(segment_bytes)], stdout=subprocess.PIPE
    )


def lines_until(process: subprocess.Popen[bytes], wanted: str, seconds: float = 20) -> list[str]:
    """Read whole lines until one starts with `wanted`."""
    assert process.stdout is not None
    found: list[str] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ready, _, _ = select.select([process.stdout], [], [], 0.5)
        if ready:
            found.append(process.stdout.readline().decode().strip())
            if found[-1].startswith(wanted):
                return found
    raise AssertionError(f"no line starting with {wanted!r}; the last ones: {found[-5:]}")


def recorded(directory: Path) -> list[str]:
    return [record["id"] for record in AuditReader(directory).records(Query(kind="decision"))]


@pytest.mark.timeout(300)
def test_killed_fifty_times_no_acknowledged_record_is_lost(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    moments = random.Random(20261123)  # noqa: S311 -- a reproducible shuffle
    acknowledged: list[str] = []
    for _ in range(KILLS):
        process = start(directory, 40_000)
        assert process.stdout is not None
        acknowledged += lines_until(process, "0")
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        *whole, _torn = process.stdout.read().decode().split("\n")
        acknowledged += whole
        assert process.wait() == -signal.SIGKILL
    found = recorded(directory)
    assert len(acknowledged) > KILLS * 5
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))
    report = verify(directory)
    assert report.intact, report.broken
    assert len(list((directory / "gateway").glob("*.jsonl"))) > 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("mounting a file system needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_really_full_disk_refuses_at_once_and_heals_when_space_returns(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        file.write(b"\0" * 900_000)
    directory = small_disk / "audit"
    process = start(directory, 64 * 1024 * 1024)
    try:
        seen = lines_until(process, "refused")
        assert "No space left" in seen[-1]
        ballast.unlink()
        seen += lines_until(process, "0")
    finally:
        process.kill()
        assert process.stdout is not None
        seen += process.stdout.read().decode().split("\n")[:-1]
        process.wait()
    acknowledged = {line for line in seen if not line.startswith("refused")}
    assert acknowledged <= set(recorded(directory))
    report = verify(directory)
    assert report.intact, report.broken


def test_beyond_its_file_size_limit_it_refuses_and_lives(tmp_path: Path) -> None:
    """A limit on file size gives EFBIG where mounting is not allowed; Python ignores SIGXFSZ."""
    directory = tmp_path / "audit"
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'ulimit -f 100; exec "$@"', "sh", sys.executable, str(PROGRAM),
         str(directory), "9999999"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    try:
        seen = lines_until(process, "refused")
        assert "too large" in seen[-1]
        # A new segment is begun after the failure: that heals it.
        seen += lines_until(process, "0")
    finally:
        process.kill()
        assert process.stdout is not None
        seen += process.stdout.read().decode().split("\n")[:-1]
        process.wait()
    assert {line for line in seen if not line.startswith("refused")} <= set(recorded(directory))
    assert verify(directory).intact
