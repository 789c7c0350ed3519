"""What the gateway adds to a request, beside nginx as a plain proxy to the same upstream.

One upstream (nginx answering a fixed chat completion), one load generator (wrk), and in turn: the
upstream itself, nginx as a proxy, and the gateway with everything on: API key, naming, Cedar
decision, durable audit before forwarding. CPU is what all processes of the proxy used, from /proc,
divided by the requests answered. Rounds are interleaved; medians are shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Figure, arguments, progress, publish

_TICK = os.sysconf("SC_CLK_TCK")
_BODY = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hello " * 140}]})
_ANSWER = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "tiny",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "world " * 150}}],
        "usage": {"prompt_tokens": 140, "completion_tokens": 150, "total_tokens": 290},
    }
)  # fmt: skip
_POLICY = """
@id("bench-invoke")
permit (principal is Doorward::User, action == Doorward::Action::"invoke", resource is Doorward::Model)
when { resource.sensitivity <= principal.clearance };
@id("bench-view")
permit (principal is Doorward::User, action == Doorward::Action::"view", resource is Doorward::Model)
when { resource.sensitivity <= principal.clearance };
"""
_ORG = """
users:
  ada: { roles: [bench], employment: employee, clearance: 2 }
assets:
  Model::"llm/tiny": { owner: ada, sensitivity: 1, environment: production }
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of load: requests per second, latencies in ms, CPU microseconds per request."""

    rps: float
    p50: float
    p99: float
    cpu: float


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int, seconds: float = 30) -> None:
    """Wait until something listens on a loopback port."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


