"""The three real systems of the story: how each stands open by default, and how it is closed."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import sqlite3
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from doorward.core.errors import UnavailableError
from doorward.demo import data
from doorward.demo.processes import Server, free_port, listens

MODEL_NAME = "smollm2"
REGISTERED = "fraud-detector"
_REQUEST_TIMEOUT = 60.0
_MLFLOW_START = 150.0
_START = 60.0


@dataclass(frozen=True, slots=True)
class Probe:
    """What one request without any credential got: `open` if it was answered, and a line to show."""

    open: bool
    said: str


@dataclass(slots=True)
class Secrets:
    """The upstreams' own credentials; only they and the gateway get them, by environment."""

    llm_key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    store_id: str = field(default_factory=lambda: "STORE" + secrets.token_hex(6).upper())
    store_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)


class LanguageModel:
    """A real LLM behind the OpenAI protocol (llama.cpp); closed by an API key only the gateway holds."""

    title = "language model"

    def __init__(self, *, work: Path, model: Path, keys: Secrets) -> None:
        """Choose a port; nothing runs yet."""
        self.port = free_port()
        self._work, self._model, self._keys = work, model, keys
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, closed: bool) -> None:
        """Start it, open to anyone or asking for its key; returns at once."""
        self._server = Server(
            self.title,
            [
                sys.executable,
                "-m",
                "doorward.demo.language_model",
                str(self._model),
                str(self.port),
                MODEL_NAME,
            ],
            log=self._work / "logs" / "llm.log",
            environment={"DEMO_LLM_KEY": self._keys.llm_key if closed else ""},
            directory=self._work,
        )

    def wait(self) -> None:
        """Return once it answers."""
        server = _running(self._server)
        server.wait_until(lambda: _status(f"{self.url}/health") == _OK, seconds=_START)

    def close(self) -> None:
        """Start it again, this time with its key."""
        self.stop()
        self.start(closed=True)
        self.wait()

    def stop(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.stop()

    def probe(self) -> Probe:
        """Ask it something, as nobody."""
        body = {
            "model": MODEL_NAME, "max_tokens": 12, "temperature": 0,
            "messages": [{"role": "user", "content": "Say hello."}],
        }  # fmt: skip
        status, text = ask(f"{self.url}/v1/chat/completions", body)
        if status != _OK:
            return Probe(open=False, said=f"{status} {_words(text)}")
        answer = json.loads(text)["choices"][0]["message"]["content"]
        return Probe(open=True, said=f"it chats with anyone: {_words(answer)!r}")


class Registry:
    """A real MLflow tracking server and model registry; closed by moving it to a private Unix socket."""

    title = "model registry"

    def __init__(self, *, work: Path) -> None:
        """Choose a port and a socket; nothing runs yet."""
        self.port = free_port()
        self._home = work / "registry"
        self._home.mkdir(mode=0o700)
        self._logs = work / "logs"
        self.socket = self._home / "mlflow.sock"
        self._open: Server | None = None
        self._closed: Server | None = None

    @property
    def url(self) -> str:
        """Return where it listens while it is open."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it open, on a TCP port, and beside it its successor; returns at once.

        MLflow takes half a minute to start: the successor is made ready while the open one is shown.
        """
        self._open = self._launch("open", ["--host", "127.0.0.1", "--port", str(self.port)])
        self._closed = self._launch("closed", ["--uvicorn-opts", f"--uds {self.socket}"])

    def _launch(self, name: str, where: list[str]) -> Server:
        return Server(
            self.title,
            [
                program("mlflow"), "server", *where, "--workers", "1",
                "--backend-store-uri", f"sqlite:///{self._database(name)}",
                "--artifacts-destination", f"file://{self._home}/artifacts",
            ],
            log=self._logs / f"mlflow-{name}.log",
            environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            directory=self._home,
        )  # fmt: skip

    def _database(self, name: str) -> Path:
        return self._home / f"{name}.db"

    def wait(self) -> None:
        """Return once the open one answers."""
        server = _running(self._open)
        server.wait_until(lambda: _status(f"{self.url}/health") == _OK, seconds=_MLFLOW_START)

    def seed(self) -> None:
        """Register the story's model with two versions, the first in production."""
        registry = f"{self.url}/api/2.0/mlflow/registered-models"
        calls = [
            (
                f"{registry}/create",
                {"name": REGISTERED, "description": "Flags payments that look like fraud."},
            ),
            *((f"{self.url}/api/2.0/mlflow/model-versions/create", _version(number)) for number in (1, 2)),
            (f"{registry}/alias", {"name": REGISTERED, "alias": "production", "version": "1"}),
        ]
        for url, body in calls:
            status, text = ask(url, body)
            if status != _OK:
                raise UnavailableError(f"the registry could not be filled: {status} {_words(text)}")

    def close(self) -> None:
        """End the open one and move its data to the one on a socket in a private directory."""
        successor = _running(self._closed)
        successor.wait_until(lambda: _answers(self.socket), seconds=_MLFLOW_START)
        _running(self._open).stop()
        with (
            contextlib.closing(sqlite3.connect(self._database("open"))) as old,
            contextlib.closing(sqlite3.connect(self._database("closed"))) as new,
        ):
            old.backup(new)

    def stop(self) -> None:
        """End both."""
        for server in (self._open, self._closed):
            if server is not None:
                server.stop()

    def probe(self) -> Probe:
        """List its models, as nobody."""
        if not listens(self.port):
            return Probe(open=False, said="nothing listens: it lives behind a private Unix socket now")
        status, text = ask(f"{self.url}/api/2.0/mlflow/registered-models/search", None)
        if status != _OK:
            return Probe(open=False, said=f"{status} {_words(text)}")
        names = [model["name"] for model in json.loads(text).get("registered_models", [])]
        return Probe(open=True, said=f"anyone may list, change and promote its models: {', '.join(names)}")


class Store:
    """A real S3 server (rclone) with training data and weights; closed by keys only the gateway holds."""

    title = "dataset store"

    def __init__(self, *, work: Path, keys: Secrets) -> None:
        """Choose a port and fill the buckets; nothing runs yet."""
        self.port = free_port()
        self.home = work / "store"
        self._work, self._keys = work, keys
        self._server: Server | None = None
        data.write_store(self.home)

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, closed: bool) -> None:
        """Start it, open to anyone or checking signatures; returns at once."""
        pair = {"RCLONE_AUTH_KEY": f'"{self._keys.store_id},{self._keys.store_secret}"'} if closed else {}
        self._server = Server(
            self.title,
            [program("rclone"), "serve", "s3", str(self.home), "--addr", f"127.0.0.1:{self.port}"],
            log=self._work / "logs" / "store.log",
            environment={"RCLONE_CONFIG": "/dev/null", **pair},
            directory=self._work,
        )

    def wait(self) -> None:
        """Return once it listens."""
        _running(self._server).wait_until(lambda: listens(self.port), seconds=_START)

    def close(self) -> None:
        """Start it again, this time with its keys."""
        self.stop()
        self.start(closed=True)
        self.wait()

    def stop(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.stop()

    def probe(self) -> Probe:
        """Read the customers, as nobody."""
        status, text = ask(f"{self.url}/{data.BUCKET}/{data.CUSTOMERS}", None)
        if status != _OK:
            return Probe(open=False, said=f"{status} {_words(text)}")
        return Probe(open=True, said=f"anyone may read the customers: {text.splitlines()[1]}")


_OK = 200


def ask(url: str, body: dict[str, Any] | None) -> tuple[int, str]:
    """Send one plain request without any credential; return its status and text."""
    request = urllib.request.Request(  # noqa: S310 -- our own loopback servers
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT) as answer:  # noqa: S310 -- as above
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode("utf-8", "replace")
    except OSError as reason:
        return 0, str(reason)


def program(name: str) -> str:
    """Return the path of an installed program, the one beside this Python first."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise UnavailableError(
            f"`{name}` is not installed", hint="The demo needs the packages of requirements/demo.in."
        )
    return found


def _version(number: int) -> dict[str, str]:
    return {"name": REGISTERED, "source": f"s3://{data.WEIGHTS_BUCKET}/{data.WEIGHTS[number - 1]}"}


def _status(url: str) -> int:
    return ask(url, None)[0]


def _words(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 140 else flat[:139] + "…"  # noqa: PLR2004 -- one line of a terminal


def _answers(place: Path) -> bool:
    """Return whether a server accepts connections on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(place)) == 0


def _running(server: Server | None) -> Server:
    if server is None:
        raise UnavailableError("it was not started")
    return server
