"""A whole installation in its own directory: real processes and sockets, stopped by the test that made it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import web

STARTER = Path(__file__).parents[2] / "src/doorward/policies/packs/starter"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], *, seconds: float = 30, what: str = "") -> Any:
    """Return the first true value of `condition`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what or condition}")


@dataclass
class Installation:
    """`doorward up` in a directory of its own. Use as a context manager; `start` may be called again."""

    upstreams: str = ""
    org: str = ""
    policies: str = ""
    extra: str = ""
    tls: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # Unix socket paths are short: /tmp, not pytest's long directories.
        self.folder = Path(tempfile.mkdtemp(prefix="dw", dir="/tmp"))
        self.data = self.folder / "data"
        self.gateway_port, self.control_port = free_port(), free_port()
        self.log = self.folder / "up.log"
        if self.policies:
            self.write_policy("test.cedar", self.policies)
        else:
            shutil.copytree(STARTER, self.folder / "policies")
        tls = '\ntls = "auto"' if self.tls else ""
        (self.folder / "doorward.toml").write_text(
            f'[gateway]\nlisten = "127.0.0.1:{self.gateway_port}"{tls}\n'
            f'[control]\nlisten = "127.0.0.1:{self.control_port}"\n{self.extra}\n{self.upstreams}\n'
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.gateway_port}"

    def write_policy(self, name: str, text: str) -> None:
        file = self.folder / "policies" / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(text)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "doorward.cli", *words]

    def start(self) -> Installation:
        """Start and wait until it is ready; apply the org file."""
        self.launch()
        wait_until(self._announced, seconds=60, what="doorward up is ready")
        if self.org:
            (self.folder / "org.yaml").write_text(self.org)
            self.cli("apply", "-f", str(self.folder / "org.yaml"))
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(
                    "up", "--config", str(self.folder / "doorward.toml"), "--data", str(self.data)
                ),
                cwd=self.folder, env=self._environment(), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return self.process

    def _announced(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return "\ndata     " in self.log.read_text()

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        children = [self.pid("gateway"), self.pid("control"), self.pid("ledger")]
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for child in filter(None, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def pid(self, role: str) -> int | None:
        """Return the process id of a role, found among the supervisor's own children."""
        assert self.process is not None
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for child in task.read_text().split():
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                    if role.encode() in words:
                        return int(child)
        return None

    def cli(self, *words: str, code: int = 0) -> str:
        """Run one command against this installation; fail on another exit code."""
        result = subprocess.run(
            [*self.command(*words), "--data", str(self.data)],
            cwd=self.folder, env=self._environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == code, (words, result.returncode, result.stdout, result.stderr)
        return result.stdout if code == 0 else result.stdout + result.stderr

    def key(self, user: str, *more: str) -> dict[str, str]:
        return json.loads(self.cli("key", "create", "--user", user, *more, "--json"))

    def records(self) -> list[dict[str, Any]]:
        """Return every record of the log that is on disk, unparsable lines left out."""
        found = []
        for file in sorted((self.data / "audit").rglob("*.jsonl")):
            for line in file.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment, "NO_COLOR": "1"}


@dataclass
class SlowLLM:
    """An OpenAI-like upstream in a thread: counts what reaches it, answers when told, streams for ever."""

    models: list[str] = field(default_factory=list)
    port: int = 0
    left: int = 0

    def __enter__(self) -> Self:
        self._answer = threading.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.set()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def answer_now(self) -> None:
        self._answer.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
        await site.start()
        self.port = int(runner.addresses[0][1])
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _models(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.models.append(body["model"])
        if body.get("stream"):
            return await self._stream(request)
        while not self._answer.is_set():
            await asyncio.sleep(0.02)
        return web.json_response(
            {"id": "c", "object": "chat.completion", "model": body["model"], "choices": []}
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        try:
            while not self._stop.is_set():
                await answer.write(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n')
                await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.CancelledError):
            self.left += 1
            raise
        return answer
