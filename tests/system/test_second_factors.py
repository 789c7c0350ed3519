"""Authenticator apps, recovery codes, more passkeys, and sessions that stay where they were opened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pyotp
import pytest

from doorward.console.links import has_admin
from doorward.core.model import EntityUid
from support.browser_client import BrowserClient
from support.console_people import enrolled, sign_in
from support.console_plane import Plane, running
from support.soft_passkey import SoftPasskey

ORG = "users:\n  dana: { roles: [admin] }\n  omar: {}\n"
DANA = EntityUid.of("User", "dana")
SESSION = "doorward_session"


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running(issues=True) as one:
        status, answer = await one.operator("POST", "/api/v1/apply", {"org": ORG})
        assert status == 200, answer
        yield one


async def invited(plane: Plane, user: str = "dana") -> str:
    status, answer = await plane.operator("POST", "/api/v1/enrol-links", {"user": user})
    assert status == 201, answer
    return str(answer["url"]).partition("#")[2]


def code(secret: str, *, steps: int = 0) -> str:
    return pyotp.TOTP(secret).at(int(time.time()) + 30 * steps)


class App:
    """Dana with an authenticator app and an API key."""

    def __init__(self, browser: BrowserClient, secret: str, codes: list[str], key: str) -> None:
        self.browser, self.secret, self.codes, self.key = browser, secret, codes, key

    async def sign_in(self, plane: Plane, shown: str, *, key: str | None = None) -> tuple[int, BrowserClient]:
        browser = BrowserClient(plane.port)
        answer = await browser.post("/sign-in/code", {"key": key or self.key, "code": shown})
        return answer.status, browser


async def with_app(plane: Plane) -> App:
    browser, token = BrowserClient(plane.port), await invited(plane)
    offered = (await browser.post("/enrol/app", {"token": token})).json
    assert offered["address"].startswith("otpauth://totp/")
    assert "<svg" in offered["picture"]
    # The code of the step before, so that the current one is still unused.
    body = {"token": token, "secret": offered["secret"], "code": code(offered["secret"], steps=-1)}
    finished = await browser.post("/enrol/app/finish", body)
    assert finished.status == 200, finished.text
    _, made = await plane.operator("POST", "/api/v1/keys", {"user": "dana"})
    return App(browser, offered["secret"], finished.json["recovery_codes"], made["key"])


class TestAuthenticatorApp:
    async def test_it_is_mfa_for_policies_and_governs(self, plane: Plane) -> None:
        app = await with_app(plane)
        assert (await app.browser.get("/api/v1/people")).status == 200
        status, browser = await app.sign_in(plane, code(app.secret))
        assert status == 204
        state = (await browser.get("/api/v1/state")).json
        assert (state["actor"]["name"], state["actor"]["via"]) == ('User::"dana"', "totp")
        assert (await browser.get("/api/v1/people")).status == 200

    async def test_a_code_used_fifty_times_in_parallel_signs_in_once(self, plane: Plane) -> None:
        app = await with_app(plane)
        shown = code(app.secret)
        tries = await asyncio.gather(*(app.sign_in(plane, shown) for _ in range(50)))
        assert sorted(status for status, _ in tries) == [204] + [401] * 49

    async def test_a_code_and_those_before_it_are_used_up(self, plane: Plane) -> None:
        app = await with_app(plane)
        assert (await app.sign_in(plane, code(app.secret, steps=1)))[0] == 204
        assert (await app.sign_in(plane, code(app.secret)))[0] == 401

    @pytest.mark.parametrize("shown", ["000000", "12345", "1234567", "١٢٣٤٥٦", "abcdef", "", " 12345"])
    async def test_a_wrong_code_is_refused(self, plane: Plane, shown: str) -> None:
        app = await with_app(plane)
        assert (await app.sign_in(plane, shown))[0] in {400, 401}

    async def test_a_code_of_two_steps_ago_is_refused(self, plane: Plane) -> None:
        app = await with_app(plane)
        assert (await app.sign_in(plane, code(app.secret, steps=-2)))[0] == 401
        assert (await app.sign_in(plane, code(app.secret, steps=3)))[0] == 401

    async def test_after_five_wrong_codes_in_a_row_the_right_one_must_wait(self, plane: Plane) -> None:
        app = await with_app(plane)
        right = code(app.secret)
        wrong = next(f"{n:06d}" for n in range(10) if f"{n:06d}" != right)
        for _ in range(5):
            assert (await app.sign_in(plane, wrong))[0] == 401
        answer = await BrowserClient(plane.port).post("/sign-in/code", {"key": app.key, "code": right})
        assert answer.status == 401
        assert "too many wrong codes" in answer.json["detail"]
        assert "seconds" in answer.json["hint"]

    async def test_parallel_guesses_are_counted_like_any(self, plane: Plane) -> None:
        app = await with_app(plane)
        guesses = [f"{n:06d}" for n in range(40)]
        await asyncio.gather(*(app.sign_in(plane, guess) for guess in guesses))
        held = plane.services.directory.accounts.authenticator(DANA)
        assert held is not None
        assert held.locked is not None
        assert held.failures <= 6

    async def test_the_code_alone_or_with_anothers_key_is_nothing(self, plane: Plane) -> None:
        app = await with_app(plane)
        _, other = await plane.operator("POST", "/api/v1/keys", {"user": "omar"})
        for key in ("dw_nonsense", other["key"]):
            assert (await app.sign_in(plane, code(app.secret), key=key))[0] == 401
        assert (await app.sign_in(plane, code(app.secret)))[0] == 204

    async def test_a_key_made_for_less_opens_no_session(self, plane: Plane) -> None:
        app = await with_app(plane)
        status, bounded = await plane.operator("POST", "/api/v1/keys", {"user": "dana", "actions": ["view"]})
        assert status == 201, bounded
        assert (await app.sign_in(plane, code(app.secret), key=bounded["key"]))[0] == 401
        assert (await app.sign_in(plane, code(app.secret)))[0] == 204

    async def test_a_revoked_key_and_an_inactive_user_are_out(self, plane: Plane) -> None:
        app = await with_app(plane)
        await plane.operator(
            "POST", "/api/v1/apply", {"org": "users:\n  dana: { roles: [admin], active: false }\n"}
        )
        assert (await app.sign_in(plane, code(app.secret)))[0] == 401
        assert (await app.browser.get("/api/v1/me")).status in {401, 403}

    async def test_each_recovery_code_works_once(self, plane: Plane) -> None:
        app = await with_app(plane)
        assert len(set(app.codes)) == 10
        first = app.codes[0]
        tries = await asyncio.gather(*(app.sign_in(plane, first) for _ in range(4)))
        assert sorted(status for status, _ in tries) == [204, 401, 401, 401]
        assert (await app.sign_in(plane, app.codes[1].lower().replace("-", " ")))[0] == 204
        assert (await app.browser.get("/api/v1/me")).json["recovery_codes_left"] == 8

    async def test_neither_secret_nor_code_is_stored_readably(self, plane: Plane) -> None:
        app = await with_app(plane)
        stored = b"".join(file.read_bytes() for file in plane.data.rglob("*") if file.is_file())
        for hidden in (app.secret, *app.codes, app.key):
            assert hidden.encode() not in stored

    async def test_a_wrong_first_code_burns_neither_link_nor_app(self, plane: Plane) -> None:
        browser, token = BrowserClient(plane.port), await invited(plane)
        offered = (await browser.post("/enrol/app", {"token": token})).json
        body = {"token": token, "secret": offered["secret"], "code": "000000"}
        assert (await browser.post("/enrol/app/finish", body)).status == 401
        assert plane.services.directory.accounts.authenticator(DANA) is None
        right = await browser.post("/enrol/app/finish", {**body, "code": code(offered["secret"])})
        assert right.status == 200

    async def test_a_link_enrols_its_user_and_nobody_else(self, plane: Plane) -> None:
        token = await invited(plane, "omar")
        browser = BrowserClient(plane.port)
        options = (await browser.post("/enrol/options", {"token": token})).json
        assert options["user"]["name"] == "omar"
        credential = SoftPasskey("localhost", browser.origin).create(options)
        assert (await browser.post("/enrol/finish", {"token": token, "credential": credential})).status == 204
        assert (await browser.get("/api/v1/me")).json["principal"] == 'User::"omar"'
        # No role: signed in with MFA, and still nothing of Doorward's is hers to govern.
        assert (await browser.get("/api/v1/people")).status == 403
        assert (await browser.post("/enrol/options", {"token": token})).status == 403


class TestWhatIsOnesOwn:
    async def test_one_more_passkey_signs_in_and_the_last_factor_stays(self, plane: Plane) -> None:
        browser, first = await enrolled(plane)
        options = (await browser.post("/api/v1/me/passkeys/options")).json
        second = SoftPasskey("localhost", browser.origin)
        added = await browser.post("/api/v1/me/passkeys", {"credential": second.create(options)})
        assert added.status == 201, added.text
        assert await sign_in(BrowserClient(plane.port), second) == 204
        mine = (await browser.get("/api/v1/me")).json
        assert len(mine["passkeys"]) == 2
        gone, left = mine["passkeys"]
        assert (await browser.send("DELETE", f"/api/v1/me/passkeys/{gone['id']}")).status == 200
        assert (await browser.send("DELETE", f"/api/v1/me/passkeys/{left['id']}")).status == 409
        assert await sign_in(BrowserClient(plane.port), first) == 401

    async def test_an_answer_made_for_another_session_adds_no_passkey(self, plane: Plane) -> None:
        app = await with_app(plane)
        admin, _ = await enrolled(plane)
        options = (await app.browser.post("/api/v1/me/passkeys/options")).json
        credential = SoftPasskey("localhost", admin.origin).create(options)
        assert (await admin.post("/api/v1/me/passkeys", {"credential": credential})).status == 401

    async def test_new_recovery_codes_end_the_old_ones(self, plane: Plane) -> None:
        app = await with_app(plane)
        renewed = (await app.browser.post("/api/v1/me/recovery-codes")).json["recovery_codes"]
        assert (await app.sign_in(plane, app.codes[0]))[0] == 401
        assert (await app.sign_in(plane, renewed[0]))[0] == 204

    async def test_without_a_user_there_is_nothing_of_ones_own(self, plane: Plane) -> None:
        assert (await BrowserClient(plane.port).get("/api/v1/me")).status == 401
        assert (await plane.operator("GET", "/api/v1/me"))[0] == 403


class TestSessionsStayWhereTheyAre:
    async def test_a_cookie_in_another_browser_ends_the_session(self, plane: Plane) -> None:
        app = await with_app(plane)
        taken = BrowserClient(plane.port, cookies=dict(app.browser.cookies))
        assert (await taken.get("/api/v1/state", user_agent="Thief/1.0")).status == 401
        assert (await app.browser.get("/api/v1/state")).status == 401

    async def test_one_session_is_ended_and_the_other_goes_on(self, plane: Plane) -> None:
        app = await with_app(plane)
        _, other = await app.sign_in(plane, code(app.secret))
        status, sessions = await plane.operator("GET", "/api/v1/sessions")
        assert status == 200
        first = min(sessions, key=lambda session: session["created"])
        assert (await plane.operator("DELETE", f"/api/v1/sessions/{first['id']}"))[0] == 200
        assert (await app.browser.get("/api/v1/state")).status == 401
        mine = (await other.get("/api/v1/me")).json["sessions"]
        assert [session["method"] for session in mine] == ["totp"]
        assert (await other.send("DELETE", f"/api/v1/me/sessions/{mine[0]['id']}")).status == 200
        assert (await other.get("/api/v1/state")).status == 401

    async def test_signing_a_person_out_ends_all_her_sessions(self, plane: Plane) -> None:
        app = await with_app(plane)
        assert (await plane.operator("POST", "/api/v1/people/dana/sign-out", {}))[0] == 200
        assert (await app.browser.get("/api/v1/state")).status == 401

    async def test_a_sign_out_of_mfa_leaves_nothing_that_governs(self, plane: Plane) -> None:
        app = await with_app(plane)
        assert (await plane.operator("POST", "/api/v1/people/dana/sign-out", {"mfa_only": True}))[0] == 200
        assert (await app.browser.get("/api/v1/people")).status == 401


async def test_what_happens_to_factors_is_on_record(plane: Plane) -> None:
    app = await with_app(plane)
    await app.sign_in(plane, "000000")
    await app.sign_in(plane, code(app.secret))
    found: list[Any] = [
        (record["action"], record["decision"], record["principal"])
        for record in plane.services.reader.records()
        if record["kind"] == "admin" and record["action"] in {"enrol", "sign-in"}
    ]
    assert found == [
        ("enrol", "allow", "operator:0"), ("sign-in", "deny", 'User::"dana"'),
        ("sign-in", "allow", 'User::"dana"'),
    ]  # fmt: skip


async def test_a_first_admin_with_an_app_is_an_admin_all_the_same(plane: Plane) -> None:
    assert has_admin(plane.services) is False
    await with_app(plane)
    assert has_admin(plane.services) is True


async def test_a_user_who_governs_nothing_is_no_first_admin(plane: Plane) -> None:
    browser, token = BrowserClient(plane.port), await invited(plane, "omar")
    options = (await browser.post("/enrol/options", {"token": token})).json
    credential = SoftPasskey("localhost", browser.origin).create(options)
    assert (await browser.post("/enrol/finish", {"token": token, "credential": credential})).status == 204
    assert has_admin(plane.services) is False


async def test_who_is_removed_leaves_no_factor_to_the_next_of_that_name(plane: Plane) -> None:
    app = await with_app(plane)
    await enrolled(plane)
    without = "users:\n  admin: { roles: [admin] }\n"
    for org in (without, f"{without}  dana: {{}}\n"):
        status, answer = await plane.operator("POST", "/api/v1/apply", {"org": org, "prune": True})
        assert status == 200, answer
    accounts = plane.services.directory.accounts
    assert (accounts.authenticator(DANA), accounts.recovery_codes(DANA)) == (None, 0)
    assert (await app.sign_in(plane, code(app.secret)))[0] == 401
