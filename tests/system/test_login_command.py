"""`doorward login` against a running installation: by a code, by a browser, and what commands then may."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from doorward.cli.connection import call
from support.browser_client import BrowserClient
from support.console_people import enrolled
from support.installation import Installation, SlowLLM, wait_until
from support.oauth_people import sends, ticket_in
from support.oauth_plane import claims_of

ORG = """
users:
  admin: { roles: [admin, data-scientist] }
agents:
  scout: { owner: admin, roles: [data-scientist] }
assets:
  Model::"llm/m": { sensitivity: 1, environment: production }
"""
POLICIES = """
@id("admin-governs")
permit(principal is Doorward::User in Doorward::Role::"admin", action in Doorward::Action::"govern", resource)
  when { context.session.mfa };
@id("scientists-invoke")
permit(principal in Doorward::Role::"data-scientist",
  action in [Doorward::Action::"invoke", Doorward::Action::"view"], resource is Doorward::Model);
"""
ADMIN = 'User::"admin"'


@dataclass
class House:
    """An installation with a person before her browser, and another machine she works on."""

    installation: Installation
    browser: BrowserClient
    home: Path
    words: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.installation.control_port}"

    def elsewhere(self, *words: str, code: int = 0, **environment: str) -> str:
        """Run a command on a machine that has no data directory of its own."""
        result = self.start(*words, **environment)
        out, err = result.communicate(timeout=120)
        assert result.returncode == code, (words, result.returncode, out, err)
        return out + err if code else out

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        kept = {n: v for n, v in os.environ.items() if not n.startswith("DOORWARD_")}
        return subprocess.Popen(
            self.installation.command(*words), cwd=self.home, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={
                **kept, "NO_COLOR": "1", "XDG_CONFIG_HOME": str(self.home), "BROWSER": "true", **environment,
            },
        )  # fmt: skip

    def login(self, *words: str) -> str:
        """Sign in by the code that the command shows."""
        running = self.start("login", self.url, *words)
        assert running.stdout is not None
        line = running.stdout.readline()
        shown = re.search(r"enter the code ([A-Z]{4}-[A-Z]{4})", line)
        assert shown, (line, running.stderr and running.stderr.read() if running.poll() is not None else "")
        asyncio.run(self._type_in(shown[1]))
        out, err = running.communicate(timeout=60)
        assert running.returncode == 0, (out, err)
        return out

    async def _type_in(self, user_code: str) -> None:
        page = await sends(self.browser, "/oauth/device", user_code=user_code)
        done = await sends(self.browser, "/oauth/device", ticket=ticket_in(page), answer="allow")
        assert done.status == 200, done.text

    def chat(self, token: str, **more: Any) -> tuple[int, dict[str, str], http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.installation.gateway_port, timeout=30)
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **more})
        headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        connection.request("POST", "/llm/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer


@pytest.fixture(scope="module")
def llm() -> Iterator[SlowLLM]:
    with SlowLLM() as llm:
        llm.answer_now()
        yield llm


@pytest.fixture(scope="module")
def house(llm: SlowLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    upstream = f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{llm.port}"'
    with Installation(upstreams=upstream, org=ORG, policies=POLICIES) as installation:
        installation.start()

        async def link(kind: str) -> str:
            return str(json.loads(installation.cli("admin", "link", "--json"))["url"] if kind else "")

        plane: Any = SimpleNamespace(port=installation.control_port, link=link)
        browser, _ = asyncio.run(enrolled(plane))
        yield House(installation, browser, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def signed_in(house: House) -> House:
    house.login()
    return house


def test_a_code_signs_in_and_commands_then_reach_the_control_plane(signed_in: House) -> None:
    house = signed_in
    people = json.loads(house.elsewhere("people", "list", "--url", house.url, "--json"))
    assert {one["name"] for one in people} >= {"admin", "scout"}
    made = json.loads(house.elsewhere("key", "create", "--agent", "scout", "--json", DOORWARD_URL=house.url))
    assert made["key"].startswith("dw_")
    house.elsewhere("key", "revoke", made["id"], "--url", house.url)
    records = [r for r in house.installation.records() if r.get("principal") == 'User::"admin"']
    assert any(r.get("changes", {}).get("via") == "token" and r["action"] == "issue" for r in records)


def test_the_sign_in_lies_in_a_file_that_only_its_owner_reads(signed_in: House) -> None:
    file = signed_in.home / "doorward" / "sign-ins.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o644)
    said = signed_in.elsewhere("people", "list", "--url", signed_in.url, code=3)
    assert "chmod 600" in said
    file.chmod(0o600)


def test_a_token_of_ones_own_opens_the_gateway_with_mfa(signed_in: House) -> None:
    token = signed_in.elsewhere("token", "--url", signed_in.url).strip()
    claims = claims_of(token)
    assert (claims["sub"], claims["acr"]) == ('User::"admin"', "aal2")
    assert signed_in.chat(token)[0] == 200
    record = [r for r in signed_in.installation.records() if r.get("kind") == "decision"][-1]
    assert (record["context"]["session"]["mfa"], record["session"]["minted"]) == (True, False)
    assert token not in str(signed_in.installation.records())


def test_commands_at_once_continue_the_sign_in_once(signed_in: House) -> None:
    file = signed_in.home / "doorward" / "sign-ins.json"
    held = json.loads(file.read_text())
    for one in held[signed_in.url]["tokens"].values():
        one["until"] = 0
    file.write_text(json.dumps(held))
    running = [signed_in.start("people", "list", "--url", signed_in.url, "--json") for _ in range(4)]
    outs = [one.communicate(timeout=120) for one in running]
    assert [one.returncode for one in running] == [0] * 4, outs


def test_who_is_not_signed_in_is_told_how(house: House, tmp_path: Path) -> None:
    said = house.elsewhere("people", "list", "--url", house.url, code=1, XDG_CONFIG_HOME=str(tmp_path))
    assert f"doorward login {house.url}" in said
    for url in ("http://example.com", "ftp://127.0.0.1", "https://u@h", f"{house.url}/x"):
        said = house.elsewhere("login", url, code=2)
        assert "no control plane" in said or "no user" in said
    port = house.installation.control_port
    said = house.elsewhere("login", f"http://localhost:{port}", code=8)
    assert f"It calls itself {house.url}" in said
    said = house.elsewhere("people", "list", "--url", house.url, "--data", "elsewhere", code=2)
    assert "--data or --url" in said


def test_a_browser_on_the_same_machine_brings_the_code_back(house: House, tmp_path: Path) -> None:
    running = house.start("login", house.url, "--browser", "--json", XDG_CONFIG_HOME=str(tmp_path))
    assert running.stdout is not None
    running.stdout.readline()
    address = urlsplit(running.stdout.readline().strip())

    async def agree() -> None:
        page = await house.browser.get(f"{address.path}?{address.query}", accept="text/html")
        back = await sends(house.browser, "/oauth/authorize", ticket=ticket_in(page), answer="allow")
        target = urlsplit(back.header("location"))
        # A page of another origin that guesses the port gets nowhere: the state is not its own.
        connection = http.client.HTTPConnection(target.netloc, timeout=10)
        connection.request("GET", "/other?code=x&state=y")
        assert connection.getresponse().status == 404
        connection = http.client.HTTPConnection(target.netloc, timeout=10)
        connection.request("GET", f"{target.path}?{target.query}")
        assert connection.getresponse().status == 200

    asyncio.run(agree())
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, (out, err)
    assert json.loads(out[out.index("{") :])["url"] == house.url
    assert house.elsewhere("logout", house.url, XDG_CONFIG_HOME=str(tmp_path))
    assert "not signed in" in house.elsewhere("logout", house.url, code=1, XDG_CONFIG_HOME=str(tmp_path))


def test_signing_out_ends_it_everywhere(signed_in: House) -> None:
    token = signed_in.elsewhere("token", "--url", signed_in.url).strip()
    assert signed_in.chat(token)[0] == 200
    assert "Signed out" in signed_in.elsewhere("logout", signed_in.url)
    wait_until(lambda: signed_in.chat(token)[0] == 401, seconds=5)
    assert "not signed in" in signed_in.elsewhere("people", "list", "--url", signed_in.url, code=1)


def test_revoking_any_ancestor_ends_requests_and_open_streams_within_a_second(house: House) -> None:
    """Measured over 40 chains: user token -> agent, ended by either token, by the key, and by a sign-out."""
    data = house.installation.data
    slowest = 0.0
    for turn in range(40):
        user = wait_until(partial(working_token, house), what="a sign-in after the sign-out")
        key = call(data, "POST", "/api/v1/keys", {"agent": "scout"})
        lent = exchanged(house, user, key["key"])
        status, _, stream = house.chat(lent, stream=True)
        assert status == 200, stream.read()
        ended: list[float] = []
        reading = threading.Thread(target=drain, args=(stream, ended))
        reading.start()
        match turn % 4:
            case 0:
                revoked(house, user)
            case 1:
                call(data, "DELETE", f"/api/v1/keys/{key['id']}")
            case 2:
                call(data, "POST", f"/api/v1/people/{quote(ADMIN, safe='')}/sign-out", {"mfa_only": False})
            case _:
                revoked(house, lent, ("agent/scout", key["key"]))
        done = time.monotonic()
        refused = partial(house.chat, lent)
        wait_until(lambda ask=refused: ask()[0] == 401, seconds=1, what="the next request is refused")
        reading.join(10)
        assert ended, turn
        slowest = max(slowest, ended[0] - done)
    assert slowest <= 1.0, slowest


def working_token(house: House) -> str | None:
    """Return a new token; one made in the very second of a sign-out counts as made before it."""
    token = call(house.installation.data, "POST", "/api/v1/tokens", {"user": "admin"})["access_token"]
    return str(token) if house.chat(token)[0] == 200 else None


def drain(stream: http.client.HTTPResponse, ended: list[float]) -> None:
    try:
        while stream.read1(65536):
            pass
    except (OSError, http.client.HTTPException):
        pass
    ended.append(time.monotonic())


def exchanged(house: House, user: str, key: str) -> str:
    fields = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": user,
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }  # fmt: skip
    status, said = posted(house, "/oauth/token", fields, ("agent/scout", key))
    assert status == 200, said
    return str(said["access_token"])


def revoked(house: House, token: str, basic: tuple[str, str] | None = None) -> None:
    fields = {"token": token, **({} if basic else {"client_id": "doorward-cli"})}
    assert posted(house, "/oauth/revoke", fields, basic)[0] == 200


def posted(
    house: House, path: str, fields: dict[str, str], basic: tuple[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    from urllib.parse import urlencode  # noqa: PLC0415 -- only here

    from support.oauth_plane import basic_of  # noqa: PLC0415 -- only here

    connection = http.client.HTTPConnection("127.0.0.1", house.installation.control_port, timeout=30)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    headers |= {"Authorization": basic_of(*basic)} if basic else {}
    connection.request("POST", path, urlencode(fields), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_a_stock_client_follows_the_challenge_to_a_token_and_success(house: House) -> None:
    """Authlib, by metadata alone: 401 -> resource metadata -> issuer metadata -> token -> 200."""
    from authlib.integrations.requests_client import OAuth2Session  # noqa: PLC0415 -- the stock client

    status, headers, _ = house.chat("")
    assert status == 401
    named = re.search(r'resource_metadata="([^"]+)"', headers["www-authenticate"])
    assert named
    resource = fetched(named[1])
    (issuer,) = resource["authorization_servers"]
    told = fetched(f"{issuer}/.well-known/oauth-authorization-server")
    assert told["issuer"] == issuer
    key = json.loads(house.installation.cli("key", "create", "--agent", "scout", "--json"))["key"]
    client = OAuth2Session("agent/scout", key, token_endpoint_auth_method="client_secret_basic")
    token = client.fetch_token(
        told["token_endpoint"], grant_type="client_credentials", resource=resource["resource"]
    )
    assert house.chat(token["access_token"])[0] == 200
    user = json.loads(house.installation.cli("token", "--user", "admin", "--json"))["access_token"]
    lent = client.fetch_token(
        told["token_endpoint"],
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token=user,
        subject_token_type="urn:ietf:params:oauth:token-type:access_token",
        resource=resource["resource"],
    )
    assert house.chat(lent["access_token"])[0] == 200
    record = [r for r in house.installation.records() if r.get("kind") == "decision"][-1]
    assert (record["principal"], record["actor"]) == ('User::"admin"', ['Agent::"scout"'])
    assert [check["principal"] for check in record["checks"]] == ['User::"admin"', 'Agent::"scout"']
    # What the agent may no more, nobody may through it.
    house.installation.cli("apply", "-f", str(without_role(house)))
    wait_until(lambda: house.chat(lent["access_token"])[0] in {403, 404}, what="the agent lost its role")
    assert house.chat(user)[0] == 200
    house.installation.cli("apply", "-f", str(house.installation.folder / "org.yaml"))


def without_role(house: House) -> Path:
    file = house.installation.folder / "less.yaml"
    file.write_text("agents: { scout: { owner: admin, roles: [] } }\n")
    return file


def fetched(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("GET", parts.path)
    answer = connection.getresponse()
    assert answer.status == 200, url
    return dict(json.loads(answer.read()))
