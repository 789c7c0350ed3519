"""The shadow check in a running installation: a planted fault is found, told, and stays switched off."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support import planted_faults
from support.installation import Installation, SlowLLM, wait_until
from support.planted_faults import planted

POLICIES = """
@id("staff-invokes")
permit (principal is Doorward::User, action == Doorward::Action::"invoke", resource is Doorward::Model);
@id("staff-views")
permit (principal is Doorward::User, action == Doorward::Action::"view", resource is Doorward::Model);
@id("no-secrets")
forbid (principal is Doorward::User, action == Doorward::Action::"invoke", resource is Doorward::Model)
when { resource.sensitivity > principal.clearance };
"""
ORG = """
users:
  ada: { employment: employee, clearance: 1 }
assets:
  Model::"llm/open": { owner: ada, sensitivity: 1, environment: production }
  Model::"llm/secret": { owner: ada, sensitivity: 3, environment: production }
"""


@pytest.fixture
def llm() -> Iterator[SlowLLM]:
    with SlowLLM() as running:
        running.answer_now()
        yield running


class Door:
    """One installation and a caller's key."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.key = installation.key("ada")["key"]

    def asks(self, model: str, times: int = 1) -> list[int]:
        """Ask a model, one request after the other; return the statuses."""
        return asyncio.run(self._asks(model, times))

    async def _asks(self, model: str, times: int) -> list[int]:
        found = []
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.key}"}) as session:
            for _ in range(times):
                body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
                url = f"{self.installation.url}/llm/v1/chat/completions"
                async with session.post(url, json=body) as answer:
                    await answer.read()
                    found.append(answer.status)
        return found

    def ready(self, role: str) -> dict[str, Any]:
        return json.loads(self.reads(role, "/readyz"))

    def reads(self, role: str, path: str) -> bytes:
        async def get() -> bytes:
            connector = aiohttp.UnixConnector(str(self.installation.data / f"{role}.sock"))
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get(f"http://localhost{path}") as answer,
            ):
                return await answer.read()

        return asyncio.run(get())

    def findings(self, role: str) -> list[dict[str, str]]:
        return self.ready(role)["shadow"]["findings"]

    def alerts(self) -> list[dict[str, Any]]:
        told = self.installation.cli("audit", "search", "--kind", "alert", "--json")
        return [json.loads(line) for line in told.splitlines()]


Opened = Callable[..., Door]


@pytest.fixture
def opened(llm: SlowLLM, tmp_path: Path) -> Iterator[Opened]:
    made: list[Installation] = []

    def start(fault: str = "", every: int = 1000) -> Door:
        upstream = f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{llm.port}"\n'
        installation = Installation(
            upstreams=upstream,
            org=ORG,
            policies=POLICIES,
            extra=f"[shadow]\nevery = {every}\n",
            environment=planted(tmp_path / "fault", fault) if fault else {},
        )
        made.append(installation.__enter__().start())
        door = Door(installation)
        if every:
            wait_until(lambda: door.ready("gateway")["shadow"]["connected"], what="the check listens")
        return door

    yield start
    for installation in made:
        installation.__exit__()


