"""Decide who may use which route, and put it on record before it takes effect.

Three ways in: the Unix socket, whose peer uid is an operator, a browser session, and an access token made
for this API. A session opened with a passkey, and a token, stand for a user whom policies judge; a session
opened with an operator's link may only look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from fastapi import Request
from fastapi.dependencies.models import Dependant

from doorward.console import session as sessions
from doorward.console.acts import act_of
from doorward.console.bearer import Bearers, requests_of
from doorward.console.links import has_admin
from doorward.console.paging import versions_of
from doorward.console.services import Services
from doorward.core.accounts import ConsoleSession
from doorward.core.context import Context, NetworkContext, SessionContext
from doorward.core.decision import AccessRequest, Decision
from doorward.core.errors import DeniedError, DoorwardError, UnauthenticatedError
from doorward.core.identity import Caller
from doorward.core.model import Action, EntityUid
from doorward.directory.expected import expect, require_expected

Via = Literal["socket", "passkey", "totp", "link", "token"]
LocalOperator = Literal["full", "recovery"]
_LOOKS_ONLY = frozenset({Action.INSPECT})
_RECOVERS = frozenset({Action.INSPECT, Action.CONTAIN})


@dataclass(frozen=True, slots=True)
class Actor:
    """State who makes a management request; `principal` is None for a local operator.

    `caller` is who a token stands for, with everything that bounds it.
    """

    name: str
    principal: EntityUid | None
    via: Via
    caller: Caller | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Say whether an actor may go on, and if not, the sentence and what to do."""

    allowed: bool
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """State what a governed route does: one action on one of Doorward's own controls."""

    action: Action
    control: str
    recovery: bool = False
    socket_only: bool = False

    @property
    def resource(self) -> EntityUid:
        """Return the control as an entity."""
        return EntityUid.of("Control", self.control)


def govern(
    action: Action, control: str, *, recovery: bool = False, socket_only: bool = False
) -> Callable[[Request], Awaitable[Actor]]:
    """Make the dependency of a route: it gives the Actor, or refuses with 401 or 403.

    `recovery` lets a local operator in although `local_operator` is `recovery`; `socket_only`
    keeps everyone else out. Refusals and changes (every action but `inspect`) are on record
    before the route runs; if they cannot be, it does not run (503). A change sent with `If-Match` takes
    effect only on that version of the directory (412).
    """
    rule = Rule(action, control, recovery=recovery, socket_only=socket_only)

    async def authorise(request: Request) -> Actor:
        return await admit(request, rule)

    authorise.rule = rule  # type: ignore[attr-defined]  # read by `is_governed`
    return authorise


@dataclass(frozen=True, slots=True)
class Myself:
    """A signed-in user who may change what is her own: her factors and her sessions."""

    actor: Actor
    principal: EntityUid
    session: ConsoleSession


async def myself(request: Request) -> Myself:
    """Give whoever is signed in with MFA as a user that is active now; refuse with 401 or 403.

    What is one's own needs no policy: no other route lets anybody touch somebody else's.
    """
    services: Services = request.app.state.services
    actor, session = await authenticate(request, services)
    if actor.principal is None or session is None:
        raise DeniedError("only a signed-in user has factors and sessions of her own")
    if session.mfa_at is None or not services.point.pin().snapshot.is_active(actor.principal):
        raise DeniedError("this needs a sign-in with MFA, by a user who is active")
    return Myself(actor, actor.principal, session)


myself.rule = Rule(Action.INSPECT, "directory")  # type: ignore[attr-defined]  # read by `is_governed`


def is_governed(dependant: Dependant) -> bool:
    """Return whether a route's dependencies, at any depth, include `govern`."""
    return any(
        isinstance(getattr(inner.call, "rule", None), Rule) or is_governed(inner)
        for inner in dependant.dependencies
    )


