"""`/oauth/authorize`: the code grant with PKCE (OAuth 2.1, 4.1), for clients on the person's own machine.

What is wrong with the client or its address is told to the person alone; everything else goes back to the
client, always with `iss` (RFC 9207), so that it cannot take our answer for another issuer's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from doorward.console.oauth import consent
from doorward.console.oauth.forms import Form, of_pairs, read_form
from doorward.console.oauth.limits import scope_of, wanted_bounds
from doorward.console.oauth.pending import Asked, Code
from doorward.console.oauth.refusal import OAuthError
from doorward.console.render import page
from doorward.identity.issuer import CLIENT as CLI

if TYPE_CHECKING:
    from doorward.console.oauth.server import AuthorizationServer

# A native client listens on a port of its own on this very machine (RFC 8252, 7.3): the address is exact
# but for the port. `localhost` may be somebody else's by name, so it is not one (8.3).
_REDIRECT = re.compile(r"http://127\.0\.0\.1:([1-9][0-9]{0,4})/callback", re.ASCII)
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_THUMBPRINT = _CHALLENGE
_STATE = re.compile(r"[\x20-\x7e]{1,512}", re.ASCII)
_MAX_PORT = 65_535
_MAX_QUERY = 8192
_SEE_OTHER = 303
_NOT_SPOKEN = {"request": "request_not_supported", "request_uri": "request_uri_not_supported"}


def add(routes: APIRouter, server: AuthorizationServer) -> None:
    """Add the authorization endpoint and the answer of its page."""

    @routes.get("/authorize", include_in_schema=False)
    async def authorize(request: Request) -> Response:
        """Ask the person in front of the browser whether the client may act for her."""
        return consent.by_name(server, request) or await _question(server, request)

    @routes.post("/authorize", include_in_schema=False)
    async def answer(request: Request) -> Response:
        """Take the answer; the guard has made sure that it comes from our own page."""
        return await _answered(server, request)


async def _question(server: AuthorizationServer, request: Request) -> Response:
    try:
        form = _query(request)
        redirect_uri = _addressed(form)
    except OAuthError as error:
        return _told(request, error)
    back = _Back(server.issuer.issuer, redirect_uri, form.get("state"))
    try:
        asked, max_age = _asked(server, form, redirect_uri), _max_age(form)
    except OAuthError as error:
        return back.with_error(error.error, error.description)
    session = await consent.signed_in(server, request, max_age=max_age)
    if session is not None:
        return consent.ask(server, request, session, asked)
    if form.get("prompt") == "none":
        return back.with_error("login_required")
    return consent.to_sign_in(server, request)


async def _answered(server: AuthorizationServer, request: Request) -> Response:
    try:
        form = await read_form(request)
        session = await consent.signed_in(server, request)
        given = None if session is None else consent.answered(server, session, form.require("ticket"))
    except OAuthError as error:
        return _told(request, error)
    if session is None or given is None or given.device is not None:
        return _told(request, OAuthError("invalid_request", "this page is over: start again"))
    asked, allowed = given.asked, form.get("answer") == "allow"
    back = _Back(server.issuer.issuer, asked.redirect_uri, asked.state)
    person = await consent.sleepless(server, session)
    await consent.record(server, request, session, given, allowed=allowed)
    if not allowed:
        return back.with_error("access_denied")
    return back.with_code(server.codes.put(Code(asked, person)))


def _query(request: Request) -> Form:
    if len(request.url.query) > _MAX_QUERY:
        raise OAuthError("invalid_request", "the address is too long")
    return of_pairs(request.query_params.multi_items())


def _addressed(form: Form) -> str:
    """Return where the answer goes; raise OAuthError, which is told to nobody but the person."""
    if form.require("client_id") != CLI:
        raise OAuthError("invalid_client", "no client of this name is registered")
    redirect_uri = form.require("redirect_uri")
    match = _REDIRECT.fullmatch(redirect_uri)
    if match is None or int(match[1]) > _MAX_PORT:
        raise OAuthError("invalid_request", "the client did not register this redirect_uri")
    return redirect_uri


def _asked(server: AuthorizationServer, form: Form, redirect_uri: str) -> Asked:
    for name, error in _NOT_SPOKEN.items():
        if form.get(name) is not None:
            raise OAuthError(error, "send the parameters themselves")
    if form.require("response_type") != "code":
        raise OAuthError("unsupported_response_type", "the only one is code")
    if form.get("response_mode") not in {None, "query"}:
        raise OAuthError("invalid_request", "the only response_mode is query")
    state = form.get("state")
    if state is not None and not _STATE.fullmatch(state):
        raise OAuthError("invalid_request", "state is too long or not printable")
    # PKCE is not optional, and `plain` would be none (OAuth 2.1, 7.5.2).
    if form.get("code_challenge_method") != "S256":
        raise OAuthError("invalid_request", "code_challenge_method must be S256")
    challenge = form.get("code_challenge")
    if challenge is None or not _CHALLENGE.fullmatch(challenge):
        raise OAuthError("invalid_request", "code_challenge is missing or not one")
    key = form.get("dpop_jkt")
    if key is not None and not _THUMBPRINT.fullmatch(key):
        raise OAuthError("invalid_request", "dpop_jkt is no thumbprint")
    bounds = wanted_bounds(form)
    return Asked(
        client=CLI,
        resources=resources_of(server, form),
        bounds=bounds,
        scope=scope_of(() if bounds is None else (bounds,)),
        redirect_uri=redirect_uri,
        state=state,
        challenge=challenge,
        proof_key=key,
    )


def resources_of(server: AuthorizationServer, form: Form) -> tuple[str, ...]:
    """Return every resource a sign-in is asked for (RFC 8707, 2.1); without one it is the gateway."""
    named = tuple(dict.fromkeys(form.every("resource")))
    return tuple(server.audience((one,), one) for one in named) or (server.issuer.audience,)


def _max_age(form: Form) -> int | None:
    """Return how old a sign-in may be, as a step-up challenge asks for (RFC 9470, 4)."""
    text = form.get("max_age")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):  # noqa: PLR2004 -- thirty years
        raise OAuthError("invalid_request", "max_age is a number of seconds")
    return int(text)


@dataclass(frozen=True, slots=True)
class _Back:
    """The way back to the client."""

    issuer: str
    redirect_uri: str
    state: str | None

    def with_code(self, code: str) -> Response:
        return self._redirect(code=code)

    def with_error(self, error: str, description: str = "") -> Response:
        return self._redirect(error=error, error_description=description)

    def _redirect(self, **told: str) -> Response:
        given = {**told, "state": self.state or "", "iss": self.issuer}
        query = urlencode({name: value for name, value in given.items() if value})
        return RedirectResponse(f"{self.redirect_uri}?{query}", _SEE_OTHER)


def _told(request: Request, error: OAuthError) -> Response:
    detail = error.description or error.error
    hint = "Nothing was given to anybody. Go back to the program that sent you here."
    return page(
        request,
        "error.html",
        HTTPStatus.BAD_REQUEST,
        title="This cannot be answered",
        detail=detail,
        hint=hint,
        request_id=str(request.scope.get("state", {}).get("request_id", "")),
    )
