"""Run the other engines on one workload, each in its own process and environment."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.report import progress
from benchmarks.workload import Rule
from doorward.console.build import npm

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".cache" / "bench"
PYTHON = HOME / "python" / "bin" / "python"
CERBOS = HOME / "node/node_modules/@cerbos/cerbos-linux-x64/cerbos-linux-x64"
# More rules than these take a peer too long to load or to answer for a figure worth waiting for.
MOST = {"regorus": 1_000, "vakt": 10_000, "pycasbin": 100, "Cerbos": 10_000}
_PROGRAMS = {
    "regorus": "regorus_peer",
    "vakt": "vakt_peer",
    "pycasbin": "casbin_peer",
    "Cerbos": "cerbos_peer",
}


def install() -> None:
    """Install the peers, pinned by hash, below `.cache/bench`; nothing of ours depends on them."""
    lock = ROOT / "requirements/bench.txt"
    done = HOME / "lock"
    wanted = lock.read_text() + (ROOT / "benchmarks/peers/node/package-lock.json").read_text()
    if done.exists() and done.read_text() == wanted:
        return
    progress("installing the peers")
    shutil.rmtree(HOME, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(HOME / "python"))
    _run(
        str(PYTHON),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
        str(lock),
    )
    shutil.copytree(ROOT / "benchmarks/peers/node", HOME / "node")
    _run(*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", folder=HOME / "node")
    if CERBOS.exists():  # the package is for one platform
        CERBOS.chmod(0o755)
    done.write_text(wanted)


def available() -> list[str]:
    """Return the peers that run on this machine."""
    return [name for name in _PROGRAMS if name != "Cerbos" or CERBOS.exists()]


def run(
    name: str, rules: Sequence[Rule], requests: Sequence[dict[str, Any]], *, seconds: float
) -> list[float]:
    """Return one peer's microseconds a decision; raise if one of its answers is wrong."""
    with tempfile.TemporaryDirectory(prefix="dwbench") as folder:
        work = Path(folder) / "work.json"
        content = {"rules": [asdict(r) for r in rules], "requests": list(requests), "seconds": seconds}
        work.write_text(json.dumps(content))
        program = ROOT / f"benchmarks/peers/{_PROGRAMS[name]}.py"
        with _cerbos(Path(folder)) as environment:
            printed = _run(str(PYTHON), str(program), str(work), environment=environment)
    answer = json.loads(printed)
    if answer["wrong"]:
        raise RuntimeError(f"{name} gave {answer['wrong']} wrong answers to {len(answer['took'])} requests")
    return list(answer["took"])


@contextlib.contextmanager
def _cerbos(folder: Path) -> Iterator[dict[str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pid = folder / "pid"
    try:
        yield {"CERBOS": str(CERBOS), "CERBOS_PORT": str(port), "CERBOS_PID": str(pid), "TMPDIR": str(folder)}
    finally:
        if pid.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.read_text()), signal.SIGKILL)


def _run(*command: str, folder: Path | None = None, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(  # noqa: S603 -- fixed programs
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout
