"""`doorward can` and `doorward test` against a running control plane."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from support import console_plane
from support.policies import ORG, STARTER

TRAINING = 'Dataset::"store/training/customers.csv"'
POLICIES = (STARTER / "data.cedar").read_text() + (STARTER / "models.cedar").read_text()


async def dw(plane: console_plane.Plane, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import typer; from doorward.cli import can, test; app = typer.Typer();"
        "can.register(app); test.register(app); app()",
        *arguments,
        "--data",
        str(plane.data),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def applied(plane: console_plane.Plane) -> None:
    body = {"org": ORG, "source": "org.yaml", "prune": False, "plan": False}
    status, answer = await plane.operator("POST", "/api/v1/apply", body)
    assert status == 200, answer


async def test_can_asks_the_running_decision_point() -> None:
    async with console_plane.running(policies=POLICIES) as plane:
        await applied(plane)
        options = ("--device", "laptop-7", "--purpose", "fraud-model", "--json")
        code, out, err = await dw(plane, "can", 'User::"dana"', "read", TRAINING, *options)
        assert code == 0, err
        answer: dict[str, Any] = json.loads(out)
        assert answer["determining"] == ["read-training-data"]
        assert answer["bundle"] == plane.services.point.pin().bundle_digest

        code, out, _ = await dw(
            plane, "can", 'User::"dana"', "read", TRAINING, "--purpose", "fraud-model", "--why"
        )
        assert code == 1
        assert 'present the certificate of your device "laptop-7"' in out

        code, _, err = await dw(plane, "can", 'User::"dana"', "raed", TRAINING)
        assert code == 2
        assert "Did you mean read?" in err


async def test_policy_tests_run_against_the_running_directory(tmp_path: Path) -> None:
    (tmp_path / "data.cedar").write_text(POLICIES)
    (tmp_path / "a_test.yaml").write_text(
        "tests:\n- name: bea chats\n"
        "  request: { principal: 'User::\"bea\"', action: invoke, resource: 'Model::\"llm/smollm2\"' }\n"
        "  expect: { decision: allow }\n"
    )
    async with console_plane.running() as plane:
        await applied(plane)
        code, out, err = await dw(plane, "test", str(tmp_path))
        assert (code, err) == (0, ""), out


async def test_what_tests_run_against_holds_no_credentials() -> None:
    async with console_plane.running(policies=POLICIES) as plane:
        await applied(plane)
        status, world = await plane.operator("GET", "/api/v1/can/world")
        assert status == 200
        assert world["entities"]
        assert not world["keys"]
        assert not world["identities"]
        assert not world["certificates"]


async def test_can_is_not_answered_without_a_session() -> None:
    async with console_plane.running(policies=POLICIES) as plane:
        reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
        body = json.dumps({"principal": 'User::"dana"', "action": "read", "resource": TRAINING})
        writer.write(
            f"POST /api/v1/can HTTP/1.1\r\nHost: localhost:{plane.port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        answer = await reader.read()
        writer.close()
        assert answer.split(b" ")[1] in {b"401", b"403"}
