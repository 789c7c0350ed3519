"""A running gateway behind a proxy: a listed proxy's forwarded address decides the zone, no other does."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from support.installation import Installation, SlowLLM, wait_until

POLICIES = """
@id("from-the-office-in-germany")
permit (principal is Doorward::User, action, resource is Doorward::Model)
when { context.network.zone == "office" && context.network has country && context.network.country == "DE" };
"""
ORG = """
users: { ada: {} }
zones: { office: { networks: [10.0.0.0/8], country: DE } }
assets:
  Model::"llm/m": { owner: ada, sensitivity: 0, environment: production }
"""


async def statuses(installation: Installation, key: str, forwarded: list[str]) -> list[int]:
    found = []
    async with aiohttp.ClientSession() as session:
        for value in forwarded:
            headers = {"Authorization": f"Bearer {key}"} | ({"X-Forwarded-For": value} if value else {})
            async with session.post(
                f"{installation.url}/llm/v1/chat/completions",
                json={"model": "m", "messages": []},
                headers=headers,
            ) as answer:
                found.append(answer.status)
    return found


@pytest.mark.parametrize("listed", [True, False])
def test_a_forwarded_address_counts_only_of_a_listed_proxy(listed: bool) -> None:  # noqa: FBT001 -- a case
    environment = {"DOORWARD_GATEWAY__PROXIES": '["127.0.0.1"]'} if listed else {}
    with SlowLLM() as llm:
        llm.answer_now()
        upstream = f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{llm.port}"\n'
        with Installation(upstreams=upstream, org=ORG, policies=POLICIES, environment=environment) as made:
            installation = made.start()
            key = installation.key("ada")["key"]
            forwarded = ["", "10.1.2.3", "10.1.2.3, 203.0.113.9", "203.0.113.9, 10.1.2.3", "nonsense"]
            found = asyncio.run(statuses(installation, key, forwarded))
            inside = [403, 200, 403, 200, 400]
            assert [200 if one == 200 else 400 if one == 400 else 403 for one in found] == (
                inside if listed else [403] * 5
            )
            if listed:
                wait_until(
                    lambda: any(
                        record.get("network", {}).get("ip") == "10.1.2.3"
                        and record["network"].get("proxy") == "127.0.0.1"
                        for record in installation.records()
                    ),
                    what="the record names the caller and the proxy",
                )
