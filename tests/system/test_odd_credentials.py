"""Two gateways, callers at several loopback addresses: stolen credentials are seen, told and stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from doorward.app.admin import fetched
from support.installation import Installation, SlowLLM, wait_until

POLICIES = """
@id("staff-invokes")
permit (principal, action == Doorward::Action::"invoke", resource is Doorward::Model);
@id("staff-views")
permit (principal, action == Doorward::Action::"view", resource is Doorward::Model);
@id("stolen-credential-stops")
forbid (principal, action == Doorward::Action::"invoke", resource)
when { context.signals.containsAny(["impossible-travel", "shared-credential"]) };
@id("not-from-there")
forbid (principal, action == Doorward::Action::"invoke", resource == Doorward::Model::"llm/local")
unless { context.network has country && context.network.country == "NL" };
"""
ORG = """
users: { ada: {}, bob: {}, cyd: {}, dan: {}, eve: {} }
services:
  etl: { environment: production, owner: ada }
  tied: { environment: production, owner: ada }
zones:
  here: { networks: [127.0.0.1/32], country: NL, coordinates: [52.37, 4.9] }
  there: { networks: [127.0.0.2/32], country: US, coordinates: [40.71, -74.0] }
  cafe: [127.0.0.3/32]
  vpn: [127.0.0.4/32]
assets:
  Model::"llm/m": { owner: ada, sensitivity: 1, environment: production }
  Model::"llm/local": { owner: ada, sensitivity: 1, environment: production }
"""
NETWORK = """
[network]
together = [["here", "vpn"]]
geo = "geo.csv"
"""
HERE, THERE, CAFE, VPN, PROXY, FAR = (f"127.0.0.{n}" for n in (1, 2, 3, 4, 9, 77))


@pytest.fixture(scope="module")
def house() -> Iterator[Installation]:
    with SlowLLM() as llm:
        llm.answer_now()
        upstream = f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{llm.port}"\n'
        with Installation(
            upstreams=upstream,
            org=ORG,
            policies=POLICIES,
            extra=NETWORK,
            environment={"DOORWARD_GATEWAY__WORKERS": "2", "DOORWARD_GATEWAY__PROXIES": '["127.0.0.9/32"]'},
        ) as made:
            (made.folder / "geo.csv").write_text("network,country,lat,lon\n127.0.0.77/32,NL,52.1,5.1\n")
            yield made.start()


def session(ip: str) -> aiohttp.ClientSession:
    """A client at this address, whose every request may reach either gateway."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(local_addr=(ip, 0), force_close=True),
        timeout=aiohttp.ClientTimeout(total=60),
    )


async def invoke(
    house: Installation, key: str, ip: str, *, model: str = "m", **headers: str
) -> tuple[int, str]:
    async with (
        session(ip) as client,
        client.post(
            f"{house.url}/llm/v1/chat/completions",
            json={"model": model, "messages": []},
            headers={"Authorization": f"Bearer {key}", **headers},
        ) as answer,
    ):
        return answer.status, answer.headers["Doorward-Request-Id"]


def status(house: Installation, key: str, ip: str, **more: Any) -> int:
    return asyncio.run(invoke(house, key, ip, **more))[0]


def record(house: Installation, key: str, ip: str, **more: Any) -> dict[str, Any]:
    _, request = asyncio.run(invoke(house, key, ip, **more))
    return wait_until(
        lambda: next(
            (r for r in house.records() if r["request_id"] == request and r["kind"] == "decision"), None
        )
    )


def alerts(house: Installation, who: str) -> list[dict[str, Any]]:
    told = house.cli("audit", "search", "--kind", "alert", "--json")
    return [a for a in map(json.loads, told.splitlines()) if a["principal"] == f'User::"{who}"']


def test_a_key_that_travels_faster_than_anybody_is_stopped_at_once_and_its_streams_end(
    house: Installation,
) -> None:
    key = house.key("ada")["key"]

    async def story() -> tuple[list[int], float]:
        async with (
            session(HERE) as client,
            client.post(
                f"{house.url}/llm/v1/chat/completions",
                json={"model": "m", "messages": [], "stream": True},
                headers={"Authorization": f"Bearer {key}"},
            ) as stream,
        ):
            assert stream.status == 200
            assert await stream.content.readany()
            first = [(await invoke(house, key, HERE))[0] for _ in range(6)]
            thief = [(await invoke(house, key, THERE))[0]]
            began = time.monotonic()
            try:
                while await stream.content.readany():
                    pass
            except aiohttp.ClientError:
                pass
            return first + thief, time.monotonic() - began

    found, took = asyncio.run(story())
    assert found == [200] * 6 + [403]
    assert took < 1.0
    # Both gateways know, whoever asks from wherever.
    assert [status(house, key, ip) for ip in (HERE, THERE) * 4] == [403] * 8
    wait_until(lambda: [a["code"] for a in alerts(house, "ada") if a["code"] == "impossible-travel"])
    travels = [a for a in alerts(house, "ada") if a["code"] == "impossible-travel"]
    assert len(travels) == 1
    before, now = travels[0]["facts"]["what_happened"]
    assert (before["ip"], before["country"], now["ip"], now["country"]) == (HERE, "NL", THERE, "US")
    assert before["client"] == now["client"] == "python"
    assert "900 km/h" in travels[0]["facts"]["what_is_odd"]
    assert travels[0]["detail"].startswith("What happened: used at ")
    assert "What is odd: " in travels[0]["detail"]
    assert key not in json.dumps(house.records())
    _, numbers = asyncio.run(fetched(house.data / "gateway.sock", "/metrics"))
    assert b'doorward_credential_oddities_total{signal="impossible-travel"} 1.0' in numbers
    assert "credential_found_odd" in house.log.read_text()


