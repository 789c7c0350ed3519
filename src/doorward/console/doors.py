"""The ways into the console: enrol by link, open by link, sign in with a passkey, sign out.

These routes are public: each proves its caller itself. The guard has already made sure that
a browser's request comes from our own page.
"""

from __future__ import annotations

import asyncio
import io
from typing import Any

import segno
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import URL

from doorward.console import links, passkeys
from doorward.console import session as sessions
from doorward.console.authorise import local_operator, record
from doorward.console.incoming import key_shown
from doorward.console.links import ADMIN
from doorward.console.render import page
from doorward.console.services import Services
from doorward.core.accounts import LinkKind, OneTimeLink, Passkey
from doorward.core.errors import ConflictError, DeniedError, UnauthenticatedError
from doorward.core.model import EntityUid
from doorward.directory.org import parse
from doorward.identity.authenticator_app import AuthenticatorApps

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


class AppEnrolment(LinkToken):
    """A link's token, the secret that was offered and the code it shows."""

    secret: str = Field(max_length=64)
    code: str = Field(max_length=16)


class KeyAndCode(_Body):
    """An API key of one's own and the code of one's app, or a recovery code: two factors."""

    key: str = Field(max_length=200)
    code: str = Field(max_length=32)


class AppOffer(_Body):
    """A new secret, its `otpauth` address and a picture (SVG) that apps read it from."""

    secret: str
    address: str
    picture: str


def offer(apps: AuthenticatorApps, principal: EntityUid) -> AppOffer:
    """Return what an authenticator app needs to begin."""
    secret, address = apps.offer(principal)
    drawn = io.BytesIO()
    segno.make(address, error="m").save(
        drawn, kind="svg", xmldecl=False, scale=4, dark="#1f2937", light="#ffffff"
    )
    return AppOffer(secret=secret, address=address, picture=drawn.getvalue().decode())


def router(services: Services) -> APIRouter:
    """Build the public pages and ceremonies."""
    routes = APIRouter(include_in_schema=False)
    challenges = passkeys.Challenges(services.clock)
    apps = AuthenticatorApps(services.directory.accounts, services.custodian, services.clock)
    _pages(routes, services)
    _enrolment(routes, services, challenges, apps)
    _signing_in(routes, services, challenges)
    _with_app(routes, services, apps)
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


def _enrolment(
    routes: APIRouter, services: Services, challenges: passkeys.Challenges, apps: AuthenticatorApps
) -> None:
    accounts = services.directory.accounts

    @routes.post("/enrol/options")
    async def enrol_options(request: Request, body: LinkToken) -> dict[str, Any]:
        link = await asyncio.to_thread(links.peek, services, body.token, LinkKind.ENROL)
        whose = link.principal or ADMIN
        known = await asyncio.to_thread(accounts.list_passkeys, whose)
        return passkeys.enrol_options(
            challenges,
            rp_id=str(request.url.hostname),
            principal=whose,
            known=known,
            purpose=_purpose(body.token),
        )

    @routes.post("/enrol/finish")
    async def enrol(request: Request, body: Enrolment) -> Response:
        """Verify first, so that a failed try does not burn the link; then use it up; then keep the key."""
        link = await asyncio.to_thread(links.peek, services, body.token, LinkKind.ENROL)
        whose = _enrolled_by(services, link)
        passkey = passkeys.enrol(
            challenges,
            body.credential,
            rp_id=str(request.url.hostname),
            origin=origin_of(request),
            principal=whose,
            purpose=_purpose(body.token),
            clock=services.clock,
        )
        await _record(request, link.operator, "enrol", f"a passkey for {whose}", "link")
        await asyncio.to_thread(_keep, services, body.token, passkey)
        return await _signed_in(request, services, principal=whose, operator=link.operator, method="passkey")

    @routes.post("/enrol/app")
    async def offer_app(body: LinkToken) -> AppOffer:
        """Offer an authenticator app's secret to whoever holds the link; nothing is kept yet."""
        link = await asyncio.to_thread(links.peek, services, body.token, LinkKind.ENROL)
        return offer(apps, _enrolled_by(services, link))

    @routes.post("/enrol/app/finish")
    async def enrol_app(request: Request, body: AppEnrolment) -> Response:
        """Keep the app that shows the right code; the link is used up, and recovery codes are shown once."""
        link = await asyncio.to_thread(links.peek, services, body.token, LinkKind.ENROL)
        whose = _enrolled_by(services, link)
        await _record(request, link.operator, "enrol", f"an authenticator app for {whose}", "link")
        codes = await asyncio.to_thread(_keep_app, services, apps, link, body, whose)
        answer = await _signed_in(request, services, principal=whose, operator=link.operator, method="totp")
        shown = JSONResponse({"recovery_codes": codes})
        shown.headers.append("set-cookie", answer.headers["set-cookie"])
        return shown


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
            origin=origin_of(request),
            known=known,
        )
        if not await asyncio.to_thread(_is_active, services, passkey.principal):
            raise UnauthenticatedError("this user is not known or no longer active")
        await _record(request, str(passkey.principal), "sign-in", "signed in with a passkey", "passkey")
        await asyncio.to_thread(accounts.update_sign_count, passkey.credential_id, passkey.sign_count)
        return await _signed_in(request, services, principal=passkey.principal, operator="", method="passkey")


