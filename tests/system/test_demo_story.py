"""The main job, as a user runs it: `doorward demo --exit`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from doorward.demo.model import find_model

BEATS = 10


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory of its own with a short name: Unix sockets lie in it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="dw-") as name:
        yield Path(name)


@pytest.mark.timeout(600)
@pytest.mark.skipif(find_model() is None, reason="the language model is not fetched: make demo does that")
def test_every_beat_of_the_story_holds_and_nothing_is_left_behind(short: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "doorward.cli", "demo", "--exit", "--json"],
        check=False, capture_output=True, text=True, timeout=580, env={**os.environ, "TMPDIR": str(short)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    beats = json.loads(ended.stdout)
    assert [beat["number"] for beat in beats] == list(range(1, BEATS + 1))
    assert all(beat["ok"] for beat in beats)
    assert list(short.iterdir()) == []
    here = str(short).encode()
    assert not [command for command in _commands() if here in command]


def _commands() -> Iterator[bytes]:
    """Yield the command line of every process there is."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield file.read_bytes()
