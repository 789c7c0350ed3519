"""`doorward up` as real processes: what it promises when something is wrong, and when it is killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from support.installation import Installation, SlowLLM, wait_until

POLICIES = """
@id("staff-invokes")
permit (principal is Doorward::User, action == Doorward::Action::"invoke", resource is Doorward::Model)
when { resource.sensitivity <= principal.clearance };
@id("staff-views")
permit (principal is Doorward::User, action == Doorward::Action::"view", resource is Doorward::Model);
"""
ORG = """
users:
  ada: { roles: [staff], employment: employee, clearance: 2 }
assets:
  Model::"llm/m": { owner: ada, sensitivity: 1, environment: production }
"""


def upstream(port: int) -> str:
    return f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{port}"\n'


@pytest.fixture
def llm() -> Iterator[SlowLLM]:
    with SlowLLM() as running:
        yield running


@pytest.fixture
def installation(llm: SlowLLM) -> Iterator[Installation]:
    with Installation(upstreams=upstream(llm.port), org=ORG, policies=POLICIES) as made:
        yield made.start()


async def ask(
    session: aiohttp.ClientSession, installation: Installation, key: str, model: str
) -> tuple[int, dict[str, object]]:
    async with session.post(
        f"{installation.url}/llm/v1/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "hi"}]},
        headers={"Authorization": f"Bearer {key}"},
    ) as answer:
        return answer.status, await answer.json()


def test_every_request_that_reached_the_upstream_has_its_decision_after_kill_9(
    installation: Installation, llm: SlowLLM
) -> None:
    key = installation.key("ada")["key"]

    async def flood() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            tasks = [
                asyncio.create_task(ask(session, installation, key, f"m/{number}")) for number in range(500)
            ]
            loop = asyncio.get_running_loop()
            deadline = loop.time() + 60
            while len(llm.models) < 500 and loop.time() < deadline:
                await asyncio.sleep(0.02)
            os.kill(installation.pid("gateway") or 0, signal.SIGKILL)
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(flood())
    assert len(llm.models) == 500
    allowed = {
        record["resource"]
        for record in installation.records()
        if record["kind"] == "decision" and record["decision"] == "allow"
    }
    assert {f'Model::"llm/{model}"' for model in llm.models} <= allowed


def test_a_killed_gateway_comes_back_by_itself_and_its_log_verifies(
    installation: Installation, llm: SlowLLM
) -> None:
    llm.answer_now()
    key = installation.key("ada")["key"]
    first = installation.pid("gateway")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: installation.pid("gateway") not in {None, first}, what="the gateway is started again")

    async def works() -> bool:
        async with aiohttp.ClientSession() as session:
            try:
                return (await ask(session, installation, key, "m"))[0] == 200
            except aiohttp.ClientError:
                return False

    wait_until(lambda: asyncio.run(works()), what="the new gateway answers")
    installation.cli("audit", "verify")
    told = [json.loads(line) for line in installation.log.read_text().splitlines() if line.startswith("{")]
    assert ("role_ended", "supervisor") in {(line["event"], line["role"]) for line in told}


def test_with_the_control_process_gone_decisions_go_on_and_limits_of_staleness_are_visible(
    installation: Installation, llm: SlowLLM
) -> None:
    llm.answer_now()
    key = installation.key("ada")["key"]
    control = installation.pid("control")
    assert control is not None
    os.kill(control, signal.SIGSTOP)
    try:

        async def status() -> int:
            async with aiohttp.ClientSession() as session:
                return (await ask(session, installation, key, "m"))[0]

        assert asyncio.run(status()) == 200
    finally:
        os.kill(control, signal.SIGCONT)


def test_a_key_revoked_while_its_answer_streams_ends_the_stream_within_a_second(
    installation: Installation, llm: SlowLLM
) -> None:
    made = installation.key("ada")

    async def stream() -> float:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{installation.url}/llm/v1/chat/completions",
                json={"model": "m", "messages": [], "stream": True},
                headers={"Authorization": f"Bearer {made['key']}"},
            ) as answer,
        ):
            assert answer.status == 200
            assert await answer.content.read(10)
            revoke = await asyncio.to_thread(installation.cli, "key", "revoke", made["id"])
            assert revoke is not None
            began = time.monotonic()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
            return time.monotonic() - began

    assert asyncio.run(stream()) < 1.0
    wait_until(lambda: llm.left == 1, seconds=5, what="the upstream's stream was cancelled")
    wait_until(
        lambda: [r for r in installation.records() if r.get("outcome", {}).get("ended") == "cut"],
        seconds=5,
        what="the cut is on record",
    )


def test_a_policy_changed_on_disk_rules_at_once_and_a_broken_one_does_not(
    installation: Installation, llm: SlowLLM
) -> None:
    llm.answer_now()
    key = installation.key("ada")["key"]

    async def status() -> int:
        async with aiohttp.ClientSession() as session:
            return (await ask(session, installation, key, "m"))[0]

    assert asyncio.run(status()) == 200
    installation.write_policy(
        "closed.cedar",
        '@id("closed") forbid (principal, action == Doorward::Action::"invoke", resource);',
    )
    wait_until(lambda: asyncio.run(status()) == 403, seconds=10, what="the forbid rules")
    installation.write_policy("closed.cedar", '@id("bomb") permit (principal, action, resource) when { '
                              + "(" * 700 + "true" + ")" * 700 + " };")  # fmt: skip
    wait_until(
        lambda: "bundle_refused" in installation.log.read_text(), seconds=20, what="the bomb is refused"
    )
    assert asyncio.run(status()) == 403
    (installation.folder / "policies/closed.cedar").unlink()
    wait_until(lambda: asyncio.run(status()) == 200, seconds=10, what="the file's removal rules")


def test_a_forbid_that_errs_denies_on_the_live_path(installation: Installation, llm: SlowLLM) -> None:
    llm.answer_now()
    installation.write_policy(
        "forbid.cedar",
        '@id("no-overflow") forbid (principal, action == Doorward::Action::"invoke", resource)'
        " when { resource.sensitivity * 9223372036854775807 + 9223372036854775807 > 0 };",
    )
    key = installation.key("ada")["key"]

    async def answer() -> tuple[int, dict[str, object]]:
        async with aiohttp.ClientSession() as session:
            return await ask(session, installation, key, "m")

    wait_until(lambda: asyncio.run(answer())[0] == 403, seconds=10, what="the erring forbid denies")
    denied = [r for r in installation.records() if r["kind"] == "decision" and r["decision"] == "deny"]
    assert any("no-overflow" in error for error in denied[-1]["errors"])
    assert llm.models == ["m"] * len(llm.models)


def test_an_upstream_that_is_down_is_said_in_the_protocol_s_own_words() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with Installation(
            upstreams=upstream(unused.getsockname()[1]), org=ORG, policies=POLICIES
        ) as installation:
            installation.start()
            key = installation.key("ada")["key"]

            async def answer() -> tuple[int, dict[str, object]]:
                async with aiohttp.ClientSession() as session:
                    return await ask(session, installation, key, "m")

            status, body = asyncio.run(answer())
    assert status == 502
    assert "message" in body["error"]


def test_the_first_start_with_a_broken_policy_set_exits_3_and_names_the_place() -> None:
    with Installation(policies='@id("x") permit (principal, action, resource) when { nonsense };') as broken:
        process = broken.launch()
        assert process.wait(60) == 3
        assert "test.cedar:1" in broken.log.read_text()


def test_a_taken_port_is_named_and_nothing_is_left_running() -> None:
    with Installation(policies=POLICIES) as installation, socket.socket() as taken:
        taken.bind(("127.0.0.1", installation.gateway_port))
        taken.listen()
        process = installation.launch()
        assert process.wait(60) == 3
        assert str(installation.gateway_port) in installation.log.read_text()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", installation.control_port), 1)


def test_a_killed_supervisor_leaves_nothing_running(installation: Installation) -> None:
    roles = [installation.pid("gateway"), installation.pid("control")]
    assert installation.process is not None
    installation.process.kill()
    installation.process.wait()
    wait_until(
        lambda: not any(Path(f"/proc/{pid}").exists() and not _zombie(pid) for pid in roles),
        seconds=30,
        what="both roles ended",
    )


def _zombie(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk for the log needs root to mount")
def test_with_the_log_s_disk_full_nothing_is_allowed_and_nothing_forwarded(llm: SlowLLM) -> None:
    llm.answer_now()
    with Installation(upstreams=upstream(llm.port), org=ORG, policies=POLICIES) as installation:
        log = installation.data / "audit/gateway-1"
        log.mkdir(parents=True, mode=0o700)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(log)], check=False
        )
        if mounted.returncode:
            pytest.skip("this machine does not let us mount a small disk")
        try:
            (installation.data).chmod(0o700)
            installation.start()
            key = installation.key("ada")["key"]

            async def until_refused() -> tuple[int, int]:
                async with aiohttp.ClientSession() as session:
                    for count in range(2000):
                        status, _ = await ask(session, installation, key, "m")
                        if status != 200:
                            return status, count
                return 200, 2000

            status, before = asyncio.run(until_refused())
            assert status == 503
            reached = len(llm.models)
            assert reached == before

            async def more() -> set[int]:
                async with aiohttp.ClientSession() as session:
                    return {(await ask(session, installation, key, "m"))[0] for _ in range(20)}

            assert asyncio.run(more()) == {503}
            assert len(llm.models) == reached
        finally:
            installation.stop()
            subprocess.run(["umount", str(log)], check=True)


def test_readyz_of_the_gateway_shows_the_versions_it_decides_on(installation: Installation) -> None:
    async def ready() -> dict[str, object]:
        connector = aiohttp.UnixConnector(str(installation.data / "gateway.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://x/readyz") as answer,
        ):
            return json.loads(await answer.text())

    report = asyncio.run(ready())
    assert report["ready"] is True
    assert str(report["bundle"]).startswith("sha256:")
    assert str(report["entities"]).startswith("v")


def test_after_a_clean_stop_a_cut_tail_or_a_missing_log_is_found(
    installation: Installation, llm: SlowLLM
) -> None:
    llm.answer_now()
    key = installation.key("ada")["key"]

    async def few() -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                await ask(session, installation, key, "m")

    asyncio.run(few())
    installation.stop()
    assert "not checked" not in installation.cli("audit", "verify")
    log = installation.data / "audit/gateway-1"
    segment = max(log.glob("*.jsonl"))
    whole = segment.read_bytes()
    segment.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert "cut" in installation.cli("audit", "verify", code=7)
    segment.write_bytes(whole.replace(b'"decision":"allow"', b'"decision":"deny" ', 1))
    named = json.loads(whole.splitlines()[-1])
    assert "changed" in installation.cli("audit", "verify", code=7)
    assert named["seq"] > 1
    shutil.rmtree(log)
    assert "gone" in installation.cli("audit", "verify", code=7)
