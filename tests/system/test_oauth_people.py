"""People sign in through a program: by a code and PKCE, by a device's code, continued by refresh tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from joserfc.jwk import ECKey

from doorward.core.errors import UnauthenticatedError
from doorward.core.model import EntityUid
from doorward.directory.org import parse
from support.browser_client import BrowserClient
from support.console_people import enrolled, opened, sign_in
from support.oauth_people import CALLBACK, Program, answers, code_of, sends, ticket_in, told
from support.oauth_plane import ACCESS, EXCHANGE, GATE, OAuth, claims_of, issuing, proof
from support.soft_passkey import SoftPasskey

ADMIN = EntityUid.of("User", "admin")
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


@pytest.fixture
async def oauth() -> AsyncIterator[OAuth]:
    async with issuing() as oauth:
        yield oauth


@pytest.fixture
async def person(oauth: OAuth) -> tuple[BrowserClient, SoftPasskey]:
    return await enrolled(oauth.plane)


@pytest.fixture
def browser(person: tuple[BrowserClient, SoftPasskey]) -> BrowserClient:
    return person[0]


@pytest.fixture
def program(oauth: OAuth) -> Program:
    return Program(oauth)


class TestTheCodeGrant:
    async def test_a_person_lets_a_program_act_and_her_passkey_counts_as_mfa(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        page = await browser.get(program.address(), accept="text/html")
        assert "User::&#34;admin&#34;" in page.text
        assert "form-action 'self' http://127.0.0.1:5005;" in page.header("content-security-policy")
        back = told(await sends(browser, "/oauth/authorize", ticket=ticket_in(page), answer="allow"))
        assert (back["state"], back["iss"]) == (program.state, oauth.issuer)
        said = await program.redeem(back["code"])
        claims = claims_of(said.token)
        assert (claims["sub"], claims["aud"], claims["client_id"]) == (str(ADMIN), GATE, "doorward-cli")
        assert (claims["acr"], claims["amr"]) == ("aal2", ["hwk", "user", "mfa"])
        caller = await oauth.caller(said.token)
        assert (caller.principal, caller.minted) == (ADMIN, False)
        assert caller.mfa_at is not None
        assert said.json["refresh_token"].startswith("dr_")
        assert claims["auth_time"] <= claims["iat"]

    async def test_a_code_used_50_times_at_once_works_once_and_what_came_of_it_ends(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        code = await code_of(program, browser)
        said = await asyncio.gather(*(program.redeem(code) for _ in range(50)))
        assert sorted(one.status for one in said) == [200] + [400] * 49
        assert {one.json["error"] for one in said if one.status == 400} == {"invalid_grant"}
        (won,) = (one for one in said if one.status == 200)
        with pytest.raises(UnauthenticatedError) as refused:
            await oauth.caller(won.token)
        assert refused.value.reason == "ancestor_revoked"
        assert (await program.refresh(won.json["refresh_token"])).error == (400, "invalid_grant")

    @pytest.mark.parametrize(
        "changes",
        [
            {"code_verifier": ...},
            {"code_verifier": "x" * 43},
            {"code_verifier": "short"},
            {"redirect_uri": "http://127.0.0.1:5006/callback"},
        ],
    )
    async def test_a_stolen_code_is_worth_nothing_and_is_used_up_by_the_try(
        self, program: Program, browser: BrowserClient, changes: dict[str, Any]
    ) -> None:
        code = await code_of(program, browser)
        assert (await program.redeem(code, **changes)).error == (400, "invalid_grant")
        assert (await program.redeem(code)).error == (400, "invalid_grant")

    async def test_a_code_is_not_another_clients(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        code = await code_of(program, browser)
        key, _ = oauth.key("Service", "etl")
        fields = {"grant_type": "authorization_code", "code": code, "code_verifier": program.verifier}
        said = await oauth.token(basic=("service/etl", key), **fields)
        assert said.error == (400, "unauthorized_client")

    @pytest.mark.parametrize(
        "redirect",
        [
            "http://127.0.0.1:5005/callback/", "http://127.0.0.1:5005/callback?x=1", "http://127.0.0.1/callback",
            "http://127.0.0.1:5005/Callback", "http://localhost:5005/callback", "http://evil.example/callback",
            "http://127.0.0.1:5005@evil.example/callback", "http://127.0.0.1:5005\\@evil.example/callback",
            "http://127.0.0.1.evil.example:5005/callback", "https://127.0.0.1:5005/callback",
            "http://127.0.0.1:99999/callback", "http://127.0.0.1:05005/callback", "http://127.1:5005/callback",
            "http://127.0.0.1:5005/callback#x", "http://127.0.0.1:5005/a/../callback", "javascript:alert(1)",
            "http://127.0.0.1:5005/callback\r\nX: y", "urn:ietf:wg:oauth:2.0:oob",
            "//127.0.0.1:5005/callback",
            "http://[::1]:5005/callback", "http://127.0.0.1:5005/%63allback", ...,
        ],
    )  # fmt: skip
    async def test_no_other_address_is_ever_sent_to(
        self, program: Program, browser: BrowserClient, redirect: Any
    ) -> None:
        answer = await browser.get(program.address(redirect_uri=redirect), accept="text/html")
        assert (answer.status, answer.header("location")) == (400, "")
        other = await browser.get(program.address(client_id="service/etl"), accept="text/html")
        assert (other.status, other.header("location")) == (400, "")

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"code_challenge": ...}, "invalid_request"),
            ({"code_challenge_method": ...}, "invalid_request"),
            ({"code_challenge_method": "plain"}, "invalid_request"),
            ({"code_challenge": "x"}, "invalid_request"),
            ({"response_type": "token"}, "unsupported_response_type"),
            ({"response_type": "code id_token"}, "unsupported_response_type"),
            ({"response_type": ...}, "invalid_request"),
            ({"response_mode": "fragment"}, "invalid_request"),
            ({"request": "a.b.c"}, "request_not_supported"),
            ({"request_uri": "https://evil.example"}, "request_uri_not_supported"),
            ({"scope": "everything"}, "invalid_scope"),
            ({"resource": "https://evil.example"}, "invalid_target"),
            ({"authorization_details": "x"}, "invalid_authorization_details"),
            ({"max_age": "soon"}, "invalid_request"),
        ],
    )
    async def test_what_is_wrong_goes_back_to_the_program_with_the_issuer(
        self, oauth: OAuth, program: Program, browser: BrowserClient, changes: dict[str, Any], error: str
    ) -> None:
        back = told(await browser.get(program.address(**changes), accept="text/html"))
        assert (back["error"], back["state"], back["iss"]) == (error, program.state, oauth.issuer)
        assert "code" not in back

    async def test_parameters_given_twice_are_told_to_the_person_alone(
        self, program: Program, browser: BrowserClient
    ) -> None:
        for twice in ("client_id=doorward-cli", f"redirect_uri={CALLBACK}", "state=other"):
            answer = await browser.get(f"{program.address()}&{twice}", accept="text/html")
            assert (answer.status, answer.header("location")) == (400, "")

    async def test_a_refusal_on_the_page_is_a_refusal(self, program: Program, browser: BrowserClient) -> None:
        back = told(await answers(browser, program.address(), answer="deny"))
        assert (back["error"], "code" in back) == ("access_denied", False)

    async def test_who_is_not_signed_in_signs_in_first_and_comes_back(
        self, oauth: OAuth, program: Program
    ) -> None:
        stranger = BrowserClient(oauth.plane.port)
        answer = await stranger.get(program.address(), accept="text/html")
        assert answer.status == 303
        assert answer.header("location").startswith(f"{oauth.plane.url}/sign-in?next=%2Foauth%2Fauthorize%3F")
        silent = await stranger.get(program.address(prompt="none"), accept="text/html")
        assert told(silent)["error"] == "login_required"
        looking = await opened(oauth.plane)  # a session without a user
        assert (await looking.get(program.address(), accept="text/html")).status == 303

    async def test_a_page_answers_once_and_only_to_its_own_session(
        self, oauth: OAuth, program: Program, person: tuple[BrowserClient, SoftPasskey]
    ) -> None:
        browser, passkey = person
        ticket = ticket_in(await browser.get(program.address(), accept="text/html"))
        other = BrowserClient(oauth.plane.port)
        assert await sign_in(other, passkey) == 204
        stolen = await sends(other, "/oauth/authorize", ticket=ticket, answer="allow")
        assert (stolen.status, stolen.header("location")) == (400, "")
        again = await sends(browser, "/oauth/authorize", ticket=ticket, answer="allow")
        assert (again.status, again.header("location")) == (400, "")

    async def test_another_site_cannot_answer_for_her(self, program: Program, browser: BrowserClient) -> None:
        ticket = ticket_in(await browser.get(program.address(), accept="text/html"))
        form = {"content_type": "application/x-www-form-urlencoded"}
        for headers in (
            {"origin": "http://evil.example", "sec_fetch_site": "cross-site"},
            {"origin": "http://127.0.0.1:5005", "sec_fetch_site": "cross-site"},
            {"origin": "", "sec_fetch_site": "same-site"},
        ):
            body = f"ticket={ticket}&answer=allow"
            answer = await browser.send("POST", "/oauth/authorize", body, **form, **headers)
            assert answer.status == 403
        framed = await browser.get(
            program.address(), sec_fetch_dest="iframe", sec_fetch_mode="navigate", sec_fetch_site="cross-site"
        )
        assert framed.status == 403

    async def test_a_sign_in_that_is_too_old_is_made_anew(
        self, program: Program, person: tuple[BrowserClient, SoftPasskey]
    ) -> None:
        browser, passkey = person
        while (await browser.get(program.address(max_age=0), accept="text/html")).status == 200:
            await asyncio.sleep(0.05)  # within the very second of the sign-in
        assert (await browser.get(program.address(max_age=0), accept="text/html")).status == 303
        assert (await browser.get(program.address(max_age=3600), accept="text/html")).status == 200
        assert await sign_in(browser, passkey) == 204
        assert (await browser.get(program.address(max_age=30), accept="text/html")).status == 200

    async def test_a_code_for_several_resources_gives_a_token_for_one_at_a_time(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        code = await code_of(program, browser, resource=[oauth.issuer, f"{GATE}/llm"])
        said = await program.redeem(code, resource=f"{GATE}/llm/mcp")
        assert claims_of(said.token)["aud"] == f"{GATE}/llm/mcp"
        again = await program.refresh(said.json["refresh_token"], resource=oauth.issuer)
        assert claims_of(again.token)["aud"] == oauth.issuer
        for elsewhere in (GATE, f"{GATE}/store", "https://evil.example"):
            wider = await program.refresh(again.json["refresh_token"], resource=elsewhere)
            assert wider.error == (400, "invalid_target")

    async def test_a_code_bound_to_a_key_needs_it_and_binds_what_comes_of_it(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        key, endpoint = ECKey.generate_key("P-256"), f"{oauth.issuer}/oauth/token"
        code = await code_of(program, browser, dpop_jkt=key.thumbprint())
        other = ECKey.generate_key("P-256")
        assert (await program.redeem(code, dpop=proof(other, endpoint))).error == (400, "invalid_grant")
        code = await code_of(program, browser, dpop_jkt=key.thumbprint())
        said = await program.redeem(code, dpop=proof(key, endpoint))
        assert said.json["token_type"] == "DPoP"
        refresh = said.json["refresh_token"]
        assert (await program.refresh(refresh)).error == (400, "invalid_grant")
        assert (await program.refresh(refresh, dpop=proof(other, endpoint))).error == (400, "invalid_grant")
        assert (await program.refresh(refresh, dpop=proof(key, endpoint))).json["token_type"] == "DPoP"

    async def test_limits_asked_for_hold_for_every_token_of_the_sign_in(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        details = json.dumps([{"type": "doorward", "upstreams": ["llm"]}])
        code = await code_of(program, browser, scope="invoke view", authorization_details=details)
        said = await program.redeem(code)
        assert said.json["scope"] == "view invoke"
        narrower = await program.refresh(said.json["refresh_token"], scope="view")
        assert narrower.json["scope"] == "view"
        again = await program.refresh(narrower.json["refresh_token"])
        assert again.json["scope"] == "view invoke"
        (bounds,) = (await oauth.caller(again.token)).bounds
        assert (bounds.actions, bounds.upstreams) == (("invoke", "view"), ("llm",))
        wider = await program.refresh(again.json["refresh_token"], scope="export")
        assert wider.error == (400, "invalid_scope")


class TestRefreshTokens:
    async def test_each_works_once_and_a_stolen_one_ends_the_sign_in(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        first = await program.redeem(await code_of(program, browser))
        second = await program.refresh(first.json["refresh_token"])
        assert second.json["refresh_token"] != first.json["refresh_token"]
        third = await program.refresh(second.json["refresh_token"])
        await oauth.caller(third.token)
        # Whoever took the first one, and whoever holds the newest: both are out.
        assert (await program.refresh(first.json["refresh_token"])).error == (400, "invalid_grant")
        assert (await program.refresh(third.json["refresh_token"])).error == (400, "invalid_grant")
        for said in (first, second, third):
            with pytest.raises(UnauthenticatedError):
                await oauth.caller(said.token)
        log = b"".join(file.read_bytes() for file in (oauth.plane.data / "audit").rglob("*.jsonl"))
        alerts = [json.loads(line) for line in log.splitlines() if b'"kind":"alert"' in line]
        assert [(one["code"], one["principal"]) for one in alerts] == [("refresh_token_reused", str(ADMIN))]
        for said in (first, second, third):
            assert said.json["refresh_token"].encode() not in log

    async def test_one_used_50_times_at_once_works_once(
        self, program: Program, browser: BrowserClient
    ) -> None:
        token = (await program.redeem(await code_of(program, browser))).json["refresh_token"]
        said = await asyncio.gather(*(program.refresh(token) for _ in range(50)))
        assert sum(one.status == 200 for one in said) == 1

    async def test_it_survives_a_restart_hashed(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        token = (await program.redeem(await code_of(program, browser))).json["refresh_token"]
        state = b"".join(file.read_bytes() for file in oauth.plane.data.glob("state.db*"))
        assert token.encode() not in state
        assert (await program.refresh(token)).status == 200

    async def test_what_ends_the_person_ends_it(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        directory, clock = oauth.plane.services.directory, oauth.plane.services.clock
        said = await program.redeem(await code_of(program, browser))
        directory.sign_out(ADMIN, before=clock.now(), mfa_only=True)
        without = await program.refresh(said.json["refresh_token"])
        assert ("acr" in claims_of(without.token), "amr" in claims_of(without.token)) == (False, False)
        assert (await oauth.caller(said.token)).mfa_at is None
        directory.sign_out(ADMIN, before=clock.now())
        assert (await program.refresh(without.json["refresh_token"])).error == (400, "invalid_grant")
        with pytest.raises(UnauthenticatedError):
            await oauth.caller(without.token)

    async def test_revoking_it_ends_the_sign_in_and_what_agents_made_of_it(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        said = await program.redeem(await code_of(program, browser))
        key, _ = oauth.key("Agent", "scout")
        lent = await oauth.exchange(said.token, key)
        caller = await oauth.caller(lent.token)
        assert (caller.principal, caller.actors) == (ADMIN, (EntityUid.of("Agent", "scout"),))
        assert caller.mfa_at is not None
        nobody = await oauth.post("/oauth/revoke", {"token": said.json["refresh_token"]})
        assert nobody.error == (401, "invalid_client")
        fields = {"token": said.json["refresh_token"], "client_id": "doorward-cli"}
        assert (await oauth.post("/oauth/revoke", fields)).status == 200
        for token in (said.token, lent.token):
            with pytest.raises(UnauthenticatedError):
                await oauth.caller(token)
        assert (await program.refresh(said.json["refresh_token"])).error == (400, "invalid_grant")

    async def test_it_is_no_subject_token(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        said = await program.redeem(await code_of(program, browser))
        key, _ = oauth.key("Agent", "scout")
        refused = await oauth.exchange(said.json["refresh_token"], key)
        assert refused.error == (400, "invalid_request")

    async def test_guessing_ends_nobodys_sign_in(self, program: Program, browser: BrowserClient) -> None:
        said = await program.redeem(await code_of(program, browser))
        for guess in ("dr_x", "dr_" + "a" * 43, said.json["refresh_token"][:-1]):
            assert (await program.refresh(guess)).error == (400, "invalid_grant")
        assert (await program.refresh(said.json["refresh_token"])).status == 200


class TestDevices:
    async def asked(self, oauth: OAuth, **more: Any) -> dict[str, Any]:
        said = await oauth.post("/oauth/device_authorization", {"client_id": "doorward-cli", **more})
        assert said.status == 200, said.body
        return dict(said.json)

    async def poll(self, oauth: OAuth, code: str, **more: Any) -> Any:
        return await oauth.token(grant_type=DEVICE, device_code=code, client_id="doorward-cli", **more)

    async def test_a_person_types_the_code_in_and_the_device_is_signed_in_once(
        self, oauth: OAuth, browser: BrowserClient
    ) -> None:
        device = await self.asked(oauth, resource=[oauth.issuer, GATE])
        assert (device["interval"], device["expires_in"]) == (5, 600)
        assert device["verification_uri"] == f"{oauth.plane.url}/oauth/device"
        assert (await self.poll(oauth, device["device_code"])).error == (400, "authorization_pending")
        assert (await self.poll(oauth, device["device_code"])).error == (400, "slow_down")
        shown = await browser.get(
            device["verification_uri_complete"].removeprefix(oauth.plane.url), accept="text/html"
        )
        assert f'value="{device["user_code"].replace("-", "")}"' in shown.text
        page = await sends(browser, "/oauth/device", user_code=device["user_code"].lower())
        assert device["user_code"] in page.text
        done = await sends(browser, "/oauth/device", ticket=ticket_in(page), answer="allow")
        assert "Signed in" in done.text
        said = await asyncio.gather(*(self.poll(oauth, device["device_code"]) for _ in range(50)))
        assert sum(one.status == 200 for one in said) == 1
        (won,) = (one for one in said if one.status == 200)
        assert claims_of(won.token)["sub"] == str(ADMIN)
        assert claims_of(won.token)["aud"] == oauth.issuer
        assert won.json["refresh_token"]
        again = await sends(browser, "/oauth/device", user_code=device["user_code"])
        assert again.status == 400

    async def test_a_refusal_is_told_to_the_device(self, oauth: OAuth, browser: BrowserClient) -> None:
        device = await self.asked(oauth)
        page = await sends(browser, "/oauth/device", user_code=device["user_code"])
        await sends(browser, "/oauth/device", ticket=ticket_in(page), answer="deny")
        assert (await self.poll(oauth, device["device_code"])).error == (400, "access_denied")
        assert (await self.poll(oauth, device["device_code"])).error == (400, "expired_token")

    async def test_codes_are_not_guessed(self, oauth: OAuth, browser: BrowserClient) -> None:
        device = await self.asked(oauth)
        statuses = [
            (await sends(browser, "/oauth/device", user_code=f"BBBB-BBB{letter}")).status
            for letter in "BCDFGHJ"
        ]
        assert statuses == [400] * 5 + [429] * 2
        assert (await sends(browser, "/oauth/device", user_code=device["user_code"])).status == 429

    async def test_nobody_answers_without_being_signed_in(self, oauth: OAuth) -> None:
        device = await self.asked(oauth)
        stranger = BrowserClient(oauth.plane.port)
        assert (await stranger.get("/oauth/device", accept="text/html")).status == 303
        answer = await sends(stranger, "/oauth/device", user_code=device["user_code"])
        assert answer.status == 303

    async def test_a_device_that_is_unknown_is_told_that_it_is_over(self, oauth: OAuth) -> None:
        assert (await self.poll(oauth, "unknown")).error == (400, "expired_token")

    async def test_one_address_starts_a_few_at_a_time(self, oauth: OAuth) -> None:
        fields = {"client_id": "doorward-cli"}
        statuses = [(await oauth.post("/oauth/device_authorization", fields)).status for _ in range(22)]
        assert statuses == [200] * 20 + [429] * 2
        key, _ = oauth.key("Service", "etl")
        assert key


class TestManagement:
    async def api(self, oauth: OAuth, path: str, token: str, method: str = "GET", **headers: str) -> Any:
        browser = BrowserClient(oauth.plane.port)
        bare = {"sec_fetch_site": "", "origin": "", **headers}
        return await browser.send(method, path, "{}" if method == "POST" else None,
                                  authorization=f"Bearer {token}", **bare)  # fmt: skip

    async def token(self, oauth: OAuth, program: Program, browser: BrowserClient) -> str:
        code = await code_of(program, browser, resource=oauth.issuer)
        return (await program.redeem(code)).token

    async def test_a_sign_in_with_mfa_governs_as_policies_say(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        token = await self.token(oauth, program, browser)
        assert (await self.api(oauth, "/api/v1/people", token)).status == 200
        made = await self.api(oauth, "/api/v1/keys", token, "POST", content_type="application/json")
        assert made.status == 400  # it was let in, and says what the request lacks
        log = b"".join(file.read_bytes() for file in (oauth.plane.data / "audit").rglob("*.jsonl"))
        assert b'"via":"token"' in log

    async def test_without_mfa_or_the_right_nothing_is_governed(self, oauth: OAuth) -> None:
        oauth.plane.services.directory.apply(parse("users: { omar: { roles: [admin] } }", "x"))
        for name in ("omar", "dana"):  # minted: no MFA; dana: no role
            token = oauth.mint(name, audience=oauth.issuer)
            assert (await self.api(oauth, "/api/v1/people", token)).status == 403

    async def test_a_token_for_something_else_does_not_open_it(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        code = await code_of(program, browser)
        gateway = (await program.redeem(code)).token
        key, _ = oauth.key("User", "admin")
        for token in (gateway, key, "nonsense", "a.b.c"):
            answer = await self.api(oauth, "/api/v1/people", token)
            assert answer.status == 401
            assert 'resource_metadata="' in answer.header("www-authenticate")

    async def test_an_agent_does_not_govern_with_a_token_it_was_lent(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        token = await self.token(oauth, program, browser)
        key, _ = oauth.key("Agent", "scout")
        lent = await oauth.exchange(token, key)
        assert claims_of(lent.token)["aud"] == oauth.issuer
        assert (await self.api(oauth, "/api/v1/people", lent.token)).status == 403
        asked = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS}
        for_gate = await oauth.token(basic=("agent/scout", key), **asked, resource=GATE)
        assert for_gate.error == (400, "invalid_target")

    async def test_revoking_it_shuts_the_door_at_once(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        token = await self.token(oauth, program, browser)
        assert (await self.api(oauth, "/api/v1/people", token)).status == 200
        fields = {"token": token, "client_id": "doorward-cli"}
        assert (await oauth.post("/oauth/revoke", fields)).status == 200
        assert (await self.api(oauth, "/api/v1/people", token)).status == 401

    async def test_a_token_and_a_session_at_once_are_refused(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        token = await self.token(oauth, program, browser)
        answer = await browser.get("/api/v1/people", authorization=f"Bearer {token}")
        assert answer.status == 400

    async def test_limits_of_the_token_hold(
        self, oauth: OAuth, program: Program, browser: BrowserClient
    ) -> None:
        code = await code_of(program, browser, resource=oauth.issuer, scope="inspect")
        token = (await program.redeem(code)).token
        assert (await self.api(oauth, "/api/v1/people", token)).status == 200
        denied = await self.api(oauth, "/api/v1/keys", token, "POST", content_type="application/json")
        assert denied.status == 403
        assert "not for issue" in denied.json["detail"]

    async def test_it_describes_itself_as_a_resource(self, oauth: OAuth) -> None:
        browser = BrowserClient(oauth.plane.port)
        told_of = (await browser.get("/.well-known/oauth-protected-resource")).json
        assert (told_of["resource"], told_of["authorization_servers"]) == (oauth.issuer, [oauth.issuer])
