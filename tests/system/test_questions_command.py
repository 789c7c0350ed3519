"""`doorward who-can` and `what-can`, offline and against a running control plane, and who may ask."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from support import console_people, console_plane
from support.policies import ORG, STARTER

TRAINING = 'Dataset::"store/training/customers.csv"'
POLICIES = (STARTER / "data.cedar").read_text() + (STARTER / "models.cedar").read_text()


async def dw(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import typer; from doorward.cli import questions; app = typer.Typer();"
        "questions.register(app); app()",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_questions_without_a_process(tmp_path: Path) -> None:
    (tmp_path / "org.yaml").write_text(ORG)
    here = ("--policies", str(STARTER), "--org", str(tmp_path / "org.yaml"))
    code, out, err = await dw("who-can", "read", TRAINING, *here)
    assert code == 0, err
    only_if, never = out.index("only if (1)"), out.index("never (")
    assert 'User::"dana": on a proven, managed, compliant device' in out[only_if:never]
    assert 'User::"bea"' in out[never:]

    code, out, _ = await dw("who-can", "train", 'Dataset::"store/sealed"', *here, "--json")
    answer = json.loads(out)
    assert code == (0 if answer["always"] or answer["only_if"] else 1)
    code, _, err = await dw("who-can", "raed", TRAINING, *here)
    assert (code, "Did you mean read?" in err) == (2, True)
    code, _, _ = await dw("who-can", "read", TRAINING, "--policies", str(STARTER))
    assert code == 2


async def test_questions_against_a_running_control_plane() -> None:
    async with console_plane.running(policies=POLICIES) as plane:
        body = {"org": ORG, "source": "org.yaml", "prune": False, "plan": False}
        assert (await plane.operator("POST", "/api/v1/apply", body))[0] == 200
        data = ("--data", str(plane.data))
        code, out, err = await dw("what-can", 'User::"dana"', *data, "--json")
        assert code == 0, err
        answer = json.loads(out)
        reads = [e for e in answer["only_if"] if e["action"] == "read"]
        assert reads[0]["resource"] == 'Dataset::"store/training"'
        options = ("--device", "laptop-7", "--purpose", "fraud-model", "--json")
        code, out, _ = await dw("who-can", "read", TRAINING, *data, *options)
        assert {"principal": 'User::"dana"'} in json.loads(out)["allowed"]
        code, out, _ = await dw("who-can", "read", TRAINING, *data, "--json")
        assert {"principal": 'User::"bea"'} in json.loads(out)["never"]


async def test_only_oneself_the_owner_and_those_who_inspect_may_ask() -> None:
    async with console_plane.running(policies=POLICIES) as plane:  # no policy lets admin inspect
        browser, _ = await console_people.enrolled(plane)
        org = ORG + '\n  Model::"llm/mine": { owner: admin, sensitivity: 3 }\n'
        org = org.replace("users:\n", "users:\n  admin: { roles: [admin] }\n")
        body = {"org": org, "source": "org.yaml", "prune": False, "plan": False}
        assert (await plane.operator("POST", "/api/v1/apply", body))[0] == 200

        assert (await browser.post("/api/v1/what-can", {"principal": 'User::"dana"'})).status == 403
        asked = {"action": "read", "resource": TRAINING}
        assert (await browser.post("/api/v1/who-can", asked)).status == 403
        own = {"action": "invoke", "resource": 'Model::"llm/mine"'}
        assert (await browser.post("/api/v1/who-can", own)).status == 200
        mine = await browser.post("/api/v1/what-can", {"principal": 'User::"admin"'})
        assert mine.status == 200
        assert "store/sealed" not in mine.text
        anonymous = await type(browser)(plane.port).post("/api/v1/who-can", own)
        assert anonymous.status == 401
