"""Random bytes through the edge, in memory: no crash, no hang, nothing forwarded that others read otherwise.

Beside the edge two independent readers, h11 and the pure-Python parser of aiohttp, see the same bytes.
Whatever the edge takes for a request, each of them must either refuse or read the same.
Run for long with `make soak`, or `PYTHONPATH=src:tests python -m support.fuzz_edge --count 1000000`.
A case is made from (seed, number) alone: `--seed S --start N --count 1` plays it again.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import h11
from aiohttp import http_exceptions
from aiohttp.http_parser import HttpRequestParserPy

from doorward.core.clock import SystemClock
from doorward.core.errors import DoorwardError
from doorward.core.ids import IdSource
from doorward.core.wire import Answer, Request
from doorward.gateway.body import whole
from doorward.gateway.edge import Edge, bounds_of
from doorward.gateway.refusal import of_error, problem
from doorward.http1.budget import Budget
from doorward.http1.listener import Listener
from doorward.settings import GatewaySettings
from support.ambiguous import AMBIGUOUS, PLAIN

Reading = tuple[str, str, bytes]
_LIMIT = 1 << 20
_STATUS = re.compile(rb"HTTP/1\.1 (?!100)[0-9]{3} ")
_WORDS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"/",
    b"//",
    b"\\",
    b"%2e",
    b"%2f",
    b"..",
    b"#",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length: +5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"transfer-encoding: Chunked\r\n",
    b"Host: other\r\n",
    b"Host:\r\n",
    b"Connection: close\r\n",
    b"HTTP/1.0",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"0",
    b"1",
    b"5",
    b"f",
    b"ffffffff",
    b"0x5",
    b"+5",
    b"5;a=b",
    b'5;a="b"',
    b"X-A: b\r\n",
    b" X-A: b\r\n",
    b"\x80",
    b"\xc3\xa9",
    b"GET ",
    b"POST ",
    b"GET /llm/evil HTTP/1.1\r\nHost: gate\r\n\r\n",
    b"Trailer: X-A\r\n",
    b"\x7f",
]


def made(seed: int, number: int) -> tuple[bytes, list[int]]:
    """Return the bytes of one case, and where they are cut on their way."""
    random = Random(seed * 1_000_003 + number)  # noqa: S311 -- to be made again
    plain, corpus = list(PLAIN.values()), [*PLAIN.values(), *AMBIGUOUS.values()]
    data = bytearray(random.choice(plain if random.random() < 0.8 else corpus))
    for _ in range(random.choice((0, 0, 1, 2))):
        data += random.choice(plain if random.random() < 0.8 else corpus)
    for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 6))):
        _mutate(data, random, corpus)
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.choice((0, 0, 1, 2, 4))))
    return bytes(data[:4096]), cuts


def _mutate(data: bytearray, random: Random, corpus: list[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    match random.randrange(7):
        case 0:
            data[at:at] = random.choice(_WORDS)
        case 1 if data:
            data[at % len(data)] = random.randrange(256)
        case 2:
            del data[at : at + random.choice((1, 1, 2, 5, 20))]
        case 3:
            lines = bytes(data).split(b"\r\n")
            lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
            data[:] = b"\r\n".join(lines)
        case 4:
            lines = bytes(data).split(b"\r\n")
            first, second = random.randrange(len(lines)), random.randrange(len(lines))
            lines[first], lines[second] = lines[second], lines[first]
            data[:] = b"\r\n".join(lines)
        case 5:
            other = random.choice(corpus)
            data[at:] = other[random.randrange(len(other)) :]
        case _ if data:
            here = at % len(data)
            data[here : here + 1] = bytes(data[here : here + 1]).swapcase()


@dataclass
class Keeper:
    """Stand where the flow stands: read the body, remember the request, answer."""

    seen: list[Reading] = field(default_factory=list)
    refused: int = 0

    async def handle(self, request: Request) -> Answer:
        target = request.raw_path + (f"?{request.raw_query}" if request.raw_query else "")
        try:
            body = await whole(request, limit=_LIMIT, seconds=30)
        except DoorwardError as error:
            self.refused += 1
            return problem(of_error(error, request.id))
        self.seen.append((request.method, target, body))
        return Answer(status=200, headers=[("Content-Type", "text/plain")], body=b"ok")

    async def malformed(self, error: DoorwardError, *, request_id: str, peer: Any) -> Answer:  # noqa: ARG002 -- the port's signature
        self.refused += 1
        return problem(of_error(error, request_id))


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written, self.closed, self.ended = bytearray(), False, False

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after the end"
        self.written += data

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        """Have none."""

    pause_reading = resume_reading = lambda _self: None


class DisagreementError(AssertionError):
    """The edge took something that another reader reads otherwise, or did not come to an end."""


class Run:
    """Play cases through one edge in one event loop."""

    def __init__(self) -> None:
        self.keeper = Keeper()
        settings = GatewaySettings(listen="127.0.0.1:0", max_connections_per_address=1 << 30)
        edge = Edge(self.keeper, settings=settings, ids=IdSource(SystemClock()), opaque={"store": 2})
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        edge.broken = lambda error: self.faults.append(repr(error))  # type: ignore[method-assign]
        self.budget = Budget(1 << 30)
        self.listener = Listener(edge, bounds_of(settings), self.budget)
        asyncio.get_running_loop().set_exception_handler(lambda _, what: self.faults.append(str(what)))

    async def play(self, data: bytes, cuts: list[int]) -> None:
        self.keeper.seen, self.keeper.refused = [], 0
        connection, wire = self.listener(), Wire()
        connection.connection_made(wire)  # type: ignore[arg-type]  # enough of one
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if not wire.closed and end > start:
                connection.data_received(data[start:end])
                await self._quiet(connection)
        if not wire.closed:
            keeps = connection.eof_received()
            await self._quiet(connection)
            if keeps and not wire.closed:
                raise DisagreementError("a request that was all there was not answered")
        connection.connection_lost(None)
        for _ in range(8):
            await asyncio.sleep(0)
        self._check(data, wire)

    async def _quiet(self, connection: Any) -> None:
        for _ in range(200):
            await asyncio.sleep(0)
            if not connection.busy or (connection._body is not None and not connection._body.complete):  # noqa: SLF001 -- no public sign
                break
        for _ in range(6):
            await asyncio.sleep(0)

    def _check(self, data: bytes, wire: Wire) -> None:
        if self.faults:
            raise DisagreementError(f"a fault of our own: {self.faults}")
        if self.budget.used or self.listener.busy or len(self.listener):
            raise DisagreementError("something is still held")
        answers = len(_STATUS.findall(wire.written))
        if answers > len(self.keeper.seen) + 1 or self.keeper.refused > 1:
            raise DisagreementError("answered more than was asked")
        if wire.written and not wire.written.startswith(b"HTTP/1.1 "):
            raise DisagreementError("an answer that is none")
        self.counts["requests"] += len(self.keeper.seen)
        self.counts["refused"] += self.keeper.refused
        for name, reader in (("h11", read_by_h11), ("aiohttp", read_by_aiohttp)):
            for ours, theirs in zip(self.keeper.seen, reader(data), strict=False):
                self.counts[f"compared with {name}"] += 1
                if ours != (theirs[0], _without_empty_query(theirs[1]), theirs[2]):
                    raise DisagreementError(f"{name} reads {theirs!r} where the edge reads {ours!r}")


def _without_empty_query(target: str) -> str:
    # A path with an empty query is sent on without one.
    return target[:-1] if target.endswith("?") and target.count("?") == 1 else target


def read_by_h11(data: bytes) -> Iterator[Reading]:
    """Yield what h11 reads, up to what it refuses."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if type(event) is not h11.Request:
                return
            method, target, body = event.method.decode(), event.target.decode(), b""
            while type(event := connection.next_event()) is h11.Data:
                body += bytes(event.data)
            if type(event) is not h11.EndOfMessage:
                return
            yield method, target, body
            connection.send(h11.Response(status_code=204, headers=[]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        return


class _Loop:
    """What aiohttp's parser asks of a loop."""

    def get_debug(self) -> bool:
        return False


class _Protocol:
    """What aiohttp's parser asks of a connection."""

    _reading_paused = False

    def pause_reading(self, *_: object, **__: object) -> None:
        """Read on: all of it is here."""

    resume_reading = pause_reading


def read_by_aiohttp(data: bytes) -> Iterator[Reading]:
    """Yield what aiohttp's Python parser reads, up to what it refuses."""
    protocol: Any = _Protocol()
    parser = HttpRequestParserPy(protocol, _Loop(), 1 << 20, max_line_size=8190, max_field_size=8190)  # type: ignore[arg-type]  # enough
    try:
        messages, _, _ = parser.feed_data(data)
    except (http_exceptions.HttpProcessingError, ValueError):
        return
    for message, payload in messages:
        body = b""
        if payload is not None and hasattr(payload, "_buffer"):
            if not payload.is_eof() or payload.exception() is not None:
                return
            body = b"".join(bytes(part) for part in payload._buffer)  # noqa: SLF001 -- all of it is there
        yield message.method, message.path, body


async def play(*, count: int, seed: int, start: int = 0, seconds: float | None = None) -> Counter[str]:
    """Play cases; raise DisagreementError naming the first bad one."""
    run, until = Run(), None if seconds is None else time.monotonic() + seconds
    for number in range(start, start + count):
        data, cuts = made(seed, number)
        try:
            await run.play(data, cuts)
        except Exception as error:
            raise DisagreementError(
                f"--seed {seed} --start {number}: {error}\n{data!r} cut at {cuts}"
            ) from error
        run.counts["cases"] += 1
        if until is not None and time.monotonic() > until:
            break
    return run.counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0)
    options = parser.parse_args()
    begun, done = time.monotonic(), 0
    total: Counter[str] = Counter()
    while done < options.count:
        batch = min(20_000, options.count - done)
        total += asyncio.run(play(count=batch, seed=options.seed, start=options.start + done))
        done += batch
        print(f"{done} cases, {time.monotonic() - begun:.0f} s: {dict(total)}", flush=True)  # noqa: T201 -- a program
    return 0


if __name__ == "__main__":
    sys.exit(main())
