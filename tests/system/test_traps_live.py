"""Each way in which Cedar fails open (research: errors skip a forbid) denies in a running gateway, on record.

1. a forbid that errs, in five forms  2. a validated forbid on an entity that is not there  3. a short
stack  4. policy text that ends the parser's process  5. requests that get no decision  6. repeated ids.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from doorward.policies.workspace import packaged_schema
from support import planted_faults
from support.installation import Installation, SlowLLM, wait_until
from support.planted_faults import planted

PERMIT = """
@id("staff-invokes")
permit (principal is Doorward::User, action == Doorward::Action::"invoke", resource is Doorward::Model);
@id("everyone-views")
permit (principal, action == Doorward::Action::"view", resource is Doorward::Model);
"""
FORMS = {
    "missing-attribute": 'principal.department == "risk"',
    "in-on-text": 'context.network.zone in ["x"]',
    "overflow": "context.request.bytes + 9223372036854775807 > 3",
    "bad-ip": 'ip(context.network.zone).isInRange(ip("10.0.0.0/8"))',
    "wrong-type": "context.risk < context.network.zone",
}
ORG = """
users:
  ada: { employment: employee, clearance: 2 }
services:
  etl: { owner: ada, environment: production }
assets:
  Model::"llm": { owner: ada, sensitivity: 1, environment: production }
