"""How `doorward up` begins: alone on its data directory, and silent about doors that never opened."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.installation import Installation, free_port, wait_until

POLICIES = '@id("all") permit (principal, action, resource);'


@pytest.fixture
def stopped() -> Iterator[Installation]:
    with Installation(policies=POLICIES) as installation:
        yield installation


def up(installation: Installation, data: Path) -> subprocess.CompletedProcess[str]:
    config = str(installation.folder / "doorward.toml")
    listeners = {
        "DOORWARD_GATEWAY__LISTEN": f"127.0.0.1:{free_port()}",
        "DOORWARD_CONTROL__LISTEN": f"127.0.0.1:{free_port()}",
    }
    return subprocess.run(
        installation.command("up", "--config", config, "--data", str(data)),
        cwd=installation.folder, env={**os.environ, **listeners},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_second_up_on_one_data_directory_ends_and_the_first_goes_on(stopped: Installation) -> None:
    stopped.start()
    second = up(stopped, stopped.data)
    assert second.returncode == 3
    assert "another `doorward up` runs on" in second.stderr
    assert second.stdout == ""
    stopped.cli("people")
    assert stopped.pid("gateway")


def test_stopped_while_it_starts_it_announces_nothing(stopped: Installation) -> None:
    process = stopped.launch()
    wait_until((stopped.data / "up.lock").exists, seconds=60)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "\ngateway " not in stopped.log.read_text()


@pytest.mark.parametrize("place", ["a file", "/proc/none"])
def test_a_data_directory_that_cannot_be_is_named(stopped: Installation, place: str) -> None:
    (stopped.folder / "a file").touch()
    answer = up(stopped, stopped.folder / place)
    assert answer.returncode == 3
    assert place in answer.stderr
    assert "--data" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_data_directory_with_a_long_path_serves_like_any_other(stopped: Installation) -> None:
    stopped.data = stopped.folder / ("long-name-" * 12) / "data"
    stopped.start()
    stopped.cli("people")
