"""Shared Signals: a real transmitter over HTTP, pushed and polled, and what each event changes.

The cases follow the modules of the public conformance suite for receivers: good events take effect and are
acknowledged; wrong type, issuer, audience, key, signature, time or shape is refused with its code.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry, serialize_compact
from structlog.testing import capture_logs

from doorward.core.identity import IdentityLink
from doorward.core.model import EntityUid
from support.console_plane import Plane, running

AUDIENCE = "https://gate.example"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
DANA, LAPTOP = EntityUid.of("User", "dana"), EntityUid.of("Device", "laptop-7")
ORG = """
users:
  dana: { roles: [data-scientist] }
  omar: {}
devices: { laptop-7: { managed: true, compliant: true, owner: dana } }
"""
KEY, STRANGER = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
PUSHED_WITH = "Bearer agreed-upon"


class Transmitter:
    """A transmitter on loopback: metadata, keys, a poll endpoint, and tokens to push."""

    def __init__(self) -> None:
        self.waiting: dict[str, str] = {}
        self.acknowledged: list[str] = []
        self.errors: dict[str, Any] = {}
        self.shown: list[str] = []
        self.down = False
        self.count = 0

    def token(self, event: str, claims: dict[str, Any] | None = None, **changes: Any) -> str:
        """Sign an event; `...` leaves a claim or header out, `key`, `alg` and `header` change how."""
        self.count += 1
        key, alg = changes.pop("key", KEY), changes.pop("alg", "RS256")
        header = {"alg": alg, "typ": "secevent+jwt", "kid": KEY.thumbprint(), **changes.pop("header", {})}
        payload = {
            "iss": self.issuer, "aud": AUDIENCE, "iat": int(time.time()), "jti": f"set-{self.count}",
            "sub_id": {"format": "iss_sub", "iss": "https://idp.example", "sub": "00u1"},
            "events": {event: {"event_timestamp": int(time.time()), **(claims or {})}},
            **changes,
        }  # fmt: skip
        header = {name: value for name, value in header.items() if value is not ...}
        payload = {name: value for name, value in payload.items() if value is not ...}
        registry = JWSRegistry(algorithms=[alg], strict_check_header=False)
        return serialize_compact(header, json.dumps(payload), key, registry=registry)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Transmitter]:
        app = web.Application()
        app.router.add_get("/.well-known/ssf-configuration", self._metadata)
        app.router.add_get("/jwks", self._jwks)
        app.router.add_post("/poll", self._poll)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.issuer = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _metadata(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"issuer": self.issuer, "spec_version": "1_0", "jwks_uri": f"{self.issuer}/jwks"}
        )

    async def _jwks(self, _request: web.Request) -> web.Response:
        public = {**KEY.as_dict(private=False), "kid": KEY.thumbprint(), "use": "sig"}
        return web.json_response({"keys": [public]})

    async def _poll(self, request: web.Request) -> web.Response:
        if self.down:
            return web.Response(status=503)
        self.shown.append(request.headers.get("Authorization", ""))
        asked = await request.json()
        for jti in asked["ack"]:
            self.acknowledged.append(jti)
            self.waiting.pop(jti, None)
        for jti, why in asked["setErrs"].items():
            self.errors[jti] = why
            self.waiting.pop(jti, None)
        return web.json_response({"sets": self.waiting, "moreAvailable": False})


@pytest.fixture
async def transmitter() -> AsyncIterator[Transmitter]:
    async with Transmitter().serving() as one:
        yield one


@pytest.fixture
async def plane(transmitter: Transmitter, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plane]:
    monkeypatch.setenv("PUSH", PUSHED_WITH)
    monkeypatch.setenv("POLL", "Bearer ours")
    common = {"issuer": transmitter.issuer, "audience": AUDIENCE, "subjects": "https://idp.example"}
    signals = [
        {"name": "pushing", **common, "authorization": "${PUSH}", "max_age": 3600},
        {"name": "polled", **common, "poll": f"{transmitter.issuer}/poll", "poll_authorization": "${POLL}",
         "poll_every": 0.05},
    ]  # fmt: skip
    with capture_logs():
        async with running(signals=signals) as one:
            status, answer = await one.operator("POST", "/api/v1/apply", {"org": ORG})
            assert status == 200, answer
            directory = one.services.directory
            for subject, who in (("00u1", DANA), ("dev1", LAPTOP)):
                link = IdentityLink("https://idp.example", subject, who)
                await asyncio.to_thread(directory.link_identity, link)
            yield one


async def push(plane: Plane, token: str, *, name: str = "pushing", **headers: str) -> tuple[int, Any]:
    sent = {"Content-Type": "application/secevent+jwt", "Authorization": PUSHED_WITH, **headers}
    url = f"{plane.url}/ssf/events/{name}"
    async with aiohttp.ClientSession() as session, session.post(url, data=token, headers=sent) as answer:
        content = await answer.read()
        return answer.status, json.loads(content) if content else None


def attribute(plane: Plane, who: EntityUid, name: str) -> Any:
    entity = plane.services.directory.entity(who)
    assert entity is not None
    return entity.attrs[name]


class TestWhatEventsChange:
    @pytest.mark.parametrize(
        ("event", "claims"),
        [
            (f"{CAEP}session-revoked", {}),
            (f"{CAEP}credential-change", {"credential_type": "password", "change_type": "update"}),
            (f"{CAEP}credential-change", {"credential_type": "fido2-roaming", "change_type": "revoke"}),
            (f"{CAEP}token-claims-change", {"claims": {"role": "x"}}),
            (f"{RISC}credential-compromise", {"credential_type": "password"}),
        ],
    )
    async def test_sign_ins_of_before_end(
        self, plane: Plane, transmitter: Transmitter, event: str, claims: dict[str, Any]
    ) -> None:
        assert await push(plane, transmitter.token(event, claims)) == (202, None)
        out = plane.services.directory.snapshot.sign_out_of(DANA)
        assert out is not None
        assert out.before is not None
        assert plane.services.directory.snapshot.sign_out_of(EntityUid.of("User", "omar")) is None

    async def test_a_lower_assurance_level_ends_mfa_alone(
        self, plane: Plane, transmitter: Transmitter
    ) -> None:
        change = {"namespace": "NIST-AAL", "current_level": "nist-aal1", "change_direction": "decrease"}
        assert (await push(plane, transmitter.token(f"{CAEP}assurance-level-change", change)))[0] == 202
        out = plane.services.directory.snapshot.sign_out_of(DANA)
        assert out is not None
        assert (out.before, out.mfa_before is not None) == (None, True)

    async def test_a_higher_level_or_a_new_credential_ends_nothing(
        self, plane: Plane, transmitter: Transmitter
    ) -> None:
        up = {"namespace": "NIST-AAL", "current_level": "nist-aal2", "change_direction": "increase"}
        new = {"credential_type": "fido2-platform", "change_type": "create"}
        for event, claims in (("assurance-level-change", up), ("credential-change", new)):
            assert (await push(plane, transmitter.token(CAEP + event, claims)))[0] == 202
        assert plane.services.directory.snapshot.sign_out_of(DANA) is None

    @pytest.mark.parametrize("subject", [
        {"format": "iss_sub", "iss": "https://idp.example", "sub": "dev1"},
        {"format": "opaque", "id": "dev1"},
        {"format": "complex", "user": {"format": "opaque", "id": "00u1"},
         "device": {"format": "opaque", "id": "dev1"}},
    ])  # fmt: skip
    async def test_a_device_that_is_not_compliant_any_more_is_not_and_comes_back(
        self, plane: Plane, transmitter: Transmitter, subject: dict[str, Any]
    ) -> None:
        for status, holds in (("not-compliant", False), ("compliant", True), ("what?", False)):
            claims = {"previous_status": "x", "current_status": status, "event_timestamp": time.time()}
            token = transmitter.token(f"{CAEP}device-compliance-change", claims, sub_id=subject)
            assert (await push(plane, token))[0] == 202
            assert attribute(plane, LAPTOP, "compliant") is holds

    @pytest.mark.parametrize(("level", "risk"), [("LOW", 10), ("MEDIUM", 50), ("HIGH", 90), ("EXTREME", 100)])
    async def test_a_risk_level_is_worth_what_the_settings_say(
        self, plane: Plane, transmitter: Transmitter, level: str, risk: int
    ) -> None:
        claims = {"principal": "USER", "current_level": level}
        assert (await push(plane, transmitter.token(f"{CAEP}risk-level-change", claims)))[0] == 202
        assert attribute(plane, DANA, "risk") == risk

    async def test_a_disabled_account_is_out_until_it_is_enabled(
        self, plane: Plane, transmitter: Transmitter
    ) -> None:
        assert (await push(plane, transmitter.token(f"{RISC}account-disabled", {"reason": "hijacking"})))[
            0
        ] == 202
        assert not plane.services.directory.snapshot.is_active(DANA)
        token = transmitter.token(f"{RISC}account-enabled", {"event_timestamp": time.time()})
        assert (await push(plane, token))[0] == 202
        assert plane.services.directory.snapshot.is_active(DANA)

    async def test_an_older_word_that_comes_late_does_not_undo_a_newer_one(
        self, plane: Plane, transmitter: Transmitter
    ) -> None:
        now = int(time.time())
        for event, at in (("account-disabled", now), ("account-enabled", now - 60)):
            await push(plane, transmitter.token(RISC + event, {"event_timestamp": at}))
        assert not plane.services.directory.snapshot.is_active(DANA)

    async def test_an_event_from_the_future_does_not_outrank_what_happens_until_then(
        self, plane: Plane, transmitter: Transmitter
    ) -> None:
        later = {"event_timestamp": int(time.time()) + 86_400}
        await push(plane, transmitter.token(f"{RISC}account-enabled", later))
        disabled = {"event_timestamp": time.time()}
        assert (await push(plane, transmitter.token(f"{RISC}account-disabled", disabled)))[0] == 202
        assert not plane.services.directory.snapshot.is_active(DANA)

    async def test_what_we_do_not_know_is_taken_and_changes_nothing(
        self, plane: Plane, transmitter: Transmitter
    ) -> None:
        version = plane.services.directory.snapshot.version
        unknown = {"format": "iss_sub", "iss": "https://idp.example", "sub": "nobody"}
        mail = {"format": "email", "email": "dana@example.com"}
        for token in (
            transmitter.token(f"{CAEP}session-revoked", sub_id=unknown),
            transmitter.token(f"{CAEP}session-revoked", sub_id=mail),
            transmitter.token(f"{CAEP}of-tomorrow"),
            transmitter.token("https://vendor.example/event"),
            transmitter.token(f"{SSF}verification", sub_id={"format": "opaque", "id": "stream-1"}),
        ):
            assert await push(plane, token) == (202, None)
        assert plane.services.directory.snapshot.version == version

    async def test_two_aliases_of_two_people_pick_neither(
        self, plane: Plane, transmitter: Transmitter
    ) -> None:
        both = [{"format": "opaque", "id": "00u1"}, {"format": "opaque", "id": "dev1"}]
        for identifiers, known in ((both, False), (both[:1], True)):
            subject = {"format": "aliases", "identifiers": identifiers}
            await push(plane, transmitter.token(f"{CAEP}session-revoked", sub_id=subject))
            assert (plane.services.directory.snapshot.sign_out_of(DANA) is not None) is known

    async def test_each_event_is_on_record_with_what_it_changed(
        self, plane: Plane, transmitter: Transmitter
    ) -> None:
        await push(plane, transmitter.token(f"{CAEP}session-revoked", jti="the-one"))
        records = [r for r in plane.services.reader.records() if r.get("changes", {}).get("jti") == "the-one"]
        assert [(r["principal"], r["resource"], r["detail"]) for r in records] == [
            ("signals:pushing", 'User::"dana"', 'session-revoked: sign User::"dana" out')
        ]


def _broken(transmitter: Transmitter) -> dict[str, tuple[str, str]]:
    """Return tokens that must be refused, by name, each with its code of RFC 8935."""
    event, make = f"{CAEP}session-revoked", transmitter.token
    good = make(event)
    head, body, signature = good.split(".")
    return {
        "access token": (make(event, header={"typ": "at+jwt"}), "invalid_request"),
        "no type": (make(event, header={"typ": ...}), "invalid_request"),
        "another issuer": (make(event, iss="https://other.example"), "invalid_issuer"),
        "no issuer": (make(event, iss=...), "invalid_issuer"),
        "another audience": (make(event, aud="https://other.example"), "invalid_audience"),
        "no audience": (make(event, aud=...), "invalid_audience"),
        "unknown key": (make(event, key=STRANGER, alg="ES256", header={"kid": "x"}), "invalid_key"),
        "a stranger's signature under our key's name": (
            f"{head}.{body}.{signature[:-8]}AAAAAAAA",
            "authentication_failed",
        ),
        "changed body": (f"{head}.{make(event, jti='x').split('.')[1]}.{signature}", "authentication_failed"),
        "none": (f"{_b64({'alg': 'none', 'typ': 'secevent+jwt'})}.{body}.AA", "invalid_key"),
        "expires": (make(event, exp=int(time.time()) + 60), "invalid_request"),
        "sub": (make(event, sub="00u1"), "invalid_request"),
        "no subject": (make(event, sub_id=...), "invalid_request"),
        "no jti": (make(event, jti=...), "invalid_request"),
        "no time": (make(event, iat=...), "invalid_request"),
        "from the future": (make(event, iat=int(time.time()) + 3600), "invalid_request"),
        "two events": (make(event, events={event: {}, f"{RISC}account-disabled": {}}), "invalid_request"),
        "no event": (make(event, events={}), "invalid_request"),
        "time that is no time": (make(event, {"event_timestamp": "yesterday"}), "invalid_request"),
        "not a token": ("hello", "invalid_request"),
        "empty": ("", "invalid_request"),
    }


def _b64(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


BROKEN = (
    "access token", "no type", "another issuer", "no issuer", "another audience", "no audience",
    "unknown key", "a stranger's signature under our key's name", "changed body", "none", "expires", "sub",
    "no subject", "no jti", "no time", "from the future", "two events", "no event",
    "time that is no time", "not a token", "empty",
)  # fmt: skip


class TestWhatIsRefused:
    @pytest.mark.parametrize("case", BROKEN)
    async def test_it_is_named_to_its_transmitter_and_changes_nothing(
        self, plane: Plane, transmitter: Transmitter, case: str
    ) -> None:
        version = plane.services.directory.snapshot.version
        token, error = _broken(transmitter)[case]
        status, told = await push(plane, token)
        assert (status, told["err"]) == (400, error)
        assert plane.services.directory.snapshot.version == version

    @pytest.mark.parametrize(
        ("name", "headers"),
        [
            ("pushing", {"Authorization": "Bearer guessed"}),
            ("pushing", {"Authorization": ""}),
            ("polled", {}),
            ("nobody", {}),
        ],
    )
    async def test_who_does_not_show_what_was_agreed_is_not_heard(
        self, plane: Plane, transmitter: Transmitter, name: str, headers: dict[str, str]
    ) -> None:
        token = transmitter.token(f"{CAEP}session-revoked")
        status, told = await push(plane, token, name=name, **headers)
        assert (status, told["err"]) == (401, "authentication_failed")
        assert plane.services.directory.snapshot.sign_out_of(DANA) is None

    async def test_another_content_type_is_refused(self, plane: Plane, transmitter: Transmitter) -> None:
        token = transmitter.token(f"{CAEP}session-revoked")
        assert (await push(plane, token, **{"Content-Type": "application/jwt"}))[0] == 400


async def until(condition: Any, what: str) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


class TestPolled:
    async def test_what_was_taken_is_acknowledged_and_what_was_not_is_named(
        self, plane: Plane, transmitter: Transmitter
    ) -> None:
        transmitter.waiting["good"] = transmitter.token(f"{CAEP}session-revoked", jti="good")
        transmitter.waiting["bad"] = transmitter.token(f"{CAEP}session-revoked", jti="bad", aud="x")
        transmitter.waiting["odd"] = transmitter.token(f"{CAEP}session-revoked", jti="another")
        await until(lambda: not transmitter.waiting, "all are answered")
        assert set(transmitter.acknowledged) == {"good"}
        assert {jti: why["err"] for jti, why in transmitter.errors.items()} == {
            "bad": "invalid_audience", "odd": "invalid_request",
        }  # fmt: skip
        assert plane.services.directory.snapshot.sign_out_of(DANA) is not None
        assert set(transmitter.shown) == {"Bearer ours"}

    async def test_a_transmitter_that_was_down_is_asked_again(
        self, plane: Plane, transmitter: Transmitter
    ) -> None:
        transmitter.down = True
        transmitter.waiting["late"] = transmitter.token(f"{RISC}account-disabled", jti="late")
        await asyncio.sleep(0)
        transmitter.down = False
        await until(lambda: transmitter.acknowledged == ["late"], "it was taken at last")
        assert not plane.services.directory.snapshot.is_active(DANA)
