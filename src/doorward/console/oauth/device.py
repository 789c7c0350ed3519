"""Sign in on a machine without a browser (RFC 8628): it shows a code, and a person types it in here."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from doorward.console import session as sessions
from doorward.console.oauth import consent
from doorward.console.oauth.authorize import resources_of
from doorward.console.oauth.forms import read_form
from doorward.console.oauth.limits import scope_of, wanted_bounds
from doorward.console.oauth.pending import DEVICE_SECONDS, INTERVAL, Asked, Device
from doorward.console.oauth.refusal import OAuthError, answer
from doorward.console.oauth.server import address_of
from doorward.console.oauth.token import guarded
from doorward.console.render import page
from doorward.identity.issuer import CLIENT as CLI

if TYPE_CHECKING:
    from doorward.console.oauth.server import AuthorizationServer
    from doorward.core.accounts import ConsoleSession

# No vowels, so no words; nothing that looks like something else (RFC 8628, 6.1). 20^8 is 34 bits: with a few
# tries a minute and person nobody guesses one of a few codes that live for ten minutes.
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_LENGTH = 8


def add(routes: APIRouter, server: AuthorizationServer) -> None:
    """Add where a device asks, and the page on which a person answers."""

    @routes.post("/device_authorization")
    async def device_authorization(request: Request) -> Response:
        """Give a device a code to show (RFC 8628, 3.1)."""
        return await guarded(server, request, lambda: _begun(server, request))

    @routes.get("/device", include_in_schema=False)
    async def device(request: Request, user_code: str = "") -> Response:
        """Ask for the code; one in the address is filled in, and still has to be sent."""
        elsewhere = consent.by_name(server, request)
        if elsewhere is not None:
            return elsewhere
        if await consent.signed_in(server, request) is None:
            return consent.to_sign_in(server, request)
        return _form(request, user_code=_plain(user_code)[:_LENGTH])

    @routes.post("/device", include_in_schema=False)
    async def entered(request: Request) -> Response:
        """Take the code, then the answer; the guard has made sure that both come from our own page."""
        session = await consent.signed_in(server, request)
        if session is None:
            return consent.to_sign_in(server, request)
        try:
            form = await read_form(request)
            ticket = form.get("ticket")
            if ticket is None:
                return _asked(server, request, session, form.require("user_code"))
            return await _answered(server, request, session, ticket, allowed=form.get("answer") == "allow")
        except OAuthError as error:
            return _form(request, said=error.description, status=error.status)


async def _begun(server: AuthorizationServer, request: Request) -> Response:
    form = await read_form(request)
    server.askings.require(address_of(request))
    client = await server.client(request, form)
    if client.id != CLI:
        raise OAuthError("unauthorized_client", "nobody signs in through this client")
    server.askings.failed(address_of(request))
    bounds = wanted_bounds(form)
    user_code = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    waiting = Device(
        Asked(
            client=client.id,
            resources=resources_of(server, form),
            bounds=bounds,
            scope=scope_of(() if bounds is None else (bounds,)),
        ),
        user_code=user_code,
        asked_from=address_of(request),
        asked_at=server.clock.now(),
    )
    device_code = server.devices.put(waiting)
    server.user_codes.put(waiting, user_code)
    page_address = f"{sessions.base_url(server.services)}/oauth/device"
    shown = f"{user_code[:4]}-{user_code[4:]}"
    return answer(
        {
            "device_code": device_code,
            "user_code": shown,
            "verification_uri": page_address,
            "verification_uri_complete": f"{page_address}?user_code={shown}",
            "expires_in": int(DEVICE_SECONDS),
            "interval": INTERVAL,
        }
    )


def _asked(
    server: AuthorizationServer, request: Request, session: ConsoleSession, user_code: str
) -> Response:
    who = str(session.principal)
    server.guesses.require(who)
    device = server.user_codes.get(_plain(user_code))
    if device is None or device.person is not None or device.denied:
        server.guesses.failed(who)
        raise OAuthError("invalid_request", "This code is not known, or it is over. Look at it again.")
    return consent.ask(server, request, session, device.asked, device=device)


async def _answered(
    server: AuthorizationServer, request: Request, session: ConsoleSession, ticket: str, *, allowed: bool
) -> Response:
    given = consent.answered(server, session, ticket)
    if given is None or given.device is None:
        raise OAuthError("invalid_request", "This page is over: enter the code again.")
    device = given.device
    person = await consent.sleepless(server, session)
    await consent.record(server, request, session, given, allowed=allowed)
    # One answer per code: whoever comes second is told that it is over.
    if server.user_codes.take(device.user_code) is None:
        raise OAuthError("invalid_request", "This code was answered already, or it is over.")
    device.denied = not allowed
    device.person = person if allowed else None
    return page(request, "device_done.html", allowed=allowed)


def _form(request: Request, *, user_code: str = "", said: str = "", status: int = HTTPStatus.OK) -> Response:
    return page(request, "device.html", status, user_code=user_code, said=said)


def _plain(user_code: str) -> str:
    """Return a code as it was given out, however it was typed."""
    return "".join(letter for letter in user_code.upper() if letter in _LETTERS)
