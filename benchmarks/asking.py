"""What one decision costs a program: in process, over the Unix socket, over HTTP, and a thousand in a batch.

One real control plane (the console's application with store, directory and durable audit) in a process
of its own; the SDK asks it. Every evaluation but those in process is on disk before it is answered.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from benchmarks.report import Figure, arguments, progress, publish
from doorward.cli.connection import call
from doorward.core.errors import DoorwardError
from doorward.sdk import Client, DecisionPoint

_POLICY = """
@id("bench-invoke")
permit (principal is Doorward::User, action == Doorward::Action::"invoke", resource is Doorward::Model)
when { resource.sensitivity <= principal.clearance };
@id("bench-asks")
permit (principal == Doorward::Service::"asker", action == Doorward::Action::"inspect",
        resource == Doorward::Control::"policies");
"""
_ORG = """
users:
  ada: { roles: [bench], employment: employee, clearance: 2 }
services:
  asker: { owner: ada, environment: production }
assets:
  Model::"llm/tiny": { owner: ada, sensitivity: 1, environment: production }
"""
_QUESTION = ('User::"ada"', "invoke", 'Model::"llm/tiny"')
_BATCH = 1000


def main() -> None:
    """Measure and print."""
    wanted = arguments(__doc__ or "")
    rounds = 200 if wanted.quick else 2000
    with tempfile.TemporaryDirectory(prefix="dwask", dir="/tmp") as work:
        home = Path(work)
        (home / "policies").mkdir()
        (home / "policies" / "bench.cedar").write_text(_POLICY)
        (home / "org.yaml").write_text(_ORG)
        progress("in process")
        point = DecisionPoint(home / "policies", home / "org.yaml")
        embedded = _p50(lambda: point.can(*_QUESTION).allowed, rounds)
        with _Running(home) as plane:
            figures = _asked(plane, embedded, rounds)
    publish(figures, as_json=wanted.json)


def _asked(plane: _Running, embedded: float, rounds: int) -> list[Figure]:
    socket, http = Client(socket=plane.socket, timeout=30), Client(plane.url, key=plane.key, timeout=30)
    fresh = Client(plane.url, key=plane.key, timeout=30)

    def anew() -> bool:
        fresh.close()
        return fresh.can(*_QUESTION).allowed

    progress("over the Unix socket")
    over_socket = _p50(lambda: socket.can(*_QUESTION).allowed, rounds)
    progress("over HTTP")
    over_http = _p50(lambda: http.can(*_QUESTION).allowed, rounds)
    progress("over HTTP, a connection each")
    over_new = _p50(anew, rounds)
    progress("a thousand in a batch")
    names = [_QUESTION[2]] * _BATCH
    each = _p50(lambda: all(http.can_each(*_QUESTION[:2], names)), max(rounds // 200, 3)) / _BATCH
    return [
        Figure("decision in process, p50", "us", embedded),
        Figure("decision over the Unix socket, p50", "us", over_socket, {"over HTTP": over_http}),
        Figure("decision over HTTP, kept connection, p50", "us", over_http, {"new connection": over_new}),
        Figure("decision in a batch of 1,000 over HTTP", "us", each, {"asked alone": over_http}),
    ]


def _p50(ask: Callable[[], bool], rounds: int) -> float:
    """Return the median of one call in microseconds; an answer that is not an allow is an error."""
    for _ in range(max(rounds // 20, 3)):
        ask()
    times = []
    for _ in range(rounds):
        began = time.perf_counter_ns()
        if not ask():
            raise SystemExit("a question of the benchmark was denied")
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1000


class _Running:
    """`doorward up --role control` on a free port, with a Service's key."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._data = home / "data"
        self.socket = self._data / "control.sock"
        self.url = self.key = ""

    def __enter__(self) -> Self:
        config = self._home / "doorward.toml"
        port = _free_port()
        config.write_text(f'[control]\nlisten = "127.0.0.1:{port}"\n[policies]\npath = "policies"\n')
        command = ["up", "--role", "control", "--config", str(config), "--data", str(self._data)]
        self._process = subprocess.Popen(  # noqa: S603 -- our own command line
            [sys.executable, "-c", "from doorward.cli.main import main; main()", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the control plane did not start")
            time.sleep(0.05)
        body = {"org": _ORG, "source": "org.yaml", "prune": False, "plan": False}
        call(self._data, "POST", "/api/v1/apply", body)
        self.key = call(self._data, "POST", "/api/v1/keys", {"service": "asker"})["key"]
        return self

    def _answers(self) -> bool:
        try:
            call(self._data, "GET", "/healthz")
        except DoorwardError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)


def _free_port() -> int:
    import socket  # noqa: PLC0415 -- the name is a Client's argument above

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    main()
