"""Who may do what with Doorward itself, and that it is on record first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, Depends

from doorward.console import app as application
from doorward.console.authorise import Actor, Rule, admit, govern, is_governed, judge, local_operator
from doorward.core.accounts import ConsoleSession
from doorward.core.clock import ManualClock
from doorward.core.decision import AccessRequest, Decision, Effect
from doorward.core.errors import AuditUnavailableError, DeniedError, UnauthenticatedError, UnavailableError
from doorward.core.model import Action, Entity, EntityUid
from doorward.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADMIN = EntityUid.of("User", "admin")
CHANGE = Rule(Action.ASSIGN, "directory")
LOOK = Rule(Action.INSPECT, "audit")
OPERATOR = Actor("operator:0", None, "socket")
BY_LINK = Actor("operator:0", None, "link")
USER = Actor(str(ADMIN), ADMIN, "passkey")


class Point:
    def __init__(self, effect: Effect = Effect.ALLOW, *, active: bool = True) -> None:
        self.effect, self.asked = effect, []
        self.snapshot = SimpleNamespace(is_active=lambda _: active, zone_of=lambda _: "office")

    def pin(self) -> Point:
        return self

    def decide(self, request: AccessRequest) -> Decision:
        self.asked.append(request)
        return Decision(self.effect, advice=("Sign in with MFA.",))


class Audit:
    def __init__(self, *, broken: bool = False) -> None:
        self.records: list[Any] = []
        self.broken = broken

    async def write(self, record: Any) -> None:
        if self.broken:
            raise AuditUnavailableError("the disk is full")
        self.records.append(record)


def services(**control: Any) -> Any:
    control = {"local_operator": "full"} | control
    return SimpleNamespace(
        settings=Settings(control=control),
        clock=ManualClock(NOW),
        ids=SimpleNamespace(new=lambda: "01ID"),
        issuer=SimpleNamespace(issuer="urn:doorward:test", audience="urn:doorward:gate", jwks=dict),
        one_time=None,
        point=Point(),
        custodian=None,
        audit=Audit(),
        directory=SimpleNamespace(
            accounts=SimpleNamespace(holders=frozenset),
            snapshot=SimpleNamespace(version=1, zone_of=lambda _: "office", entity=lambda _: None),
        ),
    )


def session(age: int = 60) -> ConsoleSession:
    created = NOW - timedelta(seconds=age)
    return ConsoleSession(
        hash="", principal=ADMIN, operator="", method="passkey", created=created, last_seen=NOW,
        expires=NOW + timedelta(hours=1), mfa_at=created,
    )  # fmt: skip


def asked_by(services: Any, *, uid: int | None = 0) -> Any:
    state = {"request_id": "01REQ"} | ({} if uid is None else {"peer_uid": uid})
    return SimpleNamespace(
        app=SimpleNamespace(state=SimpleNamespace(services=services)),
        scope={"state": state}, client=None, cookies={}, method="POST",
        headers={},
        url=SimpleNamespace(path="/api/v1/apply", scheme="http"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "actor", "rule", "allowed"),
    [
        ("full", OPERATOR, CHANGE, True),
        ("recovery", OPERATOR, LOOK, True),
        ("recovery", OPERATOR, Rule(Action.CONTAIN, "keys"), True),
        ("recovery", OPERATOR, Rule(Action.ISSUE, "keys", recovery=True), True),
        ("recovery", OPERATOR, CHANGE, False),
        ("recovery", OPERATOR, Rule(Action.ISSUE, "keys"), False),
        ("full", BY_LINK, LOOK, True),
        ("full", BY_LINK, CHANGE, False),
        ("full", BY_LINK, Rule(Action.CONTAIN, "keys"), False),
        ("recovery", BY_LINK, LOOK, False),
        ("full", BY_LINK, Rule(Action.INSPECT, "audit", socket_only=True), False),
        ("full", USER, Rule(Action.ISSUE, "keys", socket_only=True), False),
        ("recovery", USER, CHANGE, True),
    ],
)
def test_who_may_do_what(mode: str, actor: Actor, rule: Rule, allowed: bool) -> None:  # noqa: FBT001
    verdict = judge(services(local_operator=mode), actor, session(), rule, None)
    assert verdict.allowed is allowed
    assert bool(verdict.reason) is not allowed


def test_a_user_is_judged_by_policies_with_mfa_and_its_age() -> None:
    known = services()
    judge(known, USER, session(age=90), CHANGE, "10.0.0.1")
    (asked,) = known.point.asked
    assert (asked.principal, asked.action, asked.resource) == (
        ADMIN, Action.ASSIGN.uid, EntityUid.of("Control", "directory"),
    )  # fmt: skip
    assert (asked.context.session.mfa, asked.context.session.mfa_age) == (True, 90)
    assert (asked.context.session.minted, asked.context.network.zone) == (False, "office")


def test_a_user_whom_policies_deny_is_told_the_sentence_and_the_advice() -> None:
    known = services()
    known.point = Point(Effect.DENY)
    verdict = judge(known, USER, session(), CHANGE, None)
    assert not verdict.allowed
    assert verdict.reason == 'no policy lets User::"admin" assign Control::"directory"'
    assert verdict.hint == "Sign in with MFA."


def test_a_user_no_longer_active_may_nothing_though_policies_would_allow() -> None:
    known = services()
    known.point = Point(active=False)
    assert not judge(known, USER, session(), LOOK, None).allowed


def test_without_policies_nobody_signed_in_may_anything() -> None:
    known = services()

    def gone() -> None:
        raise UnavailableError("nothing is decided yet")

    known.point = SimpleNamespace(pin=gone)
    with pytest.raises(UnavailableError):
        judge(known, USER, session(), LOOK, None)


async def test_a_change_is_on_record_before_the_route_runs() -> None:
    known = services()
    actor = await admit(asked_by(known), CHANGE)
    (record,) = known.audit.records
    assert actor.name == "operator:0"
    assert (record.decision, record.principal, record.action) == ("allow", "operator:0", "assign")
    assert (record.resource, record.request_id) == ('Control::"directory"', "01REQ")
    assert record.time == "2026-01-01T00:00:00.000Z"


async def test_a_refusal_is_on_record_too() -> None:
    known = services(local_operator="recovery")
    with pytest.raises(DeniedError):
        await admit(asked_by(known), CHANGE)
    assert [record.decision for record in known.audit.records] == ["deny"]


async def test_looking_leaves_no_record() -> None:
    known = services()
    await admit(asked_by(known), LOOK)
    assert known.audit.records == []


async def test_what_cannot_be_recorded_does_not_happen() -> None:
    known = services()
    known.audit = Audit(broken=True)
    with pytest.raises(AuditUnavailableError):
        await admit(asked_by(known), CHANGE)


async def test_without_socket_and_session_nobody_is_there() -> None:
    with pytest.raises(UnauthenticatedError):
        await admit(asked_by(services(), uid=None), LOOK)


@pytest.mark.parametrize(
    ("configured", "database", "passkeys", "mode"),
    [
        (None, "sqlite:///state.db", 0, "full"),
        (None, "sqlite:///state.db", 1, "full"),
        (None, "postgresql://db/doorward", 0, "full"),
        (None, "postgresql://db/doorward", 1, "recovery"),
        ("recovery", "sqlite:///state.db", 0, "recovery"),
        ("full", "postgresql://db/doorward", 1, "full"),
    ],
)
def test_what_the_local_operator_may_do_without_being_told(
    configured: str | None, database: str, passkeys: int, mode: str
) -> None:
    known = services(local_operator=configured, database=database)
    known.directory.accounts.holders = lambda: frozenset({ADMIN}) if passkeys else frozenset()
    known.directory.snapshot.entity = Entity
    assert local_operator(known) == mode


def _routes(*, governed: bool, path: str) -> APIRouter:
    routes = APIRouter()
    dependencies = [Depends(govern(Action.INSPECT, "audit"))] if governed else []

    @routes.get(path, dependencies=dependencies)
    def route() -> None: ...

    return routes


def test_an_application_with_a_route_nobody_authorises_does_not_start() -> None:
    with pytest.raises(RuntimeError, match="/api/v1/forgotten is neither governed"):
        application.build(services(), api_routers=[_routes(governed=False, path="/forgotten")])


def test_every_route_of_the_application_is_governed_or_public() -> None:
    built = application.build(services(), api_routers=[_routes(governed=True, path="/kept")])
    parts = [part.router(services()) for part in (application.health, application.wellknown)]
    parts += [application.doors.router(services()), application.pages.router(services())]
    parts += [application.authzen.router(services()), application.signals.router(services())]
    parts.append(application.oauth.router(services()))
    open_to_all = {route.path for part in parts for route in part.routes if not is_governed(route.dependant)}
    assert open_to_all | {"/openapi.json", "/static"} == application.PUBLIC
    outside = {route.path for route in built.routes if hasattr(route, "path")}
    assert outside <= application.PUBLIC