def test_wrong_generated_code_is_found_told_and_stays_switched_off(opened: Opened) -> None:
    door = opened(planted_faults.GENERATED, every=10)
    assert set(door.asks("open", 40)) == {200}  # hot now

    def found() -> list[dict[str, str]]:
        door.asks("secret", 5)
        return door.findings("gateway")

    finding = wait_until(found, what="the gateway hears of it")[0]
    assert finding["measure"] == "exact"
    assert 200 not in door.asks("secret", 60)
    assert set(door.asks("open", 60)) == {200}
    # On record, and every deciding process knows.
    alert = wait_until(door.alerts, what="the alert is on record")[0]
    assert (alert["id"], alert["code"], alert["severity"]) == (
        finding["record"],
        "decision_mismatch",
        "critical",
    )
    assert alert["facts"]["policies"] == ["no-secrets", "staff-invokes"]
    assert alert["facts"]["said"] == {
        "live": "allow [staff-invokes]",
        "tier 0": "deny [no-secrets]",
        "cedar": "deny [no-secrets]",
    }
    assert door.findings("control") == door.findings("gateway")
    assert b'doorward_shadow_findings{worker="gateway-1"} 1.0' in door.reads("gateway", "/metrics")
    assert "decision_mismatch" in door.installation.log.read_text()
    # It outlives the bundle, and the processes.
    door.installation.write_policy(
        "more.cedar", '@id("other") permit (principal is Doorward::Service, action, resource);'
    )
    before = alert["bundle"]
    wait_until(lambda: door.ready("gateway")["bundle"] != before, what="a new bundle")
    assert 200 not in door.asks("secret", 80)
    door.installation.stop()
    door.installation.log.write_text("")
    door.installation.start()
    assert door.findings("gateway")[0] == finding
    assert 200 not in door.asks("secret", 80)
    door.installation.cli("audit", "verify")


def test_where_tier_0_itself_is_wrong_nothing_is_allowed_that_cedar_denies(opened: Opened) -> None:
    door = opened(planted_faults.EVALUATOR, every=1)
    assert door.asks("secret") == [200]
    finding = wait_until(lambda: door.findings("gateway"), what="the gateway hears of it")[0]
    assert finding["measure"] == "oracle"
    assert door.asks("secret", 3) == [door.asks("secret")[0]] * 3 != [200] * 3
    assert set(door.asks("open", 20)) == {200}  # Cedar allows it, too
    denied = [one for one in door.installation.records() if one.get("decision") == "deny"][-1]
    assert denied["determining"] == ["no-secrets"]
    assert denied["errors"] == ["oracle: Cedar denies this"]


def test_where_the_choice_of_policies_is_wrong_nothing_is_allowed(opened: Opened) -> None:
    door = opened(planted_faults.INDEX, every=1)
    assert door.asks("secret") == [200]
    finding = wait_until(lambda: door.findings("gateway"), what="the gateway hears of it")[0]
    assert finding["measure"] == "deny"
    assert 200 not in [*door.asks("secret", 3), *door.asks("open", 3)]


def test_a_right_evaluator_is_never_found_wrong(opened: Opened) -> None:
    door = opened(every=1)
    for model in ("open", "secret", "open/under", "unknown"):
        door.asks(model, 50)
    sent = door.ready("gateway")["shadow"]["sampled"]
    assert sent >= 150
    state = wait_until(
        lambda: sum((s := door.ready("shadow"))["samples"].values()) >= sent and s,
        what="samples are judged",
    )
    assert state["findings"] == []
    assert state["samples"]["agrees"] >= 150
    assert set(state["samples"]) <= {"agrees", "gone", "dropped"}


def test_requests_go_on_when_the_check_is_gone_and_it_comes_back(opened: Opened) -> None:
    door = opened(every=1)
    first = door.installation.pid("shadow")
    assert first is not None
    os.kill(first, signal.SIGSTOP)  # worse than dead: it takes connections and reads nothing
    assert set(door.asks("open", 400)) == {200}
    os.kill(first, signal.SIGKILL)
    assert set(door.asks("open", 20)) == {200}
    wait_until(lambda: door.installation.pid("shadow") not in {None, first}, what="it is started again")
    wait_until(lambda: door.ready("gateway")["shadow"]["connected"], what="the gateway is heard again")


def test_it_can_be_turned_off(opened: Opened) -> None:
    door = opened(every=0)
    assert door.installation.pid("shadow") is None
    assert set(door.asks("open", 3)) == {200}
    assert door.ready("gateway")["shadow"]["sampled"] == 0


def test_only_our_own_account_is_heard(opened: Opened) -> None:
    door = opened()
    assert (door.installation.data / "samples.sock").stat().st_mode & 0o777 == 0o600
    assert (door.installation.data / "shadow.sock").stat().st_mode & 0o777 == 0o600
