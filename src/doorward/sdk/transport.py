"""One HTTP/1.1 exchange with a deadline for all of it, over TCP, TLS or a Unix socket."""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

_MOST = 8 * 1024 * 1024


class Target(msgspec.Struct, frozen=True):
    """Where to ask: a Unix socket, or host and port; `path` stands before the endpoint's own."""

    socket: Path | None = None
    host: str = "localhost"
    port: int = 0
    tls: bool = False
    path: str = ""
    ca: str | None = None


def exchange(
    target: Target, path: str, body: bytes, headers: Mapping[str, str], *, timeout: float
) -> tuple[int, bytes]:
    """POST and return status and body; raise TimeoutError past the deadline, OSError, HTTPException.

    The answer is read to its end; more than 8 MiB raise OSError.
    """
    deadline = time.monotonic() + timeout
    connection = http.client.HTTPConnection(_authority(target))
    raw = _connected(target, deadline)
    try:
        timed = _TimedSocket(raw, deadline)
        connection.sock = timed
        connection.request("POST", target.path + path, body, {**headers, "Connection": "close"})
        answer = connection.getresponse()
        content = answer.read(_MOST + 1)
        if len(content) > _MOST:
            raise OSError("the answer is too large")
        return answer.status, content
    finally:
        raw.close()


class _TimedSocket:
    """What http.client needs of a socket, each operation bounded by the one deadline."""

    def __init__(self, raw: socket.socket, deadline: float) -> None:
        self._raw, self._deadline = raw, deadline

    def sendall(self, data: bytes) -> None:
        self._raw.settimeout(_left(self._deadline))
        self._raw.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        del mode
        return io.BufferedReader(_TimedReader(self._raw, self._deadline))

    def close(self) -> None:
        """Leave closing to `exchange`: the answer is still read after this."""


class _TimedReader(io.RawIOBase):
    def __init__(self, raw: socket.socket, deadline: float) -> None:
        self._raw, self._deadline = raw, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._raw.settimeout(_left(self._deadline))
        return self._raw.recv_into(buffer)


def _connected(target: Target, deadline: float) -> socket.socket:
    if target.socket is not None:
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            raw.settimeout(_left(deadline))
            # A socket path is limited to 107 bytes; a relative one is often shorter.
            raw.connect(min(str(target.socket), os.path.relpath(target.socket), key=len))
        except BaseException:
            raw.close()
            raise
        return raw
    raw = socket.create_connection((target.host, target.port), timeout=_left(deadline))
    if not target.tls:
        return raw
    try:
        raw.settimeout(_left(deadline))
        context = ssl.create_default_context(cafile=target.ca)
        return context.wrap_socket(raw, server_hostname=target.host)
    except BaseException:
        raw.close()
        raise


def _authority(target: Target) -> str:
    return "localhost" if target.socket is not None else f"{_bracketed(target.host)}:{target.port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
