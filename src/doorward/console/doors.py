"""The ways into the console: enrol by link, open by link, sign in with a passkey, sign out.

These routes are public: each proves its caller itself. The guard has already made sure that
a browser's request comes from our own page.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import URL

from doorward.console import links, passkeys
from doorward.console import session as sessions
from doorward.console.authorise import local_operator, record
from doorward.console.render import page
from doorward.console.services import Services
from doorward.core.accounts import LinkKind, Passkey
from doorward.core.errors import ConflictError, DeniedError, UnauthenticatedError
from doorward.core.model import EntityUid
from doorward.directory.org import parse

ADMIN = EntityUid.of("User", "admin")
_CONTROL = EntityUid.of("Control", "keys")
_ADMIN_ORG = "users:\n  admin: { roles: [admin] }\n"
_NUMERIC_HOSTS = frozenset({"127.0.0.1", "::1"})


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LinkToken(_Body):
    """The token out of a link's fragment."""

    token: str = Field(max_length=128)


class Answer(_Body):
    """What the browser's authenticator answered."""

    credential: dict[str, Any]


class Enrolment(LinkToken, Answer):
    """A link's token and the new passkey."""


def router(services: Services) -> APIRouter:
    """Build the public pages and ceremonies."""
    routes = APIRouter(include_in_schema=False)
    challenges = passkeys.Challenges(services.clock)
    _pages(routes, services)
    _enrolment(routes, services, challenges)
    _signing_in(routes, services, challenges)
    return routes


def _pages(routes: APIRouter, services: Services) -> None:
    @routes.get("/enrol")
    async def enrol_page(request: Request) -> Response:
        return _by_name(request) or page(request, "enrol.html")

    @routes.get("/sign-in")
    async def sign_in_page(request: Request) -> Response:
        return _by_name(request) or page(request, "sign_in.html")

    @routes.get("/open")
    async def open_page(request: Request) -> Response:
        return page(request, "open.html")

    @routes.post("/open/redeem")
    async def open_console(request: Request, body: LinkToken) -> Response:
        if await asyncio.to_thread(local_operator, services) != "full":
            raise DeniedError("the local operator may not open the console here")
        link = await asyncio.to_thread(links.peek, services, body.token, LinkKind.SESSION)
        await _record(request, link.operator, "sign-in", "a session that may look", "link")
        link = await asyncio.to_thread(links.redeem, services, body.token, LinkKind.SESSION)
        return await _signed_in(request, services, principal=None, operator=link.operator, method="link")

    @routes.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        await asyncio.to_thread(sessions.end, services, sessions.token_of(request))
        answer = RedirectResponse("/sign-in", 303)
        sessions.clear_cookie(request, answer)
        answer.headers["Clear-Site-Data"] = '"cache", "storage"'
        return answer


def _enrolment(routes: APIRouter, services: Services, challenges: passkeys.Challenges) -> None:
    accounts = services.directory.accounts

    @routes.post("/enrol/options")
    async def enrol_options(request: Request, body: LinkToken) -> dict[str, Any]:
        await asyncio.to_thread(links.peek, services, body.token, LinkKind.ENROL)
        known = await asyncio.to_thread(accounts.list_passkeys, ADMIN)
        return passkeys.enrol_options(
            challenges,
            rp_id=str(request.url.hostname),
            principal=ADMIN,
            known=known,
            purpose=_purpose(body.token),
        )

    @routes.post("/enrol/finish")
    async def enrol(request: Request, body: Enrolment) -> Response:
        """Verify first, so that a failed try does not burn the link; then use it up; then keep the key."""
        link = await asyncio.to_thread(links.peek, services, body.token, LinkKind.ENROL)
        passkey = passkeys.enrol(
            challenges,
            body.credential,
            rp_id=str(request.url.hostname),
            origin=_origin(request),
            principal=ADMIN,
            purpose=_purpose(body.token),
            clock=services.clock,
        )
        await _record(request, link.operator, "enrol", f"a passkey for {ADMIN}", "link")
        await asyncio.to_thread(_keep, services, body.token, passkey)
        return await _signed_in(request, services, principal=ADMIN, operator=link.operator, method="passkey")


def _signing_in(routes: APIRouter, services: Services, challenges: passkeys.Challenges) -> None:
    accounts = services.directory.accounts

    @routes.post("/sign-in/options")
    async def sign_in_options(request: Request) -> dict[str, Any]:
        return passkeys.sign_in_options(challenges, rp_id=str(request.url.hostname))

    @routes.post("/sign-in/finish")
    async def sign_in(request: Request, body: Answer) -> Response:
        known = await asyncio.to_thread(accounts.list_passkeys)
        passkey = passkeys.sign_in(
            challenges,
            body.credential,
            rp_id=str(request.url.hostname),
            origin=_origin(request),
            known=known,
        )
        if not await asyncio.to_thread(_is_active, services, passkey.principal):
            raise UnauthenticatedError("this user is not known or no longer active")
        await _record(request, str(passkey.principal), "sign-in", "signed in with a passkey", "passkey")
        await asyncio.to_thread(accounts.update_sign_count, passkey.credential_id, passkey.sign_count)
        return await _signed_in(request, services, principal=passkey.principal, operator="", method="passkey")


def _keep(services: Services, token: str, passkey: Passkey) -> None:
    """Make sure there is an admin before the link is used up: what can fail comes first."""
    link = links.peek(services, token, LinkKind.ENROL)
    if services.directory.entity(ADMIN) is None:
        services.directory.apply(parse(_ADMIN_ORG, "first admin"), prune=False, operator=link.operator)
    links.redeem(services, token, LinkKind.ENROL)
    try:
        services.directory.accounts.add_passkey(passkey)
    except ConflictError as reason:
        raise ConflictError(
            "this passkey is enrolled already", hint="Sign in with it at /sign-in."
        ) from reason


def _is_active(services: Services, principal: EntityUid) -> bool:
    return bool(services.point.pin().snapshot.is_active(principal))


async def _record(request: Request, who: str, action: str, detail: str, via: str) -> None:
    await record(request, who=who, action=action, resource=_CONTROL, allowed=True, detail=detail, via=via)


async def _signed_in(
    request: Request, services: Services, *, principal: EntityUid | None, operator: str, method: str
) -> Response:
    token = await asyncio.to_thread(
        sessions.start,
        services,
        principal=principal,
        operator=operator,
        method=method,
        replaces=sessions.token_of(request),
    )
    answer = Response(status_code=204)
    sessions.set_cookie(request, answer, token)
    return answer


def _purpose(token: str) -> str:
    return f"enrol:{sessions.digest(token)}"


def _origin(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def _by_name(request: Request) -> Response | None:
    """Send a browser that came by IP address to `localhost`: browsers refuse passkeys for addresses.

    The target is built from our own parts only; the fragment stays with the browser.
    """
    if request.url.hostname not in _NUMERIC_HOSTS:
        return None
    target = URL(scheme=request.url.scheme, path=request.url.path).replace(
        hostname="localhost", port=request.url.port
    )
    return RedirectResponse(str(target), 307)
