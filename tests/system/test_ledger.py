"""The owner and its clients over real sockets and a real journal."""

# ruff: noqa: SLF001 -- crashes are made by hand, inside
from __future__ import annotations

import asyncio
import contextlib
import os
import time
from datetime import UTC, datetime

import pytest

from doorward.core.clock import SystemClock
from doorward.core.errors import ConflictError, UnavailableError
from doorward.core.obligation import Budget, Limit
from doorward.core.ports import LimitExceeded
from doorward.ledger.client import Ledger
from doorward.ledger.journal import Journal
from doorward.ledger.keeper import Keeper

FIFTY = Limit("p", 50, 3600)


class Office:
    """A keeper and clients in one loop; `crash` ends the keeper as kill -9 would."""

    def __init__(self, folder) -> None:
        self.folder, self.socket = folder, folder / "uses.sock"
        self.clients: list[tuple[Ledger, asyncio.Task]] = []
        self.failed: list[Exception] = []

    async def open(self, boot=None, clock=None) -> None:
        self.keeper = Keeper(
            self.socket,
            Journal(self.folder / "ledger"),
            clock=clock or SystemClock(),
            fail=self.failed.append,
            boot=boot,
        )
        await self.keeper.start()

    async def client(self, name="gateway-1") -> Ledger:
        client = Ledger(self.socket, name)
        self.clients.append((client, asyncio.create_task(client.run())))
        await connected(client)
        return client

    async def crash(self) -> None:
        """What is written stays, nothing more is: as after kill -9."""
        journal = self.keeper._journal
        journal._queue.clear()
        self.keeper._house.cancel()
        self.keeper._server.close()
        for link in tuple(self.keeper._open):
            self.keeper._open.discard(link)
            link.session = ""
            link.drop()
        self.socket.unlink()
        journal.append = lambda *_, **__: None
        await journal.close()
        await until(lambda: not any(each.connected for each, task in self.clients if not task.done()))

    async def leave(self, client: Ledger) -> None:
        """A client that ends without a word."""
        task = next(task for each, task in self.clients if each is client)
        client._leave = client._link.drop
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: client._session not in self.keeper._links)

    async def close(self) -> None:
        for _, task in self.clients:
            task.cancel()
        await asyncio.gather(*(task for _, task in self.clients), return_exceptions=True)
        with contextlib.suppress(Exception):
            await self.keeper.stop()


