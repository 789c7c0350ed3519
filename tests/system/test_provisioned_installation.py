"""A running installation, provisioned: joiners are let in, movers judged anew, leavers cut off."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from support import ldap_servers
from support.installation import Installation, SlowLLM, wait_until
from support.ldap_servers import PASSWORD, SLAPD, Server
from support.scim_plane import DEVICE, GROUP, PATCH, POSTURE, USER

POLICIES = """
@id("staff-invokes")
permit (principal is Doorward::User in Doorward::Role::"staff", action, resource is Doorward::Model)
when { action == Doorward::Action::"invoke" || action == Doorward::Action::"view" };
@id("no-contractors")
forbid (principal is Doorward::User, action, resource is Doorward::Model)
when { principal.employment == "contractor" };
@id("only-from-known-good-devices")
forbid (principal is Doorward::User, action == Doorward::Action::"invoke", resource is Doorward::Model)
when { context.device.known && !context.device.compliant };
@id("provisioners-provision")
permit (
  principal is Doorward::Service in Doorward::Role::"provisioner",
  action in [Doorward::Action::"inspect", Doorward::Action::"assign"],
  resource == Doorward::Control::"directory"
);
"""
ORG = """
users: { ada: { roles: [staff] } }
services: { idp: { roles: [provisioner], environment: production } }
assets:
  Model::"llm/m": { owner: ada, sensitivity: 1, environment: production }
