"""Rotating the installation's own keys while it runs: what was issued goes on, what is distrusted ends."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.installation import Installation, SlowLLM, wait_until

ORG = """
users: { bea: { roles: [business-user], clearance: 2 } }
devices: { laptop-7: { managed: true, compliant: true, owner: bea } }
assets: { Model::"llm/m": { owner: bea, sensitivity: 1, environment: production } }
"""
POLICY = """
@id("chat") permit (principal, action, resource is Doorward::Model) when { context.device.proven };
"""


@pytest.fixture
def house() -> Iterator[Installation]:
    with SlowLLM(models=["m"]) as llm:
        llm.answer_now()
        upstream = f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{llm.port}"\n'
        with Installation(upstreams=upstream, org=ORG, policies=POLICY, tls=True) as installation:
            yield installation.start()


def enrolled(house: Installation, folder: str) -> Path:
    house.cli("devices", "enrol", "laptop-7", "--out", folder)
    return house.folder / folder


def ask(house: Installation, token: str, device: Path, *, trust: Path | None = None) -> int:
    """Talk to the model over a connection of its own; return the status."""
    context = ssl.create_default_context(cafile=str(trust or device / "ca.pem"))
    context.load_cert_chain(str(device / "laptop-7.crt"), str(device / "laptop-7.key"))
    connection = http.client.HTTPSConnection("127.0.0.1", house.gateway_port, context=context, timeout=10)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    asked = json.dumps({"model": "m", "messages": []})
    try:
        connection.request("POST", "/llm/v1/chat/completions", asked, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def token(house: Installation) -> str:
    return str(json.loads(house.cli("token", "--user", "bea", "--json"))["access_token"])


def rotate(house: Installation, use: str, *more: str) -> dict[str, Any]:
    (state,) = json.loads(house.cli("custodian", "rotate", use, *more, "--json"))
    return dict(state)


def test_tokens_and_devices_go_on_over_a_rotation_and_new_ones_work(house: Installation) -> None:
    old_device, old_token = enrolled(house, "old"), token(house)
    assert ask(house, old_token, old_device) == 200
    assert rotate(house, "issuer")["generation"] == 2
    assert rotate(house, "device-ca")["generation"] == 2
    assert ask(house, old_token, old_device) == 200
    new_device = enrolled(house, "new")
    wait_until(lambda: ask(house, token(house), new_device) == 200, what="the new CA's device is proven")
    # The client that was never told of the new CA still trusts the server, and is still proven.
    wait_until(
        lambda: ask(house, token(house), old_device, trust=old_device / "ca.pem") == 200,
        what="the old device on the new server certificate",
    )
    rotations = [record for record in house.records() if "rotate the key" in record.get("detail", "")]
    assert [record["changes"]["use"] for record in rotations] == ["issuer", "device-ca"]


def test_a_distrusted_issuer_key_ends_its_tokens_at_once(house: Installation) -> None:
    device, old_token = enrolled(house, "one"), token(house)
    assert ask(house, old_token, device) == 200
    rotate(house, "issuer", "--distrust")
    wait_until(lambda: ask(house, old_token, device) == 401, seconds=5, what="the old token is refused")
    assert ask(house, token(house), device) == 200


def test_the_log_verifies_with_the_first_key_after_a_rotation_and_a_restart(house: Installation) -> None:
    wait_until((house.data / "audit/checkpoint.pub").exists, what="the first checkpoint")
    first = house.folder / "first.pub"
    first.write_bytes((house.data / "audit/checkpoint.pub").read_bytes())
    rotate(house, "checkpoint")
    public = house.data / "audit/checkpoint.pub"
    wait_until(lambda: public.read_bytes() != first.read_bytes(), what="the new key signs")
    house.stop()
    assert "signature checked" in house.cli("audit", "verify", "--key", str(first))
    house.log.unlink()
    house.start()
    states = json.loads(house.cli("custodian", "list", "--json"))
    generations = {state["use"]: state["generation"] for state in states}
    assert (generations["checkpoint"], generations["issuer"]) == (2, 1)


def test_an_unknown_use_is_a_clear_error(house: Installation) -> None:
    said = house.cli("custodian", "rotate", "everything", code=2)
    assert "use" in said
