"""Sightings over real sockets: one owner, two gateways, one episode; an owner that hangs holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from doorward.core.clock import SystemClock
from doorward.core.errors import UnavailableError
from doorward.core.locations import Whereabouts
from doorward.core.obligation import Limit
from doorward.core.sightings import Oddity, Sighting
from doorward.ledger.client import Ledger
from doorward.ledger.journal import Journal
from doorward.ledger.keeper import Keeper

HOME, CAFE = Whereabouts("192.0.2.7", "unknown"), Whereabouts("203.0.113.5", "unknown")
LIMIT = Limit("p", 50, 3600)


class Office:
    """An owner and two clients; `raised` is what each client was told to put on record."""

    def __init__(self, folder: Path) -> None:
        self.socket, self.folder = folder / "uses.sock", folder
        self.keeper = self.made()
        self.clients = [Ledger(self.socket, name) for name in ("one", "two")]
        self.raised: list[tuple[int, Oddity]] = []
        for number, client in enumerate(self.clients):
            client.lookout.watched.on_raised(lambda odd, number=number: self.raised.append((number, odd)))
        self.tasks: list[asyncio.Task[None]] = []

    def made(self) -> Keeper:
        return Keeper(self.socket, Journal(self.folder / "ledger"), clock=SystemClock(), fail=lambda _: None)

    async def open(self) -> None:
        await self.keeper.start()
        self.tasks = [asyncio.create_task(client.run()) for client in self.clients]
        await self.connected()

    async def connected(self) -> None:
        await until(lambda: all(client.connected for client in self.clients))

    async def restart(self) -> None:
        """Stop the owner; its successor knows nothing of what was seen."""
        await self.keeper.stop()
        await until(lambda: not any(client.connected for client in self.clients))
        self.keeper = self.made()
        await self.keeper.start()
        await self.connected()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.keeper.stop()


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    with tempfile.TemporaryDirectory(prefix="dw", dir="/tmp") as folder:
        made = Office(Path(folder))
        await made.open()
        yield made
        await made.close()


def use(where: Whereabouts, credential: str = "api-key k") -> Sighting:
    return Sighting(credential=credential, principal='User::"dana"', where=where, client="curl")


async def shared(office: Office) -> None:
    """The owner uses the first gateway, the thief the second."""
    one, two = (client.lookout for client in office.clients)
    await one.see(use(HOME))
    await two.see(use(CAFE))
    # Told of the other's use, the first gateway asks again for what it asked before.
    await until(lambda: one.watched.due(use(HOME)).value == "ask")
    await one.see(use(HOME))


async def test_what_two_gateways_saw_each_is_one_episode_known_to_both(office: Office) -> None:
    one, two = (client.lookout for client in office.clients)
    await shared(office)
    assert one.signals("api-key k") == {"shared-credential"}
    await until(lambda: two.signals("api-key k") == {"shared-credential"})
    await two.see(use(CAFE))
    await one.see(use(HOME))
    assert [(number, odd.signal.value) for number, odd in office.raised] == [(0, "shared-credential")]
    assert one.signals("api-key other") == frozenset()


async def test_a_new_owner_and_a_new_gateway_learn_what_goes_on(office: Office) -> None:
    await shared(office)
    await office.restart()
    third = Ledger(office.socket, "three")
    running = asyncio.create_task(third.run())
    try:
        await until(lambda: third.lookout.signals("api-key k") == {"shared-credential"})
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(office.raised) == 1


async def test_an_owner_that_hangs_costs_a_request_less_than_a_second_in_all(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = office.clients[0]
    heard = office.keeper.heard
    kept: list[Any] = []
    monkeypatch.setattr(office.keeper, "heard", lambda *said: kept.append(said))
    began = time.monotonic()
    await client.lookout.see(use(HOME))
    assert client.lookout.signals("api-key k") == {"signals-unknown"}
    with pytest.raises(UnavailableError):
        await client.reserve((("counter", LIMIT),))
    assert time.monotonic() - began < 1.0
    # It wakes up, and answers everything: what it was told it knows.
    monkeypatch.setattr(office.keeper, "heard", heard)
    for said in kept:
        heard(*said)

    async def again() -> bool:
        await client.lookout.see(use(HOME))
        with contextlib.suppress(UnavailableError):
            await client.reserve((("counter", LIMIT),))
            return client.lookout.signals("api-key k") == frozenset()
        return False

    async with asyncio.timeout(10):
        while not await again():
            await asyncio.sleep(0.01)