"""


def forbid(name: str, condition: str, model: str) -> str:
    return (
        f'@id("{name}")\nforbid (principal, action == Doorward::Action::"invoke", resource)\n'
        f'when {{ resource == Doorward::Model::"llm/{model}" && {condition} }};\n'
    )


@dataclass
class Door:
    installation: Installation
    key: str

    def asks(self, model: str, key: str = "") -> tuple[int, dict[str, Any]]:
        """Ask a model; return the status and the decision on record."""
        status, request = asyncio.run(self._ask(model, key or self.key))
        record = next(
            record
            for record in self.installation.records()
            if record.get("request_id") == request and record["kind"] == "decision"
        )
        return status, record

    async def _ask(self, model: str, key: str) -> tuple[int, str]:
        url = f"{self.installation.url}/llm/v1/chat/completions"
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        headers = {"Authorization": f"Bearer {key}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=body, headers=headers) as answer,
        ):
            await answer.read()
            return answer.status, answer.headers["Doorward-Request-Id"]

    def ready(self, role: str) -> dict[str, Any]:
        async def get() -> dict[str, Any]:
            connector = aiohttp.UnixConnector(str(self.installation.data / f"{role}.sock"))
            url = "http://localhost/readyz"
            async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
                return await answer.json()

        return asyncio.run(get())


@pytest.fixture(scope="module")
def llm() -> Iterator[SlowLLM]:
    with SlowLLM() as running:
        running.answer_now()
        yield running


def checked(installation: Installation, directory: Path) -> str:
    """Return what `doorward check` says of policies it refuses."""
    words = installation.command("check", str(directory))
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 3, result
    return result.stdout + result.stderr


def opened(installation: Installation) -> Door:
    installation.start()
    return Door(installation, installation.key("ada")["key"])


def made(llm: SlowLLM, policies: str, **more: Any) -> Installation:
    upstream = f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{llm.port}"\n'
    return Installation(upstreams=upstream, org=ORG, policies=policies, extra="[shadow]\nevery = 1\n", **more)


@pytest.fixture(scope="module")
def careless(llm: SlowLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """An installation whose admission lets every policy in: what stands behind it must hold."""
    text = PERMIT + "".join(forbid(name, condition, name) for name, condition in FORMS.items())
    folder: Path = tmp_path_factory.mktemp("planted")
    environment = planted(folder / "site", planted_faults.ADMISSION)
    with made(llm, text, environment=environment) as installation:
        yield opened(installation)


@pytest.fixture(scope="module")
def careful(llm: SlowLLM) -> Iterator[Door]:
    text = PERMIT + forbid("risky-owner", "resource has owner && resource.owner.risk > 50", "orphan")
    with made(llm, text) as installation:
        everyone = 'action invoke in ["use"] appliesTo { principal: [User, Service, Agent, Device]'
        schema = packaged_schema().replace(everyone, everyone.replace("Service, ", ""))
        (installation.folder / "policies" / "schema.cedarschema").write_text(schema)
        yield opened(installation)


@pytest.mark.parametrize("form", FORMS)
def test_1_a_forbid_that_errs_denies_and_the_record_says_so(careless: Door, form: str) -> None:
    for _ in range(3):
        status, record = careless.asks(form)
        assert status == 403
        assert (record["decision"], record["policy_decision"], record["code"]) == ("deny", "deny", "denied")
        assert [error.partition(":")[0] for error in record["errors"]] == [form]
        assert record["determining"] == []


def test_1_the_same_caller_is_let_in_where_no_forbid_errs(careless: Door) -> None:
    status, record = careless.asks("fine")
    assert (status, record["decision"], record["errors"]) == (200, "allow", [])
    assert record["determining"] == ["staff-invokes"]


def test_1_the_shadow_check_takes_strict_mode_into_account(careless: Door) -> None:
    for form in FORMS:
        careless.asks(form)
    sent = careless.ready("gateway")["shadow"]["sampled"]
    state = wait_until(
        lambda: sum((found := careless.ready("shadow"))["samples"].values()) >= sent and found,
        what="every sample is judged",
    )
    assert state["findings"] == []
    assert state["samples"]["agrees"] > 5


def test_1_such_a_policy_is_not_admitted_at_all(careful: Door, tmp_path: Path) -> None:
    for form, condition in FORMS.items():
        if form in {"overflow", "bad-ip"}:
            continue  # the validator cannot know
        (tmp_path / "a.cedar").write_text(PERMIT + forbid(form, condition, form))
        assert "a.cedar:" in checked(careful.installation, tmp_path)


def test_2_a_validated_forbid_on_an_entity_that_is_not_there_denies(careful: Door) -> None:
    # The owner is known by name only: no such person is registered.
    org = ORG + '  Model::"llm/orphan": { owner: gone, sensitivity: 1, environment: production }\n'
    (careful.installation.folder / "orphan.yaml").write_text(org)
    careful.installation.cli("apply", "-f", str(careful.installation.folder / "orphan.yaml"))
    status, record = wait_until(
        lambda: (found := careful.asks("orphan"))[1]["errors"] and found, what="the gateway knows the asset"
    )
    assert (status, record["decision"], record["policy_decision"]) == (403, "deny", "deny")
    assert [error.partition(":")[0] for error in record["errors"]] == ["risky-owner"]
    assert "does not exist" in record["errors"][0]


def test_3_the_decision_does_not_depend_on_the_stack(llm: SlowLLM) -> None:
    chain = " || ".join(f"context.risk == {number}" for number in range(1, 20)) + " || context.risk == 0"
    with made(llm, PERMIT + forbid("long-chain", f"({chain})", "chained")) as installation:
        words = installation.command

        def with_short_stack(*rest: str) -> list[str]:
            return ["bash", "-c", 'ulimit -s 256 && exec "$@"', "bash", *words(*rest)]

        installation.command = with_short_stack  # type: ignore[method-assign]
        door = opened(installation)
        limits = Path(f"/proc/{installation.pid('gateway')}/limits").read_text()
        assert (
            next(line for line in limits.splitlines() if line.startswith("Max stack")).split()[3] == "262144"
        )
        for _ in range(40):  # tier 0, then the generated function
            status, record = door.asks("chained")
            assert (status, record["determining"], record["errors"]) == (403, ["long-chain"], [])
        assert door.asks("fine")[0] == 200
        assert door.ready("gateway")["shadow"]["findings"] == []


def test_4_text_that_ends_the_parser_ends_nothing_else(careful: Door) -> None:
    installation = careful.installation
    before, bundle = (
        [installation.pid(role) for role in ("control", "gateway")],
        careful.ready("gateway")["bundle"],
    )
    nested = "(" * 700 + "true" + ")" * 700
    installation.write_policy(
        "nested.cedar", f'@id("n") permit (principal, action, resource) when {{ {nested} }};'
    )
    try:
        wait_until(lambda: "bundle_refused" in installation.log.read_text(), what="the gateway is told")
        status, record = careful.asks("fine")
        assert (status, record["bundle"]) == (200, bundle)
        assert [installation.pid(role) for role in ("control", "gateway")] == before
        told = checked(installation, installation.folder / "policies")
        assert "nested.cedar:1:" in told
    finally:
        (installation.folder / "policies" / "nested.cedar").unlink()


def test_5_what_gets_no_decision_is_denied(careful: Door) -> None:
    # This schema knows no `invoke` by a service: Cedar gives no decision at all.
    key = careful.installation.cli("key", "create", "--service", "etl", "--json")
    status, record = careful.asks("fine", json.loads(key)["key"])
    assert status != 200
    assert (record["decision"], record["policy_decision"]) == ("deny", "deny")
    assert record["errors"] == [
        error for error in record["errors"] if error.startswith("request: the schema has no")
    ]
    assert record["errors"]


@pytest.mark.parametrize(
    "context", ['{"risk": 1.5}', '{"risk": null}', '{"risk": "high"}', '{"risk": 9223372036854775808}']
)
def test_5_a_context_that_cannot_be_read_is_never_an_allow(careful: Door, context: str) -> None:
    installation = careful.installation
    question = ["can", 'User::"ada"', "invoke", 'Model::"llm/fine"', "--context", context]
    result = subprocess.run(
        [*installation.command(*question), "--data", str(installation.data)],
        cwd=installation.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode in {1, 2}, result
    assert "allow" not in result.stdout


def test_6_an_id_that_is_used_twice_is_refused_and_records_name_real_ids(careful: Door) -> None:
    installation = careful.installation
    bundle = careful.ready("gateway")["bundle"]
    refused = installation.log.read_text().count("bundle_refused")
    installation.write_policy("again.cedar", '@id("staff-invokes") permit (principal, action, resource);')
    try:
        wait_until(
            lambda: installation.log.read_text().count("bundle_refused") > refused, what="the gateway is told"
        )
        status, record = careful.asks("fine")
        assert (status, record["bundle"]) == (200, bundle)
        assert record["determining"] == ["staff-invokes"]  # never `policy0`
        assert "staff-invokes" in checked(installation, installation.folder / "policies")
    finally:
        (installation.folder / "policies" / "again.cedar").unlink()