def test_a_key_at_two_places_at_once_is_one_alert_over_two_gateways(house: Installation) -> None:
    key = house.key("bob")["key"]
    assert [status(house, key, ip) for ip in (HERE, CAFE)] == [200, 200]
    found = record(house, key, HERE)
    assert (found["code"], found["determining"]) == ("denied", ["stolen-credential-stops"])
    assert found["context"]["signals"] == ["shared-credential"]
    assert [status(house, key, ip) for ip in (HERE, CAFE) * 4] == [403] * 8
    wait_until(lambda: alerts(house, "bob"))
    assert [a["code"] for a in alerts(house, "bob")] == ["shared-credential"]
    # Another key of the same person is another credential.
    assert status(house, house.key("bob")["key"], HERE) == 200


def test_signals_outlive_the_owner_that_found_them(house: Installation) -> None:
    key = house.key("eve")["key"]
    assert [status(house, key, ip) for ip in (HERE, CAFE, HERE)] == [200, 200, 403]
    owner = house.pid("ledger")
    assert owner is not None
    os.kill(owner, signal.SIGKILL)
    wait_until(lambda: house.pid("ledger") not in {None, owner}, what="the owner is started again")
    wait_until(lambda: asyncio.run(fetched(house.data / "ledger.sock", "/readyz"))[0] == 200)
    assert [status(house, key, HERE) for _ in range(6)] == [403] * 6


def test_zones_listed_together_are_one_place(house: Installation) -> None:
    key = house.key("cyd")["key"]
    assert [status(house, key, ip) for ip in (HERE, VPN) * 4] == [200] * 8
    assert alerts(house, "cyd") == []


def test_a_service_runs_on_many_hosts_unless_its_key_is_bound_to_a_network(house: Installation) -> None:
    free = json.loads(house.cli("key", "create", "--service", "etl", "--json"))["key"]
    assert [status(house, free, ip) for ip in (HERE, THERE) * 4] == [200] * 8
    bound = json.loads(house.cli("key", "create", "--service", "tied", "--network", "127.0.0.0/8", "--json"))
    assert [status(house, bound["key"], ip) for ip in (HERE, THERE)] == [200, 403]


def test_only_a_listed_proxy_says_for_whom_it_asks(house: Installation) -> None:
    key = house.key("dan")["key"]
    name = "X-Forwarded-For"
    through = record(house, key, PROXY, **{name: f"8.8.8.8, {VPN}"})
    assert (through["network"]["ip"], through["network"]["zone"]) == (VPN, "vpn")
    assert through["network"]["proxy"] == PROXY
    spoofed = record(house, key, HERE, **{name: THERE, "Forwarded": f"for={THERE}"})
    assert (spoofed["network"]["ip"], spoofed["code"]) == (HERE, "allowed")
    assert "proxy" not in spoofed["network"]
    assert status(house, key, PROXY, **{name: "unknown"}) == 400


def test_countries_come_from_zones_then_from_the_geo_file_and_are_absent_else(house: Installation) -> None:
    dan = house.key("dan")["key"]
    assert record(house, dan, HERE, model="local")["context"]["network"]["country"] == "NL"
    fay = house.key("cyd")["key"]
    assert record(house, fay, FAR, model="local")["context"]["network"]["country"] == "NL"
    nowhere = record(house, house.key("bob")["key"], CAFE, model="local")
    assert nowhere["code"] == "denied"
    assert "country" not in nowhere["context"]["network"]
    _, told = asyncio.run(fetched(house.data / "gateway.sock", "/readyz"))
    assert json.loads(told)["location"] == {"zones": 2, "geo": 1}
    # What was kept is what was stated; a plan shows what changes.
    org = house.folder / "org.yaml"
    assert "Nothing to change" in house.cli("apply", "-f", str(org))
    org.write_text(ORG.replace("country: US", "country: CA"))
    assert "country='CA'" in house.cli("apply", "-f", str(org), "--plan")
    # A changed file counts soon; a broken one changes nothing.
    (house.folder / "geo.csv").write_text("127.0.0.77/32,BE,50.8,4.4\n")
    # Each gateway reads it for itself.
    wait_until(lambda: house.log.read_text().count("geo_file_read") == 2, seconds=20)
    assert record(house, fay, FAR)["context"]["network"]["country"] == "BE"
    (house.folder / "geo.csv").write_text("127.0.0.77/32,BE\n")
    wait_until(lambda: house.log.read_text().count("geo_file_not_read") == 2, seconds=20)
    assert record(house, fay, FAR)["context"]["network"]["country"] == "BE"


def test_a_bad_geo_file_is_no_start_and_a_finding_of_doctor() -> None:
    with Installation(extra=NETWORK, policies=POLICIES) as made:
        (made.folder / "geo.csv").write_text("10.0.0.0/8,NL,1,1\n10.0.0.0/33,NL,1,1\n")
        assert made.launch().wait(60) == 3
        assert "geo.csv:2:" in made.log.read_text()
        told = made.cli("doctor", "--config", str(made.folder / "doorward.toml"), code=1)
        assert "geo.csv:2:" in told