async def until(condition, seconds=10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def connected(client: Ledger) -> None:
    await until(lambda: client.connected)


@pytest.fixture
async def office(tmp_path):
    made = Office(tmp_path)
    await made.open()
    yield made
    await made.close()


async def tries(client, count, *, key="a", limit=FIFTY):
    """Use a limit `count` times at once; return how many passed."""

    async def one() -> int:
        with contextlib.suppress(LimitExceeded, UnavailableError):
            await client.reserve(((key, limit),))
            return 1
        return 0

    return sum(await asyncio.gather(*(one() for _ in range(count))))


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_two_hundred_at_once_over_workers_on_fifty_pass_exactly_fifty(office, workers):
    clients = [await office.client(f"gateway-{n}") for n in range(workers)]
    passed = await asyncio.gather(*(tries(each, 200 // workers) for each in clients))
    assert sum(passed) == 50


async def test_what_one_client_leased_and_left_is_there_for_the_other(office):
    one, two = await office.client("one"), await office.client("two")
    assert await tries(one, 3) == 3
    assert await tries(two, 100) == 47
    assert await tries(one, 5) == 0


async def test_a_leased_use_asks_nobody(office):
    client = await office.client()
    huge = Limit("p", 1_000_000, 60)
    for _ in range(200):
        await client.reserve((("a", huge),))
    asked = client._last_id
    start = time.perf_counter()
    for _ in range(1000):
        await client.reserve((("a", huge),))
    each = (time.perf_counter() - start) / 1000
    assert client._last_id - asked <= 8
    assert each < 0.000_2, f"{each * 1e6:.1f} us per leased use"


async def test_a_crash_of_the_owner_resets_nothing_and_frees_nothing_twice(office):
    clients = [await office.client(f"gateway-{n}") for n in range(2)]
    passed = sum(await asyncio.gather(*(tries(each, 15) for each in clients)))
    assert passed == 30
    await office.crash()
    with pytest.raises(UnavailableError):
        await clients[0].reserve((("a", FIFTY),))
    await office.open()
    for each in clients:
        await connected(each)
    assert sum(await asyncio.gather(*(tries(each, 100) for each in clients))) == 20


async def test_a_crash_of_owner_and_worker_counts_every_lease_as_used(office):
    one, two = await office.client("one"), await office.client("two")
    assert await tries(one, 10) == 10
    await office.leave(one)
    await office.crash()
    await office.open()
    await connected(two)
    passed = await tries(two, 100)
    assert passed <= 40
    assert passed >= 40 - 12


async def test_a_client_that_dies_takes_no_more_than_its_lease_with_it(office):
    one, two = await office.client("one"), await office.client("two")
    assert await tries(one, 10) == 10
    await office.leave(one)
    passed = await tries(two, 100)
    assert 28 <= passed <= 40


async def test_a_dead_clients_lease_comes_back_when_its_span_is_over(office):
    quick = Limit("p", 10, 1)
    one, two = await office.client("one"), await office.client("two")
    await one.reserve((("a", quick),))
    await office.leave(one)
    await asyncio.sleep(2.3)  # the lease's second and the span
    assert await tries(two, 20, limit=quick) == 10


async def test_a_clean_end_gives_everything_back(office):
    one, two = await office.client("one"), await office.client("two")
    assert await tries(one, 10) == 10
    task = office.clients[0][1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: len(office.keeper._links) == 1)
    assert await tries(two, 100) == 40


async def test_owner_gone_is_refused_within_a_second_and_heals(office):
    client = await office.client()
    assert await tries(client, 3) == 3
    await office.crash()
    start = time.monotonic()
    with pytest.raises(UnavailableError, match="does not answer"):
        await client.reserve((("a", FIFTY),))
    with pytest.raises(UnavailableError, match="does not answer"):
        await client.claim("dpop", "j", expires=time.time() + 60)
    assert time.monotonic() - start < 1
    await office.open()
    await connected(client)
    assert await tries(client, 3) == 3


async def test_an_owner_that_hangs_is_refused_within_a_second(office):
    client = await office.client()
    assert await tries(client, 3) == 3
    office.keeper.heard = lambda *_: None  # takes what it is sent, and says nothing any more
    await asyncio.sleep(1.1)
    start = time.monotonic()
    with pytest.raises(UnavailableError):
        await client.reserve((("a", FIFTY),))
    assert time.monotonic() - start < 1


async def test_one_claim_of_fifty_over_two_workers_is_first_and_a_crash_forgets_none(office):
    clients = [await office.client(f"gateway-{n}") for n in range(2)]
    expires = time.time() + 60
    claims = [clients[n % 2].claim("dpop", "jti", expires=expires) for n in range(50)]
    assert sum(await asyncio.gather(*claims)) == 1
    await office.crash()
    await office.open()
    for each in clients:
        await connected(each)
        assert not await each.claim("dpop", "jti", expires=expires)
        assert await each.claim("totp", "jti" + str(id(each)), expires=expires)


async def test_places_are_bounded_over_workers_and_end_with_their_worker(office):
    one, two = await office.client("one"), await office.client("two")
    mine = [await one.enter("dana", most=3) for _ in range(2)]
    assert await two.enter("dana", most=3) is not None
    assert await two.enter("dana", most=3) is None
    mine[0]()
    mine[0]()
    await until(lambda: office.keeper.book.has_place("dana", 3, time.monotonic()))
    assert await two.enter("dana", most=3) is not None
    assert await two.enter("dana", most=3) is None
    await office.crash()
    await office.open()
    await connected(one)
    await connected(two)
    assert await one.enter("dana", most=3) is None
    await office.leave(two)
    office.keeper.book.sessions[two._session].parted -= 6
    assert await one.enter("dana", most=3) is not None


async def test_a_budget_is_corrected_to_what_was_used(office):
    tokens = Budget("b", 100, "tokens", 3600)
    one, two = await office.client("one"), await office.client("two")
    held = await one.reserve((("a", tokens),), amount=60)
    with pytest.raises(LimitExceeded):
        await two.reserve((("a", tokens),), amount=60)
    await held.settle(20)
    again = None
    async with asyncio.timeout(5):
        while again is None:
            with contextlib.suppress(LimitExceeded):
                again = await two.reserve((("a", tokens),), amount=80)
    with pytest.raises(LimitExceeded):
        await one.reserve((("a", tokens),), amount=1)
    await again.settle(200)
    with pytest.raises(LimitExceeded):
        await one.reserve((("a", tokens),), amount=1)


async def test_what_was_released_can_be_used_by_the_other(office):
    one, two = await office.client("one"), await office.client("two")
    held = [await one.reserve((("a", FIFTY),)) for _ in range(50)]
    assert await tries(two, 1) == 0
    await asyncio.sleep(0.05)
    for each in held[:7]:
        await each.release()
    passed = 0
    async with asyncio.timeout(5):
        while passed < 7:
            passed += await tries(two, 1)
    assert await tries(two, 10) + await tries(one, 10) == 0


async def test_all_or_none_over_two_counters_and_two_workers(office):
    one, two = await office.client("one"), await office.client("two")
    both = (("a", FIFTY), ("b", Limit("q", 20, 3600)))

    async def attempt(client):
        with contextlib.suppress(LimitExceeded):
            await client.reserve(both)
            return 1
        return 0

    assert sum(await asyncio.gather(*(attempt((one, two)[n % 2]) for n in range(100)))) == 20
    assert await tries(one, 100) + await tries(two, 100) == 30


async def test_a_second_owner_is_refused(office):
    second = Keeper(
        office.folder / "other.sock", Journal(office.folder / "ledger"), clock=SystemClock(), fail=print
    )
    with pytest.raises(ConflictError):
        await second.start()


async def test_a_torn_tail_is_cut_and_the_rest_counts(office):
    client = await office.client()
    assert await tries(client, 50) == 50
    await office.leave(client)
    await office.crash()
    file = office.folder / "ledger/journal"
    file.write_bytes(file.read_bytes() + b"\0\0\0\x09torn")
    await office.open()
    again = await office.client("two")
    assert await tries(again, 10) == 0


async def test_after_a_restart_of_the_machine_uses_lie_as_far_back_as_they_did(office):
    client = await office.client()
    assert await tries(client, 50) == 50
    task = office.clients[0][1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    office.clients.clear()
    await office.keeper.stop()

    class After:
        def __init__(self, seconds):
            self.seconds = seconds

        def now(self):
            return datetime.fromtimestamp(time.time() + self.seconds, UTC)

        def monotonic(self):
            return time.monotonic() - 1_000_000

    await office.open(boot="another", clock=After(1800))
    window = next(iter(office.keeper.book.windows.values()))
    now = After(0).monotonic()
    assert window.left(now, 50) == 0
    assert 1700 < window.wait(now, capacity=50, need=1) < 1801
    await office.keeper.stop()


async def test_a_disk_that_refuses_stops_the_owner(office):
    client = await office.client()
    os.close(office.keeper._journal._file)
    office.keeper._journal._file = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(UnavailableError):
        await client.claim("dpop", "j", expires=time.time() + 60)
    await until(lambda: office.failed)


async def test_the_journal_is_written_anew_when_it_has_grown(office, monkeypatch):
    monkeypatch.setattr("doorward.ledger.journal._SMALLEST", 2000)
    client = await office.client()
    big = Limit("p", 100_000, 3600)
    assert await tries(client, 3, limit=FIFTY) == 3
    for _ in range(300):
        await client.claim("dpop", os.urandom(8).hex(), expires=time.time() + 0.5)
        await client.reserve((("b", big),))
    await asyncio.sleep(1.6)
    before = office.keeper._journal.size
    office.keeper._house.cancel()
    office.keeper._keep_house()
    await until(lambda: (office.folder / "ledger/journal").stat().st_size < before)
    assert await tries(client, 3, limit=FIFTY) == 3
    await office.leave(client)
    await office.crash()
    await office.open()
    assert await tries(await office.client("two"), 100) <= 44


async def test_a_client_that_is_busy_is_waited_for_before_its_stock_counts_as_used(office):
    one, two = await office.client("one"), await office.client("two")
    assert await tries(one, 3) == 3
    heard = one.heard

    def later(message):
        asyncio.get_running_loop().call_later(1.2, heard, message)

    one._link._heard = later
    assert await tries(two, 60) == 47


async def test_a_client_that_hangs_holds_up_nobody_for_ever(office, monkeypatch):
    monkeypatch.setattr("doorward.ledger.keeper._RECALL_SECONDS", 0.5)
    one, two = await office.client("one"), await office.client("two")
    assert await tries(one, 3) == 3
    one._link._heard = lambda _: None
    passed = await tries(two, 60)
    assert 30 <= passed < 47
