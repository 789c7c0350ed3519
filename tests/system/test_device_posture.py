"""Device posture: from a file, a device manager and the management API, the strictest of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import typer
from click.testing import Result
from structlog.testing import capture_logs
from typer.testing import CliRunner

from doorward.cli import devices
from doorward.core.model import EntityUid
from support import scim_plane
from support.scim_plane import Client

LAPTOP = EntityUid.of("Device", "laptop-7")
ORG = scim_plane.ORG + "devices:\n  laptop-7: { managed: true, compliant: true }\n"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    with capture_logs():
        async with scim_plane.running(org=ORG, adopt=["laptop-*"]) as running:
            yield running


async def run(client: Client, *arguments: str) -> Result:
    app = typer.Typer()
    devices.register(app)
    app.command("other")(lambda: None)
    line = ["devices", *arguments, "--data", str(client.plane.data)]
    return await asyncio.to_thread(CliRunner().invoke, app, line)


def compliant(client: Client) -> object:
    found = client.plane.services.directory.entity(LAPTOP)
    assert found is not None
    return found.attrs["compliant"]


async def test_the_command_states_posture_and_a_file_does_not_take_it_back(client: Client) -> None:
    done = await run(client, "set", "laptop-7", "--not-compliant")
    assert done.exit_code == 0, done.output
    assert "laptop-7 is managed, not compliant, active" in done.output
    assert compliant(client) is False
    await client.plane.operator("POST", "/api/v1/apply", {"org": ORG})
    assert compliant(client) is False
    again = await run(client, "set", "laptop-7", "--compliant", "--json")
    assert json.loads(again.stdout)["compliant"] is True
    assert json.loads(again.stdout)["sources"]["management"]["states"] == {"compliant": True}


async def test_it_is_compliant_only_if_everyone_says_so(client: Client) -> None:
    made = await client.device("laptop-7", managed=True, compliant=True)
    assert compliant(client) is True
    await run(client, "set", "laptop-7", "--not-compliant")
    await client.patch(f"/Devices/{made['id']}", {"op": "replace", "path": "active", "value": True})
    assert compliant(client) is False


async def test_a_change_is_on_record_and_an_unknown_device_is_404(client: Client) -> None:
    await run(client, "set", "laptop-7", "--compliant", "--max-age", "60")
    records = [r for r in await client.records() if r["detail"] == f"the posture of {LAPTOP}"]
    assert records[0]["changes"]["max_age"] == 60
    assert (await run(client, "set", "nobody", "--compliant")).exit_code != 0
    assert (await run(client, "set", "laptop-7")).exit_code != 0