"""
SCIM = '[[provisioning]]\nservice = "idp"\nroles = { staff = ["staff"] }\n'
TRIES = 5


@pytest.fixture
def llm() -> Iterator[SlowLLM]:
    with SlowLLM() as running:
        running.answer_now()
        yield running


def upstream(llm: SlowLLM) -> str:
    return f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{llm.port}"\n'


class Scim:
    def __init__(self, installation: Installation, session: aiohttp.ClientSession, key: str) -> None:
        self.url = f"http://127.0.0.1:{installation.control_port}/scim/v2"
        self.session = session
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/scim+json"}

    async def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        async with self.session.request(method, self.url + path, json=body, headers=self.headers) as answer:
            assert answer.status < 300, await answer.text()
            return dict(await answer.json(content_type=None)) if answer.status != 204 else {}

    async def replace(self, path: str, attribute: str, value: object) -> None:
        operation = {"op": "replace", "path": attribute, "value": value}
        await self.send("PATCH", path, {"schemas": [PATCH], "Operations": [operation]})


async def ask(session: aiohttp.ClientSession, installation: Installation, key: str) -> int:
    async with session.post(
        f"{installation.url}/llm/v1/chat/completions",
        json={"model": "m", "messages": []},
        headers={"Authorization": f"Bearer {key}"},
    ) as answer:
        return answer.status


async def seconds_until_cut(
    session: aiohttp.ClientSession, installation: Installation, key: str, act: Any
) -> float:
    """Open a stream, do something, and return how many seconds later the stream ended."""
    async with session.post(
        f"{installation.url}/llm/v1/chat/completions",
        json={"model": "m", "messages": [], "stream": True},
        headers={"Authorization": f"Bearer {key}"},
    ) as answer:
        assert answer.status == 200, await answer.text()
        assert await answer.content.read(10)
        await act()
        began = time.monotonic()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
        return time.monotonic() - began


def test_scim_lets_in_judges_anew_and_cuts_off_within_a_second(llm: SlowLLM) -> None:
    with Installation(upstreams=upstream(llm), org=ORG, policies=POLICIES, extra=SCIM) as made:
        installation = made.start()
        client_key = installation.cli("key", "create", "--service", "idp", "--json")
        asyncio.run(_scim_story(installation, json.loads(client_key)["key"]))


async def _scim_story(installation: Installation, client_key: str) -> None:
    async with aiohttp.ClientSession() as session:
        scim = Scim(installation, session, client_key)
        dana = await scim.send("POST", "/Users", {"schemas": [USER], "userName": "dana"})
        place = f"/Users/{dana['id']}"
        key = (await asyncio.to_thread(installation.key, "dana"))["key"]
        assert await ask(session, installation, key) == 404  # she sees nothing yet
        staff = {"schemas": [GROUP], "displayName": "staff", "members": [{"value": dana["id"]}]}
        group = await scim.send("POST", "/Groups", staff)
        assert await ask(session, installation, key) == 200

        for _ in range(TRIES):
            cut = await seconds_until_cut(
                session, installation, key, lambda: scim.replace(place, "active", value=False)
            )
            assert cut < 1.0
            assert await ask(session, installation, key) == 401
            await scim.replace(place, "active", value=True)
            assert await ask(session, installation, key) == 200
        # A mover: her role goes with the group, her stream with the role.
        members = f"/Groups/{group['id']}"
        assert await seconds_until_cut(
            session, installation, key, lambda: scim.replace(members, "members", [])
        ) < 1.0  # fmt: skip
        await scim.replace(members, "members", [{"value": dana["id"]}])
        assert await seconds_until_cut(
            session, installation, key, lambda: scim.replace(place, "userType", "Contractor")
        ) < 1.0  # fmt: skip
        await scim.replace(place, "userType", "Employee")
        await _posture_story(installation, session, scim)
        # A leaver: the key is no key any more.
        assert await seconds_until_cut(
            session, installation, key, lambda: scim.send("DELETE", place)
        ) < 1.0  # fmt: skip
        assert await ask(session, installation, key) == 401
        listed = await asyncio.to_thread(installation.cli, "key", "list", "--json")
        assert "dana" not in listed


async def _posture_story(installation: Installation, session: aiohttp.ClientSession, scim: Scim) -> None:
    body = {"schemas": [DEVICE, POSTURE], "displayName": "laptop", "active": True}
    body[POSTURE] = {"compliant": True}
    laptop = await scim.send("POST", "/Devices", body)
    bound = await asyncio.to_thread(installation.key, "dana", "--device", "laptop")
    cut = await seconds_until_cut(
        session,
        installation,
        bound["key"],
        lambda: scim.replace(f"/Devices/{laptop['id']}", f"{POSTURE}:compliant", value=False),
    )
    assert cut < 1.0
    assert await ask(session, installation, bound["key"]) in {403, 404}


@pytest.mark.skipif(SLAPD is None, reason="slapd is not installed: make setup-system")
def test_a_followed_directory_lets_in_and_cuts_off(llm: SlowLLM) -> None:
    with ldap_servers.slapd() as server:
        extra = (
            f'[[directory_source]]\nname = "corp"\nserver = "openldap"\nurl = "{server.url}"\n'
            f'ca = "{server.ca}"\n'
            f'bind_dn = "{server.bind_dn}"\npassword = "${{LDAP_PASSWORD}}"\nbase = "{server.base}"\n'
            'roles = { staff = ["staff"] }\n'
        )
        environment = {"LDAP_PASSWORD": PASSWORD}
        with Installation(
            upstreams=upstream(llm), org=ORG, policies=POLICIES, extra=extra, environment=environment
        ) as made:
            asyncio.run(_ldap_story(made.start(), server))


async def _ldap_story(installation: Installation, server: Server) -> None:
    dana = server.person("dana")
    server.group("staff", dana)
    await asyncio.to_thread(
        wait_until, lambda: '"dana"' in installation.cli("people", "list", "--json"), seconds=20
    )
    key = (await asyncio.to_thread(installation.key, "dana"))["key"]
    async with aiohttp.ClientSession() as session:
        assert await ask(session, installation, key) == 200

        async def leaves() -> None:
            server.delete(dana)

        # One look at the directory each second, then a second for the stream.
        assert await seconds_until_cut(session, installation, key, leaves) < 5.0
        assert await ask(session, installation, key) == 401
    told = await asyncio.to_thread(installation.cli, "people", "sources")
    assert "ldap:corp" in told
    server.process.kill()
    await asyncio.to_thread(
        wait_until, lambda: "cannot be reached" in installation.cli("people", "sources", "--json"), seconds=20
    )
