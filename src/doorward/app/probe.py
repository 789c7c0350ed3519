"""Ask a system directly, without any credential, whether it lets a stranger in."""

from __future__ import annotations

import http.client
import socket
import ssl
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

_TIMEOUT = 5.0
# One harmless read per protocol that only a caller with access should see answered.
_READS = {
    "openai": "/v1/models",
    "anthropic": "/v1/models",
    "ollama": "/api/tags",
    "mlflow": "/api/2.0/mlflow/experiments/search?max_results=1",
    "s3": "/",
    "chroma": "/api/v2/heartbeat",
    "huggingface": "/api/models",
    "mcp": "/mcp",
    "http": "/",
}


class Door(Enum):
    """Say what a stranger found."""

    OPEN = "open"
    CLOSED = "closed"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Finding:
    """State what one direct request met; `detail` is for people."""

    door: Door
    detail: str


def probe(kind: str, url: str) -> Finding:
    """Send one read without a credential; a success status means the door is open to anyone."""
    if url.startswith("unix:"):
        return Finding(Door.CLOSED, f"{url} is a Unix socket: only this machine's accounts reach it")
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + _READS.get(kind, "/")
    if kind in {"openai", "anthropic"} and parts.path.rstrip("/").endswith("/v1"):
        path = parts.path.rstrip("/") + "/models"
    try:
        status = _status(parts.scheme, parts.hostname or "", parts.port, path)
    except ssl.SSLError as reason:
        return Finding(Door.CLOSED, f"TLS was refused ({reason.reason or reason})")
    except (OSError, http.client.HTTPException) as reason:
        return Finding(Door.UNREACHABLE, f"no answer from {url} ({reason})")
    if status < http.client.BAD_REQUEST:
        return Finding(Door.OPEN, f"GET {path} without any credential answered {status}")
    if status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
        return Finding(Door.CLOSED, f"GET {path} without a credential answered {status}")
    return Finding(Door.CLOSED, f"GET {path} without a credential answered {status}, neither yes nor no")


def _status(scheme: str, host: str, port: int | None, path: str) -> int:
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def listens_beyond_loopback(url: str) -> bool:
    """Return whether a local upstream's port also answers on this machine's outside address."""
    parts = urlsplit(url)
    if parts.port is None or parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            # Connecting a datagram socket sends nothing; it asks the kernel for our own address.
            route.connect(("192.0.2.1", 9))
        except OSError:
            return False
        outside = route.getsockname()[0]
    if outside.startswith("127."):
        return False
    try:
        socket.create_connection((outside, parts.port), 1.0).close()
    except OSError:
        return False
    return True
