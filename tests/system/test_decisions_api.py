"""`/api/v1/decisions` over the real listeners: pages, the live stream, why, and who may look."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.console_plane import Plane, running

API = "/api/v1/decisions"


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running() as opened:
        yield opened


class Stream:
    """A server-sent event stream over the operator's socket, read line by line."""

    def __init__(self, data: Path, path: str, headers: str = "") -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(15)
        self._socket.connect(str(data / "control.sock"))
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        self._file = self._socket.makefile("rb")

    def until(self, start: str) -> str:
        while line := self._file.readline():
            if line.startswith(start.encode()):
                return line.decode().removeprefix(start).strip()
        raise AssertionError(f"the stream ended before `{start}`")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


async def test_pages_go_from_newest_to_oldest_without_gap(plane: Plane) -> None:
    for number in range(7):
        await plane.decide(f"r{number}", decision="deny" if number % 2 else "allow")
    seen: list[str] = []
    older = ""
    while True:
        status, page = await plane.operator("GET", f"{API}?limit=3&older_than={older}")
        assert status == 200
        seen += [record["request_id"] for record in page["records"]]
        older = page["older"]
        if not older:
            break
    assert seen == [f"r{number}" for number in reversed(range(7))]


async def test_conditions_are_taken_and_unknown_ones_refused(plane: Plane) -> None:
    await plane.decide("a", principal='User::"omar"', decision="deny", code="denied")
    await plane.decide("b")
    _, page = await plane.operator("GET", f"{API}?principal=omar&decision=deny&since=1h")
    assert [record["request_id"] for record in page["records"]] == ["a"]
    for wrong in ("limit=0", "decision=maybe", "principle=omar", "limit=100000"):
        assert (await plane.operator("GET", f"{API}?{wrong}"))[0] in {400, 422}
    assert (await plane.operator("GET", f"{API}?since=soon"))[0] == 400


async def test_why_joins_everything_on_record(plane: Plane) -> None:
    await plane.decide("asked", determining=("because",))
    status, story = await plane.operator("GET", f"{API}/asked")
    assert (status, story["decision"], story["determining"]) == (200, "allow", ["because"])
    assert (await plane.operator("GET", f"{API}/never"))[0] == 404


async def test_the_stream_sends_what_comes_and_resumes_without_gap(plane: Plane) -> None:
    await plane.decide("before")
    stream = await asyncio.to_thread(Stream, plane.data, f"{API}/stream")
    try:
        await asyncio.to_thread(stream.until, ": welcome")
        await plane.decide("first")
        position = await asyncio.to_thread(stream.until, "id: ")
        assert json.loads(await asyncio.to_thread(stream.until, "data: "))["request_id"] == "first"
    finally:
        stream.close()
    await plane.decide("missed")
    again = await asyncio.to_thread(Stream, plane.data, f"{API}/stream", f"Last-Event-ID: {position}\r\n")
    try:
        assert json.loads(await asyncio.to_thread(again.until, "data: "))["request_id"] == "missed"
    finally:
        again.close()


@pytest.mark.parametrize("path", [API, f"{API}/stream", f"{API}/x"])
async def test_a_stranger_sees_nothing(plane: Plane, path: str) -> None:
    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", plane.port)) as connection:
            connection.settimeout(10)
            host = f"localhost:{plane.port}"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(65536)

    answer: Any = await asyncio.to_thread(ask)
    assert answer.startswith(b"HTTP/1.1 401 ")
