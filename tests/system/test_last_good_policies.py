"""What stays out of the log, and what operators are told while newer policies are refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import aiohttp
import pytest

from support.installation import Installation

POLICIES = """
@id("staff-views")
permit (principal is Doorward::User, action == Doorward::Action::"view", resource is Doorward::Model);
"""
UPSTREAM = '[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:1"\n'


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with Installation(upstreams=UPSTREAM, org="users: { ada: {} }\n", policies=POLICIES) as made:
        yield made.start()


def test_a_key_in_a_path_is_refused_and_never_written_down(installation: Installation) -> None:
    key = installation.key("ada")["key"]

    async def misplaced() -> int:
        url = f"{installation.url}/llm/v1/{key}"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers={"Authorization": f"Bearer {key}"}) as answer,
        ):
            return answer.status

    assert asyncio.run(misplaced()) == 403
    secret = key.removeprefix("dw_").encode()
    files = [file for file in (installation.data / "audit").rglob("*") if file.is_file()]
    assert any(b"/llm/v1/dw_" in file.read_bytes() for file in files)
    assert not [file for file in files if secret in file.read_bytes()]


def test_readyz_says_while_newer_policies_are_refused(installation: Installation) -> None:
    async def told(role: str, *, expected: bool) -> None:
        connector = aiohttp.UnixConnector(str(installation.data / f"{role}.sock"))
        async with aiohttp.ClientSession(connector=connector) as session:
            for _ in range(300):
                async with session.get("http://x/readyz") as answer:
                    if json.loads(await answer.text())["policies_refused"] is expected:
                        return
                await asyncio.sleep(0.1)
        raise AssertionError(f"{role} does not say policies_refused = {expected}")

    async def both(*, expected: bool) -> None:
        await asyncio.gather(told("control", expected=expected), told("gateway", expected=expected))

    asyncio.run(both(expected=False))
    broken = installation.folder / "policies" / "broken.cedar"
    broken.write_text("permit (")
    try:
        asyncio.run(both(expected=True))
    finally:
        broken.unlink()
    asyncio.run(both(expected=False))
