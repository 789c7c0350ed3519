"""The story's beat on the log itself: one byte is changed, and the record is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from doorward.demo.stage import NotHeldError, Stage, require

_BROKEN = 7


def changed_byte_is_named(stage: Stage) -> list[str]:
    """Change one byte of the log: `audit verify` names the record; put it back: the log is intact."""
    request_id = str(stage.seen.get("etl request") or stage.newest(decision="deny")["request_id"])
    record = stage.decided(request_id)
    path, offset = _place(stage, str(record["id"]))
    with path.open("r+b") as file:
        file.seek(offset)
        before = file.read(1)
    _put(path, offset, bytes([before[0] ^ 0x01]))
    try:
        status, said = _verify(stage)
    finally:
        _put(path, offset, before)
    require(status == _BROKEN, f"verify ended with {status}: {said}")
    require(record["id"] in said, f"verify does not name {record['id']}: {said}")
    status, intact = _verify(stage)
    require(status == 0, f"with the byte back, verify ended with {status}: {intact}")
    return [next(line for line in said.splitlines() if line.startswith("BROKEN"))]


def _place(stage: Stage, record_id: str) -> tuple[Path, int]:
    """Return where in the log the record names its principal."""
    for path in sorted((stage.house.data / "audit").glob("gateway-*/[0-9]*.jsonl")):
        data = path.read_bytes()
        found = data.find(f'"id":"{record_id}"'.encode())
        if found >= 0:
            return path, data.index(b'"principal":', found) + len(b'"principal":"U')
    raise NotHeldError(f"record {record_id} is in no segment")


def _put(path: Path, offset: int, byte: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, byte, offset)
    finally:
        os.close(descriptor)


def _verify(stage: Stage) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "doorward.cli", "audit", "verify", "--data", str(stage.house.data)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr
