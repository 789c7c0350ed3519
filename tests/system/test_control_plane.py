"""The control plane on real sockets, attacked: who gets in, by which way, and what they may then do."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from doorward.console.serve import bind_tcp, bind_unix
from doorward.core.errors import InvalidConfigError, UnavailableError
from support.browser_client import BrowserClient
from support.console_people import enrolled, opened, sign_in
from support.console_plane import Plane, running
from support.soft_passkey import SoftPasskey

EVIL = "http://evil.example"
SESSION = "doorward_session"


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running() as plane:
        yield plane


@pytest.fixture
def browser(plane: Plane) -> BrowserClient:
    return BrowserClient(plane.port)


class TestWhoGetsIn:
    async def test_without_a_session_the_api_answers_401_with_a_problem(self, browser: BrowserClient) -> None:
        answer = await browser.get("/api/v1/state")
        assert answer.status == 401
        assert answer.header("content-type") == "application/problem+json"
        assert answer.json["code"] == "unauthenticated"
        assert answer.json["hint"]

    async def test_without_a_session_the_page_leads_to_sign_in_and_nowhere_else(
        self, browser: BrowserClient
    ) -> None:
        answer = await browser.get("/?next=https://evil.example", accept="text/html")
        assert (answer.status, answer.header("location")) == (303, "/sign-in")

    @pytest.mark.parametrize(
        "forged",
        [
            {"x_peer_uid": "0"},
            {"x_forwarded_for": "127.0.0.1"},
            {"authorization": "Bearer operator:0"},
            {"x_remote_user": "operator:0"},
        ],
    )
    async def test_nothing_sent_over_tcp_makes_an_operator(
        self, browser: BrowserClient, forged: dict[str, str]
    ) -> None:
        assert (await browser.get("/api/v1/state", **forged)).status == 401

    async def test_the_unix_socket_is_ours_alone_and_names_the_operator(self, plane: Plane) -> None:
        mode = (plane.data / "control.sock").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        status, state = await plane.operator("GET", "/api/v1/state")
        assert (status, state["actor"]) == (200, {"name": f"operator:{os.getuid()}", "via": "socket"})

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can speak as another user")
    async def test_another_uid_is_hung_up_on_even_if_it_reaches_the_socket(self, plane: Plane) -> None:
        path = plane.data / "control.sock"
        plane.data.chmod(0o755)
        path.chmod(0o666)
        program = (
            "import os, socket, sys; os.setuid(65534)\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
            "s.sendall(b'GET /api/v1/state HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')\n"
            "print(s.recv(100))"
        )
        told = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-S", "-c", program, str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "200" not in told.stdout
        assert told.stdout == "b''\n" or "ConnectionReset" in told.stderr or "BrokenPipe" in told.stderr

    async def test_a_link_opens_once_of_fifty_in_parallel(self, plane: Plane) -> None:
        token = (await plane.link("session")).partition("#")[2]
        tries = [BrowserClient(plane.port).post("/open/redeem", {"token": token}) for _ in range(50)]
        statuses = sorted([answer.status for answer in await asyncio.gather(*tries)])
        assert statuses == [204] + [403] * 49

    async def test_a_new_link_ends_the_one_before(self, plane: Plane, browser: BrowserClient) -> None:
        old = (await plane.link("session")).partition("#")[2]
        await plane.link("session")
        assert (await browser.post("/open/redeem", {"token": old})).status == 403

    async def test_a_link_is_good_only_for_what_it_was_made(
        self, plane: Plane, browser: BrowserClient
    ) -> None:
        token = (await plane.link("session")).partition("#")[2]
        assert (await browser.post("/enrol/options", {"token": token})).status == 403

    async def test_a_link_is_kept_hashed_and_never_logged(
        self, plane: Plane, browser: BrowserClient, capfd: pytest.CaptureFixture[str]
    ) -> None:
        token = (await plane.link("session")).partition("#")[2]
        await browser.post("/open/redeem", {"token": token})
        cookie = browser.cookies[SESSION]
        for file in (file for file in plane.data.rglob("*") if file.is_file()):
            content = file.read_bytes()
            assert token.encode() not in content
            assert cookie.encode() not in content
        said = "".join(capfd.readouterr())
        assert token not in said
        assert cookie not in said


class TestWhatTheyMayDo:
    async def test_a_session_by_link_may_look(self, plane: Plane) -> None:
        browser = await opened(plane)
        assert (await browser.get("/", accept="text/html")).status == 200
        assert (await browser.get("/api/v1/state")).json["actor"]["via"] == "link"

    async def test_a_session_by_link_changes_nothing_and_the_refusal_is_on_record(self, plane: Plane) -> None:
        browser = await opened(plane)
        body = {"org": "users:\n  eve: {}\n", "source": "eve.yaml"}
        answer = await browser.post("/api/v1/apply", body)
        assert answer.status == 403
        assert answer.json["detail"] == "a session opened by an operator's link may only look"
        (record,) = (
            record
            for record in plane.services.reader.records()
            if record["kind"] == "admin" and record["decision"] == "deny"
        )
        assert record["request_id"] == answer.header("doorward-request-id")
        assert record["principal"] == f"operator:{os.getuid()}"

    async def test_an_admin_with_a_passkey_changes_things_by_policy(self, plane: Plane) -> None:
        browser, _ = await enrolled(plane)
        answer = await browser.post("/api/v1/apply", {"org": "users:\n  eve: {}\n", "source": "eve.yaml"})
        assert answer.status == 200, answer.text
        changes = [r for r in plane.services.reader.records() if r["kind"] == "admin"]
        assert any(r["principal"] == 'User::"admin"' and r["decision"] == "allow" for r in changes)

    async def test_only_the_operator_makes_links(self, plane: Plane) -> None:
        browser, _ = await enrolled(plane)
        answer = await browser.post("/api/v1/admin/link", {"kind": "enrol"})
        assert answer.status == 403
        assert answer.json["detail"] == "only the local operator may do this"

    async def test_an_operator_in_recovery_reads_and_renews_the_link_and_no_more(self) -> None:
        async with running(local_operator="recovery") as plane:
            assert (await plane.operator("GET", "/api/v1/state"))[0] == 200
            assert (await plane.operator("POST", "/api/v1/admin/link", {"kind": "enrol"}))[0] == 200
            assert (await plane.operator("POST", "/api/v1/admin/link", {"kind": "session"}))[0] == 403
            status, problem = await plane.operator("POST", "/api/v1/apply", {"org": "users: {}"})
            assert (status, problem["code"]) == (403, "denied")

    async def test_readiness_says_what_the_operator_may_do(self, browser: BrowserClient) -> None:
        assert (await browser.get("/readyz")).json["local_operator"] == "full"


class TestPasskeys:
    async def test_enrolled_once_it_signs_in_again_and_again(self, plane: Plane) -> None:
        _, passkey = await enrolled(plane)
        for _ in range(2):
            browser = BrowserClient(plane.port)
            assert await sign_in(browser, passkey) == 204
            assert (await browser.get("/api/v1/state")).json["actor"]["via"] == "passkey"

    async def test_without_user_verification_it_is_refused(self, plane: Plane) -> None:
        _, passkey = await enrolled(plane)
        passkey.verified = False
        assert await sign_in(BrowserClient(plane.port), passkey) == 401

    @pytest.mark.parametrize(
        ("field", "value"),
        [("origin", EVIL), ("rp_id", "evil.example"), ("handle", b"someone else"), ("credential_id", b"x")],
    )
    async def test_an_answer_for_another_place_or_person_is_refused(
        self, plane: Plane, field: str, value: Any
    ) -> None:
        _, passkey = await enrolled(plane)
        setattr(passkey, field, value)
        assert await sign_in(BrowserClient(plane.port), passkey) == 401

    async def test_a_counter_that_went_back_is_a_clone(self, plane: Plane) -> None:
        _, passkey = await enrolled(plane)
        passkey.count = 7
        assert await sign_in(BrowserClient(plane.port), passkey) == 204
        passkey.count = 3
        assert await sign_in(BrowserClient(plane.port), passkey) == 401

    async def test_an_answer_is_taken_once(self, plane: Plane, browser: BrowserClient) -> None:
        _, passkey = await enrolled(plane)
        answer = {"credential": passkey.get((await browser.post("/sign-in/options")).json)}
        assert (await browser.post("/sign-in/finish", answer)).status == 204
        assert (await browser.post("/sign-in/finish", answer)).status == 401

    async def test_a_failed_enrolment_does_not_burn_the_link(
        self, plane: Plane, browser: BrowserClient
    ) -> None:
        token = (await plane.link("enrol")).partition("#")[2]
        options = (await browser.post("/enrol/options", {"token": token})).json
        wrong = SoftPasskey("localhost", EVIL).create(options)
        assert (await browser.post("/enrol/finish", {"token": token, "credential": wrong})).status == 401
        right = SoftPasskey("localhost", browser.origin).create(options)
        assert (await browser.post("/enrol/finish", {"token": token, "credential": right})).status == 204

    async def test_fifty_enrolments_with_one_link_make_one_admin(self, plane: Plane) -> None:
        token = (await plane.link("enrol")).partition("#")[2]

        async def enrol() -> int:
            browser = BrowserClient(plane.port)
            options = (await browser.post("/enrol/options", {"token": token})).json
            if "challenge" not in options:
                return 403
            credential = SoftPasskey("localhost", browser.origin).create(options)
            body = {"token": token, "credential": credential}
            return (await browser.post("/enrol/finish", body)).status

        statuses = sorted(await asyncio.gather(*(enrol() for _ in range(50))))
        assert statuses == [204] + [403] * 49
        assert len(plane.services.directory.accounts.list_passkeys()) == 1

    @pytest.mark.parametrize(
        "body", [{}, {"credential": {}}, {"credential": {"response": {"clientDataJSON": "!"}}}]
    )
    async def test_an_answer_that_is_none_is_a_problem_not_a_crash(
        self, browser: BrowserClient, body: dict[str, Any]
    ) -> None:
        assert (await browser.post("/sign-in/finish", body)).status in {400, 401}

    async def test_by_ip_address_the_passkey_pages_lead_to_localhost(self, plane: Plane) -> None:
        answer = await BrowserClient(plane.port, host="127.0.0.1").get("/enrol", accept="text/html")
        assert answer.header("location") == f"http://localhost:{plane.port}/enrol"


class TestSessions:
    async def test_the_cookie_is_for_this_site_only(self, plane: Plane) -> None:
        token = (await plane.link("session")).partition("#")[2]
        answer = await BrowserClient(plane.port).post("/open/redeem", {"token": token})
        flags = answer.header("set-cookie").lower()
        assert all(flag in flags for flag in ("httponly", "samesite=strict", "path=/"))
        assert "domain" not in flags

    async def test_a_planted_session_id_is_never_taken_over(self, plane: Plane) -> None:
        browser = BrowserClient(plane.port, cookies={SESSION: "planted"})
        token = (await plane.link("session")).partition("#")[2]
        await browser.post("/open/redeem", {"token": token})
        assert browser.cookies[SESSION] != "planted"
        assert (
            await BrowserClient(plane.port, cookies={SESSION: "planted"}).get("/api/v1/state")
        ).status == 401

    async def test_signing_in_again_ends_the_session_before(self, plane: Plane) -> None:
        browser, passkey = await enrolled(plane)
        before = dict(browser.cookies)
        assert await sign_in(browser, passkey) == 204
        assert (await BrowserClient(plane.port, cookies=before).get("/api/v1/state")).status == 401

    async def test_after_sign_out_the_old_cookie_is_worthless(self, plane: Plane) -> None:
        browser = await opened(plane)
        kept = dict(browser.cookies)
        answer = await browser.post("/sign-out")
        assert (answer.status, answer.header("location")) == (303, "/sign-in")
        assert browser.cookies == {}
        assert (await BrowserClient(plane.port, cookies=kept).get("/api/v1/state")).status == 401

    async def test_an_open_stream_ends_with_its_session(self, plane: Plane) -> None:
        browser = await opened(plane)
        stream = asyncio.create_task(browser.get("/live"))
        await asyncio.sleep(0.3)
        assert not stream.done()
        await BrowserClient(plane.port, cookies=dict(browser.cookies)).post("/sign-out")
        ended = await asyncio.wait_for(stream, 3)
        assert "event: signed-out" in ended.text


def certificate_of(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what serves `localhost` with a fresh certificate, and what trusts only that."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    public, private = directory / "cert.pem", directory / "key.pem"
    public.write_bytes(certificate.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(public, private)
    return server, ssl.create_default_context(cafile=public)


async def test_over_tls_the_cookie_is_secure_and_pinned_to_this_host(tmp_path: Path) -> None:
    server, trust = certificate_of(tmp_path)
    async with running(tls=server) as plane:
        browser = BrowserClient(plane.port, trust=trust)
        link = await plane.link("session")
        assert link.startswith("https://localhost:")
        answer = await browser.post("/open/redeem", {"token": link.partition("#")[2]})
        assert answer.header("set-cookie").startswith("__Host-doorward_session=")
        assert "; secure" in answer.header("set-cookie").lower()
        assert answer.header("strict-transport-security")
        assert (await browser.get("/api/v1/state")).status == 200
        plain = BrowserClient(
            plane.port, trust=trust, cookies={SESSION: next(iter(browser.cookies.values()))}
        )
        assert (await plain.get("/api/v1/state")).status == 401


class TestListeners:
    async def test_a_port_that_is_taken_is_said(self, plane: Plane) -> None:
        with pytest.raises(InvalidConfigError, match="cannot listen"):
            bind_tcp(f"127.0.0.1:{plane.port}")

    async def test_a_second_control_process_is_refused(self, plane: Plane) -> None:
        with pytest.raises(UnavailableError, match="already answers"):
            bind_unix(plane.data / "control.sock")

    async def test_the_socket_of_a_dead_process_is_replaced_a_file_is_not(self, plane: Plane) -> None:
        left = plane.data / "left.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(left))
        bind_unix(left).close()
        file = plane.data / "file.sock"
        file.write_text("mine")
        with pytest.raises(InvalidConfigError, match="not a socket"):
            bind_unix(file)
        assert file.read_text() == "mine"

    async def test_after_the_stop_nothing_is_left(self) -> None:
        async with running() as plane:
            path: Path = plane.data / "control.sock"
        assert not path.exists()
