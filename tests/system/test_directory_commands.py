"""`apply`, `people` and `assets` from the command line to the database, on a real control plane."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import typer
from click.testing import Result
from structlog.testing import capture_logs
from typer.testing import CliRunner

from doorward.cli import apply, assets, people
from doorward.core.accounts import Passkey
from doorward.core.model import EntityUid
from support.console_plane import Plane, running

ORG = """
users:
  dana: { roles: [data-scientist], projects: [fraud], purposes: [fraud-model], clearance: 2 }
  omar: {}
assets:
  Dataset::"store/training": { owner: omar, sensitivity: 2, projects: [fraud] }
"""


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    # The command runs in this process: what the control plane logs must not mix with its output.
    with capture_logs():
        async with running() as one:
            yield one


async def run(plane: Plane, *arguments: str, given: str | None = None) -> Result:
    app = typer.Typer()
    for noun in (apply, people, assets):
        noun.register(app)
    line = [*arguments, "--data", str(plane.data)]
    return await asyncio.to_thread(CliRunner().invoke, app, line, given)


@pytest.fixture
def org(tmp_path: Path) -> Path:
    path = tmp_path / "org.yaml"
    path.write_text(ORG)
    return path


async def test_the_plan_is_shown_then_applied_and_the_second_time_nothing_is_left(
    plane: Plane, org: Path
) -> None:
    planned = await run(plane, "apply", "-f", str(org), "--plan")
    assert planned.exit_code == 0, planned.output
    assert '+ User::"dana"' in planned.output
    assert "clearance: 2" in planned.output
    assert plane.services.directory.people() == []

    applied = await run(plane, "apply", "-f", str(org))
    assert applied.exit_code == 0, applied.output
    assert '+ Dataset::"store/training"' in applied.output
    assert "Applied. The directory is at version 1." in applied.output
    again = await run(plane, "apply", "-f", str(org), "--json")
    assert json.loads(again.output) == {"plan": [], "applied": False, "version": 1, "warnings": []}

    org.write_text("users: { dana: { clearance: 1 } }")
    pruned = await run(plane, "apply", "-f", str(org), "--prune", "--json")
    answer = json.loads(pruned.output)
    assert answer["applied"]
    assert {"op": "remove", "kind": "User", "name": "omar", "changes": {}} in answer["plan"]
    dana = next(item for item in answer["plan"] if item["name"] == "dana")
    assert dana["changes"]["clearance"] == [2, 1]


async def test_a_change_is_on_record_with_who_and_what(plane: Plane, org: Path) -> None:
    await run(plane, "apply", "-f", str(org))
    written = b"".join(path.read_bytes() for path in (plane.data / "audit").rglob("*") if path.is_file())
    found = [line for line in written.split(b"\n") if b"store/training" in line]
    assert len(found) == 1
    assert b'"principal":"operator:' in found[0]
    assert b'"detail":"add 6"' in found[0]


async def test_a_mistake_is_exit_3_with_file_line_and_the_right_word(plane: Plane, org: Path) -> None:
    org.write_text("users:\n  dana: { clearence: 2 }\n")
    refused = await run(plane, "apply", "-f", str(org))
    assert refused.exit_code == 3
    assert f"{org}:2: " in refused.stderr
    assert "Did you mean `clearance`?" in refused.stderr
    assert plane.services.directory.people() == []


async def test_a_file_that_cannot_be_read_is_exit_3(plane: Plane, tmp_path: Path) -> None:
    assert (await run(plane, "apply", "-f", str(tmp_path / "none.yaml"))).exit_code == 3
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert (await run(plane, "apply", "-f", str(tmp_path / "binary.yaml"))).exit_code == 3


async def test_no_control_plane_is_exit_8(tmp_path: Path, org: Path) -> None:
    app = typer.Typer()
    apply.register(app)
    people.register(app)
    missing = ["apply", "-f", str(org), "--data", str(tmp_path / "nowhere")]
    assert (await asyncio.to_thread(CliRunner().invoke, app, missing)).exit_code == 8


async def test_people_and_assets_are_listed_and_shown(plane: Plane, org: Path) -> None:
    await run(plane, "apply", "-f", str(org))
    everybody = json.loads((await run(plane, "people", "list", "--json")).output)
    assert [(p["kind"], p["name"], p["active"]) for p in everybody] == [
        ("User", "dana", True),
        ("User", "omar", True),
    ]
    assert (everybody[0]["roles"], everybody[0]["clearance"]) == (["data-scientist"], 2)
    assert json.loads((await run(plane, "people", "--json")).output) == everybody
    shown = json.loads((await run(plane, "people", "show", 'User::"dana"', "--json")).output)
    assert {name: fact for name, fact in shown.items() if name != "sources"} == everybody[0]
    assert shown["sources"] == {}
    assert "dana" in (await run(plane, "people")).output
    data = json.loads((await run(plane, "assets", "show", "store/training", "--json")).output)
    assert (data["owner"], data["sensitivity"], data["upstream"]) == ("omar", 2, "store")
    assert "store/training" in (await run(plane, "assets")).output
    unknown = await run(plane, "assets", "show", "store/other")
    assert unknown.exit_code == 1
    assert "not known" in unknown.stderr


async def test_lowering_an_asset_is_an_act_of_its_own(plane: Plane, org: Path) -> None:
    org.write_text(ORG + '  Dataset::"store/training/public": { owner: omar, sensitivity: 0 }\n')
    await run(plane, "apply", "-f", str(org))
    child = 'Dataset::"store/training/public"'
    assert plane.services.directory.assets()[1].attrs["sensitivity"] == 2
    body = {"asset": child, "reason": "published in the annual report"}
    status, answer = await plane.operator("POST", "/api/v1/assets/lower", body)
    assert (status, answer["sensitivity"], answer["lowered"]) == (200, 0, True)
    found = plane.services.directory.entity(EntityUid.parse(child))
    assert found is not None
    assert found.attrs["sensitivity"] == 0
    for wrong in (
        {"asset": child, "reason": ""},
        {"asset": 'Dataset::"store/no"', "reason": "x"},
        {"asset": "x"},
    ):
        assert (await plane.operator("POST", "/api/v1/assets/lower", wrong))[0] in {400, 404}


async def test_prune_never_removes_the_last_one_who_can_sign_in(plane: Plane, org: Path) -> None:
    await run(plane, "apply", "-f", str(org))
    dana, accounts = EntityUid.of("User", "dana"), plane.services.directory.accounts
    passkey = Passkey(
        credential_id=b"c", principal=dana, public_key=b"p", sign_count=0, created=plane.services.clock.now()
    )
    accounts.add_passkey(passkey)
    org.write_text("users: { omar: {} }")
    refused = await run(plane, "apply", "-f", str(org), "--prune")
    assert refused.exit_code == 1
    assert "sign in" in refused.stderr
    assert accounts.list_passkeys() == [passkey]
    assert (await run(plane, "apply", "-f", str(org))).exit_code == 0