@contextlib.contextmanager
def running(command: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the length of a block."""
    process = subprocess.Popen(  # noqa: S603 -- our own programs
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def nginx_config(folder: Path, server: str) -> Path:
    """Write a one-worker nginx configuration."""
    file = folder / f"{abs(hash(server))}.conf"
    file.write_text(
        f"daemon off; worker_processes 1; pid {file}.pid; error_log stderr crit;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"keepalive_requests 1000000000; {server} }}\n"
    )
    return file


def cpu_seconds(pids: list[int]) -> float:
    """Return user + system seconds used so far by these processes."""
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / _TICK
    return total


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [pid] + [member for child in children for member in family(child)]


def load(url: str, script: Path, pids: list[int], *, connections: int, seconds: int) -> Measured:
    """Send load for some seconds and measure it."""
    before = cpu_seconds(pids)
    printed = subprocess.run(  # noqa: S603 -- fixed arguments
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url],  # noqa: S607
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    used = cpu_seconds(pids) - before
    if "Non-2xx" in printed:
        raise RuntimeError(f"the system under test refused requests:\n{printed}")
    count = int(re.search(r"(\d+) requests in", printed)[1])  # type: ignore[index]  # wrk always prints it
    return Measured(
        rps=count / seconds,
        p50=_milliseconds(re.search(r"50%\s+([\d.]+)(us|ms|s)", printed)),
        p99=_milliseconds(re.search(r"99%\s+([\d.]+)(us|ms|s)", printed)),
        cpu=used / count * 1e6,
    )


def _milliseconds(match: re.Match[str] | None) -> float:
    assert match is not None
    return float(match[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[match[2]]


def wrk_script(folder: Path, key: str) -> Path:
    """Write the request wrk repeats."""
    file = folder / "post.lua"
    file.write_text(
        f"wrk.method = 'POST'\nwrk.body = [==[{_BODY}]==]\n"
        f"wrk.headers['Content-Type'] = 'application/json'\nwrk.headers['Authorization'] = 'Bearer {key}'\n"
    )
    return file


def doorward(folder: Path, *words: str, **environment: str) -> str:
    """Run one command of ours and return what it printed."""
    return subprocess.run(  # noqa: S603 -- our own program
        [sys.executable, "-m", "doorward.cli", *words, "--data", str(folder / "data")],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def prepare(folder: Path, upstream: int, gateway: int, control: int) -> list[str]:
    """Write a configuration of ours and return the command that runs it."""
    (folder / "policies").mkdir()
    (folder / "policies/bench.cedar").write_text(_POLICY)
    (folder / "org.yaml").write_text(_ORG)
    (folder / "doorward.toml").write_text(
        f'[gateway]\nlisten = "127.0.0.1:{gateway}"\n[control]\nlisten = "127.0.0.1:{control}"\n'
        f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{upstream}"\n'
    )
    return [
        sys.executable, "-m", "doorward.cli", "up",
        "--config", str(folder / "doorward.toml"), "--data", str(folder / "data"),
    ]  # fmt: skip


def gateway_pids(pid: int) -> list[int]:
    """Return the processes on the request path: the gateway role, not supervisor or control."""
    return [
        member for member in family(pid) if b"\0gateway\0" in Path(f"/proc/{member}/cmdline").read_bytes()
    ]


def medians(rounds: list[Measured]) -> Measured:
    """Return the median of each figure."""
    return Measured(
        *(statistics.median(getattr(one, name) for one in rounds) for name in ("rps", "p50", "p99", "cpu"))
    )


def measure(*, quick: bool) -> list[Figure]:
    """Run all rounds and return the figures."""
    seconds, rounds = (2, 2) if quick else (5, 5)
    folder = Path(tempfile.mkdtemp(prefix="dw"))
    ports = {name: free_port() for name in ("upstream", "nginx", "gateway", "control")}
    answer = (
        f"server {{ listen 127.0.0.1:{ports['upstream']}; location / {{"
        f" default_type application/json; return 200 '{_ANSWER}'; }} }}"
    )
    proxy = (
        f"upstream u {{ server 127.0.0.1:{ports['upstream']}; keepalive 64; }}"
        f" server {{ listen 127.0.0.1:{ports['nginx']};"
        " location / { proxy_http_version 1.1; proxy_set_header Connection ''; proxy_pass http://u; } }"
    )
    try:
        with (
            running(["nginx", "-c", str(nginx_config(folder, answer)), "-p", str(folder)]),
            running(["nginx", "-c", str(nginx_config(folder, proxy)), "-p", str(folder)]) as nginx,
            running(prepare(folder, **{k: ports[k] for k in ("upstream", "gateway", "control")})) as ours,
        ):
            for port in ports.values():
                await_port(port)
            doorward(folder, "apply", "-f", str(folder / "org.yaml"))
            key = json.loads(doorward(folder, "key", "create", "--user", "ada", "--json"))["key"]
            script = wrk_script(folder, key)
            targets = {
                "direct": (f"http://127.0.0.1:{ports['upstream']}/v1/chat/completions", []),
                "nginx": (f"http://127.0.0.1:{ports['nginx']}/v1/chat/completions", family(nginx.pid)),
                "doorward": (
                    f"http://127.0.0.1:{ports['gateway']}/llm/v1/chat/completions",
                    gateway_pids(ours.pid),
                ),
            }
            results: dict[tuple[str, int], list[Measured]] = {}
            for number in range(rounds):
                for connections in (1, 32):
                    for name, (url, pids) in targets.items():
                        progress(f"round {number + 1}/{rounds}: {name}, {connections} connections")
                        results.setdefault((name, connections), []).append(
                            load(url, script, pids, connections=connections, seconds=seconds)
                        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return figures({place: medians(rounds) for place, rounds in results.items()})


def figures(results: dict[tuple[str, int], Measured]) -> list[Figure]:
    """Compare ours with nginx, both less what the upstream alone takes."""
    direct, nginx, ours = (results[name, 1] for name in ("direct", "nginx", "doorward"))
    busy_nginx, busy = results["nginx", 32], results["doorward", 32]
    return [
        Figure(
            "added latency, 1 connection, p50", "ms", ours.p50 - direct.p50, {"nginx": nginx.p50 - direct.p50}
        ),
        Figure(
            "added latency, 1 connection, p99", "ms", ours.p99 - direct.p99, {"nginx": nginx.p99 - direct.p99}
        ),
        Figure("latency, 32 connections, p50", "ms", busy.p50, {"nginx": busy_nginx.p50}),
        Figure("latency, 32 connections, p99", "ms", busy.p99, {"nginx": busy_nginx.p99}),
        Figure("CPU per request, 32 connections", "us", busy.cpu, {"nginx": busy_nginx.cpu}),
        Figure("requests per second, 32 connections", "1/s", busy.rps, {"nginx": busy_nginx.rps}),
    ]


if __name__ == "__main__":
    options = arguments(__doc__.splitlines()[0])
    for program in ("nginx", "wrk"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed; `make setup-system` installs it")
    publish(measure(quick=options.quick), as_json=options.json)