def _with_app(routes: APIRouter, services: Services, apps: AuthenticatorApps) -> None:
    @routes.post("/sign-in/code")
    async def sign_in_with_code(request: Request, body: KeyAndCode) -> Response:
        """Sign in with an API key of one's own and a code: both, or the same refusal for either."""
        principal = await asyncio.to_thread(_holder, services, body.key, request)
        try:
            await asyncio.to_thread(apps.check, principal, body.code)
        except UnauthenticatedError as wrong:
            await record(
                request, who=str(principal), action="sign-in", resource=_CONTROL, allowed=False,
                detail=wrong.reason, via="totp",
            )  # fmt: skip
            raise
        await _record(request, str(principal), "sign-in", "signed in with a key and a code", "totp")
        return await _signed_in(request, services, principal=principal, operator="", method="totp")


def _holder(services: Services, text: str, request: Request) -> EntityUid:
    """Return the active user whose API key this is; raise UnauthenticatedError."""
    try:
        key = key_shown(text, ip=request.client.host if request.client else "", services=services)
    except UnauthenticatedError as refused:
        raise _not_accepted(refused.reason) from None
    if key.subject.kind != "User":
        raise _not_accepted("key_not_hers")
    # A session has no bounds: a key made for less must not open one.
    if key.bounds is not None:
        raise _not_accepted("key_bounded")
    return key.subject


def _not_accepted(reason: str) -> UnauthenticatedError:
    return UnauthenticatedError(
        "the key or the code is not accepted", hint="Use an API key of your own.", reason=reason
    )


def _enrolled_by(services: Services, link: OneTimeLink) -> EntityUid:
    """Return whose factor a link enrols; raise DeniedError if she is out meanwhile."""
    if link.principal is not None and not services.directory.snapshot.is_active(link.principal):
        raise DeniedError(f"{link.principal} is not known or no longer active")
    return link.principal or ADMIN


def _keep_app(
    services: Services, apps: AuthenticatorApps, link: OneTimeLink, body: AppEnrolment, whose: EntityUid
) -> list[str]:
    """Use up the link, then keep the app: a wrong code burns neither."""
    apps.verify_new(body.secret, body.code)
    _ensure_admin(services, link, whose)
    links.redeem(services, body.token, LinkKind.ENROL)
    return apps.confirm(whose, body.secret, body.code)


def _ensure_admin(services: Services, link: OneTimeLink, whose: EntityUid) -> None:
    if whose == ADMIN and services.directory.entity(ADMIN) is None:
        services.directory.apply(parse(_ADMIN_ORG, "first admin"), prune=False, operator=link.operator)


def _keep(services: Services, token: str, passkey: Passkey) -> None:
    """Make sure there is an admin before the link is used up: what can fail comes first."""
    link = links.peek(services, token, LinkKind.ENROL)
    _ensure_admin(services, link, passkey.principal)
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
        place=sessions.place_of(request, services),
        mfa=principal is not None,
    )
    answer = Response(status_code=204)
    sessions.set_cookie(request, answer, token)
    return answer


def _purpose(token: str) -> str:
    return f"enrol:{sessions.digest(token)}"


def origin_of(request: Request) -> str:
    """Return the origin a browser must have used to come here."""
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