async def admit(request: Request, rule: Rule) -> Actor:
    """Authenticate, judge, record; return the actor or raise."""
    services: Services = request.app.state.services
    actor, session = await authenticate(request, services)
    verdict = await asyncio.to_thread(judge, services, actor, session, rule, _ip(request))
    if verdict.allowed and rule.action is not Action.INSPECT:
        expect(versions_of(request.headers.get("if-match")))
        require_expected(services.directory.snapshot.version)
    if not verdict.allowed or rule.action is not Action.INSPECT:
        detail = f"{request.method} {request.url.path}" + (f": {verdict.reason}" if verdict.reason else "")
        await record(
            request,
            who=actor.name,
            action=rule.action.value,
            resource=rule.resource,
            allowed=verdict.allowed,
            detail=detail,
            via=actor.via,
        )
    if not verdict.allowed:
        raise DeniedError(verdict.reason, hint=verdict.hint)
    return actor


async def authenticate(
    request: Request, services: Services, *, touch: bool = True
) -> tuple[Actor, ConsoleSession | None]:
    """Return who asks: a token's caller, the socket's peer, or the browser session.

    Raises UnauthenticatedError, or InvalidRequestError for two credentials at once.

    With `touch` the session counts as used, which puts off its idle end.
    """
    if "authorization" in request.headers:
        bearers: Bearers = request.app.state.bearers
        caller = await bearers.caller_of(request)
        return Actor(str(caller.principal), caller.principal, "token", caller), None
    uid = peer_uid(request)
    if uid is not None:
        return Actor(f"operator:{uid}", None, "socket"), None
    token = sessions.token_of(request)
    session = await asyncio.to_thread(
        sessions.current, services, token, sessions.place_of(request, services), touch=touch
    )
    if session is None:
        raise UnauthenticatedError(
            "this needs a session and there is none",
            hint="Sign in with a passkey, or ask the operator for a link (`doorward admin link`).",
        )
    if session.principal is None:
        return Actor(session.operator, None, "link"), session
    via: Via = "totp" if session.method == "totp" else "passkey"
    return Actor(str(session.principal), session.principal, via), session


async def still_allowed(request: Request, rule: Rule) -> bool:
    """Judge again, as on a new request: an ended session or a lost role ends an open stream."""
    services: Services = request.app.state.services
    try:
        actor, session = await authenticate(request, services, touch=False)
        verdict = await asyncio.to_thread(judge, services, actor, session, rule, _ip(request))
    except DoorwardError:
        return False
    return verdict.allowed


def peer_uid(request: Request) -> int | None:
    """Return the uid at the other end of the Unix socket; None on a TCP connection."""
    uid = request.scope.get("state", {}).get("peer_uid")
    return uid if isinstance(uid, int) else None


def judge(
    services: Services, actor: Actor, session: ConsoleSession | None, rule: Rule, ip: str | None
) -> Verdict:
    """Judge one actor against one rule; no record, no effect."""
    if rule.socket_only and actor.via != "socket":
        return Verdict(
            allowed=False,
            reason="only the local operator may do this",
            hint="Use the command line on the machine itself.",
        )
    match actor.via:
        case "socket":
            return _judge_operator(local_operator(services), rule)
        case "link":
            return _judge_link(local_operator(services), rule)
        case "passkey" | "totp":
            return _judge_user(services, actor, session, rule, ip)
        case "token":
            return _judge_caller(services, actor, rule, ip)


def local_operator(services: Services) -> LocalOperator:
    """Return what the local operator may do: as configured, else by the kind of installation.

    Unset, it is everything on an embedded database, and on a shared one everything until the first
    admin has a passkey.
    """
    configured = services.settings.control.local_operator
    if configured is not None:
        return configured
    if services.settings.control.database.startswith("sqlite"):
        return "full"
    return "recovery" if has_admin(services) else "full"


def _judge_operator(mode: LocalOperator, rule: Rule) -> Verdict:
    if mode == "full" or rule.action in _RECOVERS or rule.recovery:
        return Verdict(allowed=True)
    return Verdict(
        allowed=False,
        reason=f"the local operator may only read, contain and renew the first-admin link, not {rule.action}",
        hint='Sign in as an admin in the console, or set `[control] local_operator = "full"`.',
    )


