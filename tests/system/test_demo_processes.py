"""What the demo starts ends with it, however it went: asked to, done, or killed with -9."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from doorward.core.errors import UnavailableError
from doorward.demo.processes import Server, free_port, listens

# A server with a child of its own that ignores the polite signal.
FAMILY = """
import os, signal, subprocess, sys, time
if len(sys.argv) > 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(sys.argv[1] + ".child", "w").write(str(os.getpid()))
    time.sleep(600)
else:
    raise SystemExit("name a file")
"""
PARENT = FAMILY.replace(
    "time.sleep(600)", "subprocess.run([sys.executable, '-c', CHILD, sys.argv[1] + '2'])"
).replace("import os", f"CHILD = {FAMILY!r}\nimport os")
STARTER = """
import sys, time
from pathlib import Path
from doorward.demo.processes import Server
place = Path(sys.argv[1])
Server("family", [sys.executable, "-c", sys.argv[2], str(place / "pid")], log=place / "log",
       environment={}, directory=place, grace=0.3)
time.sleep(600)
"""


def until(check: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def family(place: Path) -> list[int]:
    files = [place / "pid.child", place / "pid2.child"]
    until(lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


def test_stopping_ends_children_of_children_that_ignore_the_polite_signal(tmp_path: Path) -> None:
    server = Server(
        "family",
        [sys.executable, "-c", PARENT, str(tmp_path / "pid")],
        log=tmp_path / "log",
        environment={},
        directory=tmp_path,
        grace=0.3,
    )
    pids = family(tmp_path)
    assert all(lives(pid) for pid in pids)
    server.stop()
    server.stop()
    assert not any(lives(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_demo_is_killed_everything_it_started_ends(tmp_path: Path, number: int) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path), PARENT])
    try:
        pids = family(tmp_path)
    finally:
        starter.send_signal(number)
        starter.wait()
    until(lambda: not any(lives(pid) for pid in pids))


def test_a_server_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    server = Server(
        "broken",
        [sys.executable, "-c", "raise SystemExit('the port is taken')"],
        log=tmp_path / "log",
        environment={},
        directory=tmp_path,
    )
    with pytest.raises(UnavailableError, match="broken ended at once") as caught:
        server.wait_until(lambda: False, seconds=20)
    assert "the port is taken" in caught.value.hint


def test_a_free_port_is_free_and_a_taken_one_is_passed_over() -> None:
    port = free_port()
    assert not listens(port)
    with socket.create_server(("127.0.0.1", port)):
        assert listens(port)
        assert free_port(port) != port
