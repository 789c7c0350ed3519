"""The README's commands do what it says, on a copy of nothing but this repository."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.installation import SlowLLM, free_port, wait_until

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def lines(block: str) -> list[str]:
    return [line.split("   #")[0].strip() for line in block.splitlines() if line.strip()]


@pytest.fixture
def llm() -> Iterator[SlowLLM]:
    with SlowLLM() as running:
        yield running


def test_the_five_minutes_hold(tmp_path: Path, llm: SlowLLM) -> None:
    first, second = (lines(block) for block in BLOCKS if "doorward" in block)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DOORWARD_GATEWAY__LISTEN": f"127.0.0.1:{free_port()}",
        "DOORWARD_CONTROL__LISTEN": f"127.0.0.1:{free_port()}",
        "NO_COLOR": "1",
    }
    assert first[0] == ". .venv/bin/activate"
    assert first[-1] == "doorward up"
    written = "\n".join(first[1:-1]).replace("http://127.0.0.1:9001", f"http://127.0.0.1:{llm.port}")
    script = f"set -e\n{written}\nexec doorward up\n"
    log = tmp_path / "up.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", script], cwd=tmp_path, env=environment, stdout=out, stderr=out
        )
    try:
        wait_until(lambda: "\ndata     " in log.read_text() or process.poll() is not None, seconds=90)
        assert process.poll() is None, log.read_text()
        assert "first admin: open http" in log.read_text()
        environment["LLM_KEY"] = "for-the-second-terminal"
        for command in second:
            result = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path / "door", env=environment,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            # The doctor is right: this model server is still open to anyone.
            expected = 1 if command == "doorward doctor" else 0
            assert result.returncode == expected, (command, result.stdout, result.stderr)
            assert result.stdout
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0


def test_the_two_commands_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in lines(BLOCKS[0]):
        target = line.split()[1]
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
