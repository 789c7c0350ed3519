"""Connections that are kept for the next question: one asks at a time, threads share, a fork starts anew."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Mapping

from doorward.sdk.http1 import Answer, WireError, request
from doorward.sdk.target import Target

KEPT = 16  # idle connections at most
# A control plane closes after 15 idle seconds; what is older than this is not worth the risk.
IDLE_SECONDS = 10.0
_READ = 64 * 1024


class Pool:
    """Exchange requests with one target. Safe to share between threads, and across `fork`."""

    def __init__(self, target: Target) -> None:
        """Connect to nothing yet."""
        self._target = target
        self._idle = _Idle()

    def exchange(
        self, path: str, body: bytes, headers: Mapping[str, str], *, timeout: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """POST; return status, headers and body. `timeout` in seconds is for all of it.

        Raises TimeoutError past it, OSError (WireError among them) for anything else that goes wrong.
        A kept connection that turns out to be dead is replaced once: what we ask changes nothing there.
        """
        deadline = time.monotonic() + timeout
        message = request(self._target.path + path, self._target.authority, headers, body)
        kept = self._mine().take()
        if kept is not None:
            answer = Answer()
            try:
                return self._asked(kept, message, answer, deadline)
            except TimeoutError:
                raise
            except OSError:
                if answer.begun:
                    raise
        return self._asked(_connected(self._target, deadline), message, Answer(), deadline)

    def close(self) -> None:
        """Close what is kept; asking again opens anew."""
        self._mine().close()

    def _mine(self) -> _Idle:
        if self._idle.process != os.getpid():
            # The parent's connections are the parent's: two processes on one would mix up answers.
            self._idle.forget()
            self._idle = _Idle()
        return self._idle

    def _asked(
        self, connection: socket.socket, message: bytes, answer: Answer, deadline: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            connection.settimeout(left(deadline))
            connection.sendall(message)
            whole = False
            while not whole:
                connection.settimeout(left(deadline))
                whole = answer.feed(connection.recv(_READ))
        except BaseException:
            connection.close()
            raise
        if answer.reusable:
            self._mine().put(connection)
        else:
            connection.close()
        return answer.status, answer.headers, answer.body


class _Idle:
    """The kept connections of one process, the one used last first."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._lock = threading.Lock()
        self._kept: list[tuple[float, socket.socket]] = []

    def take(self) -> socket.socket | None:
        while True:
            with self._lock:
                if not self._kept:
                    return None
                since, connection = self._kept.pop()
            if time.monotonic() - since < IDLE_SECONDS and not _speaks(connection):
                return connection
            connection.close()

    def put(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._kept) < KEPT:
                self._kept.append((time.monotonic(), connection))
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, []
        for _, connection in kept:
            connection.close()

    def forget(self) -> None:
        """Close our copies after a fork; the lock may be held by a thread that is not here."""
        for _, connection in self._kept:
            connection.close()


def _speaks(connection: socket.socket) -> bool:
    """Return whether an idle connection was closed, or says what nobody asked."""
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def left(deadline: float) -> float:
    """Return the seconds until a deadline; raise TimeoutError past it."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def _connected(target: Target, deadline: float) -> socket.socket:
    if target.socket is not None:
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            raw.settimeout(left(deadline))
            raw.connect(target.address)
        except BaseException:
            raw.close()
            raise
        return raw
    raw = socket.create_connection((target.host, target.port), timeout=left(deadline))
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.tls is None:
            return raw
        raw.settimeout(left(deadline))
        return target.tls.wrap_socket(raw, server_hostname=target.host)
    except BaseException:
        raw.close()
        raise


__all__ = ["IDLE_SECONDS", "KEPT", "Pool", "WireError", "left"]
