"""The public SCIM conformance checks (scim2-tester through `scim test`), over real HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from support import scim_plane


@pytest.mark.timeout(600)
async def test_every_check_of_scim_test_succeeds() -> None:
    async with scim_plane.running() as client:
        scim = Path(sys.executable).with_name("scim")
        process = await asyncio.create_subprocess_exec(
            scim, "--url", f"http://127.0.0.1:{client.plane.port}/scim/v2", "test",
            env={**os.environ, "SCIM_CLI_HEADERS": f"Authorization: Bearer {client.key}", "NO_COLOR": "1"},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(process.communicate(), 540)
        told = output.decode()
        results = re.findall(
            r"^(SUCCESS|COMPLIANT|ACCEPTABLE|SKIPPED|ERROR|CRITICAL|DEVIATION)\b.*", told, re.MULTILINE
        )
        assert process.returncode == 0, told
        assert set(results) == {"SUCCESS"}, told
        assert len(results) >= 130
