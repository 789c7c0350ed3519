"""The feed over a real Unix socket, with a real directory behind it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from doorward.core.clock import SystemClock
from doorward.core.errors import ConflictError
from doorward.core.feed import Bundle, Delta, Known, Message
from doorward.core.identity import KeyRecord
from doorward.core.ids import IdSource
from doorward.core.model import EntityUid
from doorward.directory import feed as feeds
from doorward.directory.administration import Directory
from doorward.directory.feed import FeedClient, FeedServer
from doorward.directory.org import parse
from doorward.directory.snapshot import Snapshot
from doorward.store.opened import Store

DANA = EntityUid.of("User", "dana")
BUNDLE = Bundle(digest="sha256:00", schema="", policies=())


def key(name: str) -> KeyRecord:
    return KeyRecord(id=name, hash=f"h-{name}", subject=DANA, created=datetime(2026, 1, 1, tzinfo=UTC))


class Gateway:
    """Keep a snapshot as a gateway does."""

    def __init__(self, path: Path, silence: float) -> None:
        self.snapshot: Snapshot | None = None
        self.states = 0
        self.bundles: list[Bundle] = []
        self.errors: list[str] = []
        self.delta_seen_at = 0.0
        self.client = FeedClient(
            path, self.known, self.delta, self.bundles.append, self.errors.append, silence=silence
        )

    def known(self, known: Known) -> None:
        self.snapshot = Snapshot.of(known)
        self.states += 1

    def delta(self, delta: Delta) -> None:
        assert self.snapshot is not None
        self.snapshot = self.snapshot.with_delta(delta)
        self.delta_seen_at = time.perf_counter()

    @property
    def version(self) -> int:
        return -1 if self.snapshot is None else self.snapshot.version


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def following(path: Path, *, silence: float = 5.0) -> AsyncIterator[Gateway]:
    gateway = Gateway(path, silence)
    task = asyncio.create_task(gateway.client.run())
    try:
        yield gateway
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="dw") as folder:
        yield Path(folder) / "feed.sock"


@pytest.fixture
def directory() -> Iterator[Directory]:
    store = Store.open("sqlite://", Path())
    clock = SystemClock()
    made = Directory(store, clock, IdSource(clock))
    made.apply(parse("users: { dana: {} }", "org.yaml"))
    yield made
    store.close()


@pytest.fixture
async def server(path: Path, directory: Directory) -> AsyncIterator[FeedServer]:
    made = FeedServer(
        path, directory, s3_secret=lambda k: f"secret-of-{k.id}", issuer_jwks=lambda: {"keys": [{"kid": "1"}]}
    )
    await made.start()
    yield made
    await made.stop()


@pytest.mark.usefixtures("server")
async def test_a_gateway_gets_the_state_then_every_change_in_order(path: Path, directory: Directory) -> None:
    directory.add_key(key("early"))
    async with following(path) as gateway:
        await until(lambda: gateway.version == directory.snapshot.version)
        for number in range(50):
            directory.add_key(key(str(number)))
        await until(lambda: gateway.version == directory.snapshot.version)
        assert gateway.states == 1
        assert gateway.client.connected
        assert gateway.snapshot is not None
        held = gateway.snapshot.known
        assert {k.s3_secret for k in held.keys} == {f"secret-of-{k.id}" for k in held.keys}
        assert held.issuer_jwks == {"keys": [{"kid": "1"}]}
        bare = [msgspec.structs.replace(k, s3_secret=None) for k in held.keys]
        assert bare == list(directory.known().keys)


@pytest.mark.usefixtures("server")
async def test_a_revocation_arrives_within_milliseconds(path: Path, directory: Directory) -> None:
    times: list[float] = []
    async with following(path) as gateway:
        await until(lambda: gateway.version == directory.snapshot.version)
        for number in range(20):
            directory.add_key(key(str(number)))
            await until(lambda: gateway.version == directory.snapshot.version)
            started = time.perf_counter()
            await asyncio.to_thread(directory.revoke_key, str(number))
            await until(lambda: gateway.version == directory.snapshot.version)
            times.append(gateway.delta_seen_at - started)
            assert gateway.snapshot is not None
            assert gateway.snapshot.key_by_hash(f"h-{number}") is None
    assert sorted(times)[len(times) // 2] < 0.05


@pytest.mark.usefixtures("server")
async def test_changes_from_many_threads_reach_every_gateway(path: Path, directory: Directory) -> None:
    async with following(path) as one, following(path) as two:
        await asyncio.gather(*(asyncio.to_thread(directory.add_key, key(str(n))) for n in range(40)))
        await until(lambda: one.version == two.version == directory.snapshot.version)
        assert one.snapshot is not None
        assert two.snapshot is not None
        assert one.snapshot.known == two.snapshot.known


async def test_bundles_reach_those_here_and_those_who_come_later(path: Path, server: FeedServer) -> None:
    async with following(path) as early:
        await until(lambda: early.states == 1)
        server.on_bundle(BUNDLE)
        await until(lambda: early.bundles == [BUNDLE])
        server.on_bundle_error("bad.cedar:1: no")
        await until(lambda: early.errors == ["bad.cedar:1: no"])
        async with following(path) as late:
            await until(lambda: late.bundles == [BUNDLE] and late.errors == ["bad.cedar:1: no"])
            server.on_bundle(BUNDLE)
            await until(lambda: len(early.bundles) == len(late.bundles) == 2)


async def test_resync_sends_the_whole_state_again(
    path: Path, directory: Directory, server: FeedServer
) -> None:
    async with following(path) as gateway:
        await until(lambda: gateway.states == 1)
        server.resync()
        await until(lambda: gateway.states == 2)
        directory.add_key(key("k"))
        await until(lambda: gateway.version == directory.snapshot.version)


async def test_a_gateway_outlives_the_control_process_and_knows_how_stale_it_is(
    path: Path, directory: Directory, server: FeedServer
) -> None:
    async with following(path) as gateway:
        assert gateway.client.staleness() == float("inf")
        await until(lambda: gateway.states == 1)
        assert gateway.client.staleness() < 5
        await server.stop()
        await until(lambda: not gateway.client.connected)
        assert gateway.snapshot is not None
        directory.add_key(key("meanwhile"))
        again = FeedServer(path, directory)
        await again.start()
        await until(lambda: gateway.version == directory.snapshot.version)
        assert gateway.states == 2
        await again.stop()


@pytest.mark.usefixtures("server")
async def test_the_heart_beats(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    async with asyncio.timeout(5):
        first = msgspec.json.decode(await reader.readline(), type=Message)
        assert first.known is not None
        assert msgspec.json.decode(await reader.readline(), type=Message) == Message()
    writer.close()


async def test_a_gap_a_broken_line_and_silence_each_start_over(path: Path) -> None:
    known = msgspec.json.encode(Message(known=Known(version=3))) + b"\n"
    gap = msgspec.json.encode(Message(delta=Delta(version=5))) + b"\n"
    scripts = [known + gap, known + b"{not json\n", gap, known[:-1], known, known]
    served: list[int] = []
    held: list[asyncio.StreamWriter] = []

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(1)
        held.append(writer)
        if len(served) <= len(scripts):
            writer.write(scripts[len(served) - 1])

    fake = await asyncio.start_unix_server(serve, str(path))
    async with following(path, silence=0.2) as gateway:
        await until(lambda: len(served) > len(scripts))
        assert gateway.version == 3
    for writer in held:
        writer.transport.abort()
    fake.close()


@pytest.mark.usefixtures("server")
async def test_a_callback_that_fails_starts_over_with_the_whole_state(
    path: Path, directory: Directory
) -> None:
    states: list[int] = []

    def fails(_delta: Delta) -> None:
        raise RuntimeError

    client = FeedClient(
        path, lambda known: states.append(known.version), fails, lambda _: None, lambda _: None
    )
    task = asyncio.create_task(client.run())
    await until(lambda: len(states) == 1)
    directory.add_key(key("k"))
    await until(lambda: states[-1] == directory.snapshot.version)
    task.cancel()


async def test_a_client_that_does_not_read_is_dropped_and_delays_nobody(
    path: Path, directory: Directory, server: FeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_QUEUED", 4)
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(path))
        async with following(path) as gateway:
            await until(lambda: server.clients == 2)
            big = Bundle(digest="sha256:01", schema="x" * 1_000_000, policies=())
            for number in range(12):
                server.on_bundle(big)
                await until(lambda n=number: len(gateway.bundles) == n + 1)  # type: ignore[misc]  # bound early
            await until(lambda: server.clients == 1)
            directory.add_key(key("k"))
            await until(lambda: gateway.version == directory.snapshot.version)


async def test_a_peer_of_another_uid_is_told_nothing(path: Path, directory: Directory) -> None:
    server = FeedServer(path, directory, allowed_uids=frozenset())
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(path))
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    await server.stop()


async def test_the_socket_is_private_and_has_one_owner(
    path: Path, directory: Directory, server: FeedServer
) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConflictError, match="already serves"):
        await FeedServer(path, directory).start()
    await server.stop()
    assert not path.exists()


async def test_a_socket_that_a_killed_process_left_is_replaced(path: Path, directory: Directory) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    server = FeedServer(path, directory)
    await server.start()
    async with following(path) as gateway:
        await until(lambda: gateway.states == 1)
    await server.stop()


async def test_a_file_in_the_sockets_place_is_left_alone(path: Path, directory: Directory) -> None:
    path.write_text("mine")
    with pytest.raises(ConflictError, match="no socket"):
        await FeedServer(path, directory).start()
    assert path.read_text() == "mine"


async def test_waiting_for_the_feed_at_the_start_is_told_once_and_is_no_warning(path: Path) -> None:
    with capture_logs() as told:
        async with following(path):
            await asyncio.sleep(0.7)
    assert [(line["event"], line["log_level"]) for line in told] == [("feed_awaited", "info")]


async def test_a_lost_feed_is_told_once_each_time_it_is_lost(path: Path, directory: Directory) -> None:
    with capture_logs() as told:
        async with following(path) as gateway:
            for _ in range(2):
                server = FeedServer(path, directory)
                await server.start()
                await until(lambda: gateway.client.connected)
                await server.stop()
                await until(lambda: not gateway.client.connected)
    assert "feed_awaited" not in {line["event"] for line in told[1:]}
    lost = [line["reason"] for line in told if line["event"] == "feed_lost"]
    assert lost.count("the other end closed it") == 2
    assert max(lost.count(reason) for reason in lost) == 2