def _judge_link(mode: LocalOperator, rule: Rule) -> Verdict:
    if mode == "full" and rule.action in _LOOKS_ONLY:
        return Verdict(allowed=True)
    return Verdict(
        allowed=False,
        reason="a session opened by an operator's link may only look",
        hint="Sign in with a passkey to change things.",
    )


def _judge_user(
    services: Services, actor: Actor, session: ConsoleSession | None, rule: Rule, ip: str | None
) -> Verdict:
    if actor.principal is None or session is None:
        return Verdict(allowed=False, reason="no user stands behind this session")
    standpoint = services.point.pin()
    if not standpoint.snapshot.is_active(actor.principal):
        return Verdict(allowed=False, reason=f"{actor.name} is not known or no longer active")
    context = _context(services, session, ip, standpoint.snapshot.zone_of)
    decision = standpoint.decide(AccessRequest(actor.principal, rule.action.uid, rule.resource, context))
    return Verdict(allowed=True) if decision.allowed else _refused(actor, rule, decision)


def _judge_caller(services: Services, actor: Actor, rule: Rule, ip: str | None) -> Verdict:
    caller = actor.caller
    if caller is None:
        return Verdict(allowed=False, reason="no token stands behind this request")
    if not all(bounds.permits(rule.action.value, rule.resource) for bounds in caller.bounds):
        return Verdict(
            allowed=False,
            reason=f"the token this was sent with is not for {rule.action} {rule.resource}",
            hint="Sign in again without these limits.",
        )
    standpoint = services.point.pin()
    asked = requests_of(
        caller,
        action=rule.action.uid,
        resource=rule.resource,
        now=services.clock.now(),
        ip=ip,
        zone_of=standpoint.snapshot.zone_of,
    )
    for request in asked:
        decision = standpoint.decide(request)
        if not decision.allowed:
            return _refused(Actor(str(request.principal), request.principal, "token"), rule, decision)
    return Verdict(allowed=True)


def _refused(actor: Actor, rule: Rule, decision: Decision) -> Verdict:
    advice = " ".join(decision.advice)
    return Verdict(
        allowed=False,
        reason=f"no policy lets {actor.name} {rule.action} {rule.resource}"
        if not decision.determining and not decision.errors
        else f"policies deny {actor.name} to {rule.action} {rule.resource}",
        hint=advice or "Ask someone who governs Doorward to do it, or to give you the role.",
    )


def _context(
    services: Services, session: ConsoleSession, ip: str | None, zone_of: Callable[[str], str]
) -> Context:
    now = services.clock.now()
    age = max(0, int((now - session.created).total_seconds()))
    network = NetworkContext(zone=zone_of(ip)) if ip else NetworkContext()
    shown = session.mfa_at
    mfa_age = None if shown is None else max(0, int((now - shown).total_seconds()))
    signed_in = SessionContext(
        method=session.method,
        acr="aal1" if shown is None else "aal2",
        mfa=shown is not None,
        age=age,
        mfa_age=mfa_age,
    )
    return Context(now=now, network=network, session=signed_in)


async def record(  # noqa: PLR0913 -- the fields of a record
    request: Request,
    *,
    who: str,
    action: str,
    resource: EntityUid,
    allowed: bool,
    detail: str,
    via: str,
) -> None:
    """Put one administrative act on durable record; raise AuditUnavailableError if it cannot be."""
    services: Services = request.app.state.services
    await services.audit.write(
        act_of(
            services,
            asked_as=request_id(request),
            who=who,
            action=action,
            resource=resource,
            detail=detail,
            changes={"via": via},
            allowed=allowed,
        )
    )


def request_id(request: Request) -> str:
    """Return the id the guard gave this request."""
    return str(request.scope.get("state", {}).get("request_id", ""))


def _ip(request: Request) -> str | None:
    return request.client.host if request.client and peer_uid(request) is None else None
