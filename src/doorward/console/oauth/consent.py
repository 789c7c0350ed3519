"""The pages on which a person lets a client act for her: signed in with MFA, and knowing what for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from doorward.console import session as sessions
from doorward.console.authorise import authenticate
from doorward.console.oauth.pending import Asked, Consent, Device, Person
from doorward.console.render import page
from doorward.core.errors import DeniedError, UnauthenticatedError
from doorward.core.model import Action, EntityUid

if TYPE_CHECKING:
    from doorward.console.oauth.server import AuthorizationServer
    from doorward.core.accounts import ConsoleSession

_NUMERIC_HOSTS = frozenset({"127.0.0.1", "::1"})
_SEE_OTHER, _TEMPORARY = 303, 307
_AMR = {"passkey": ("hwk", "user", "mfa"), "totp": ("otp", "mfa")}


async def signed_in(
    server: AuthorizationServer, request: Request, *, max_age: int | None = None
) -> ConsoleSession | None:
    """Return the session of a user who signed in with MFA, and not longer ago than `max_age` seconds."""
    try:
        _actor, session = await authenticate(request, server.services)
    except UnauthenticatedError:
        return None
    if session is None or session.principal is None or session.mfa_at is None:
        return None
    age = (server.clock.now() - session.mfa_at).total_seconds()
    return None if max_age is not None and age > max_age else session


def person_of(server: AuthorizationServer, session: ConsoleSession) -> Person:
    """Return who agrees; raise DeniedError for somebody who is not active now."""
    if session.principal is None or session.mfa_at is None:
        raise DeniedError("only a user who signed in with MFA can let a client act")
    if not server.snapshot.is_active(session.principal):
        raise DeniedError(f"{session.principal} is not known or no longer active")
    amr = _AMR.get(session.method, ("mfa",))
    return Person(principal=session.principal, signed_in_at=session.mfa_at, acr="aal2", amr=amr)


def to_sign_in(server: AuthorizationServer, request: Request) -> Response:
    """Send a browser to sign in and back to this very page."""
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    address = f"{sessions.base_url(server.services)}/sign-in?next={quote(back, safe='')}"
    return RedirectResponse(address, _SEE_OTHER)


def by_name(server: AuthorizationServer, request: Request) -> Response | None:
    """Send a browser that came by IP address to `localhost`, where its session is."""
    base = sessions.base_url(server.services)
    if request.url.hostname not in _NUMERIC_HOSTS or urlsplit(base).hostname in _NUMERIC_HOSTS:
        return None
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{base}{request.url.path}{query}", _TEMPORARY)


def ask(
    server: AuthorizationServer,
    request: Request,
    session: ConsoleSession,
    asked: Asked,
    *,
    device: Device | None = None,
) -> Response:
    """Show the question, good for one answer of this session."""
    ticket = server.consents.put(Consent(asked, session.hash, device))
    if asked.redirect_uri:
        allow_form_to(request, asked.redirect_uri)
    return page(
        request,
        "consent.html",
        ticket=ticket,
        who=str(session.principal),
        client=asked.client,
        resources=[_said(server, resource) for resource in asked.resources],
        limits=_limits(asked),
        device=device,
        host=urlsplit(asked.redirect_uri).netloc,
    )


def answered(server: AuthorizationServer, session: ConsoleSession, ticket: str) -> Consent | None:
    """Return the question a ticket stands for, once, and only to the session it was put to."""
    consent = server.consents.take(ticket)
    return consent if consent is not None and consent.session == session.hash else None


def allow_form_to(request: Request, redirect_uri: str) -> None:
    """Let the browser follow the answer of this page's form to the client that waits (CSP form-action)."""
    parts = urlsplit(redirect_uri)
    request.scope["state"]["form_action"] = f"{parts.scheme}://{parts.netloc}"


async def record(
    server: AuthorizationServer, request: Request, session: ConsoleSession, consent: Consent, *, allowed: bool
) -> None:
    """Put the answer on record."""
    await server.record(
        request,
        who=str(session.principal),
        action=Action.ISSUE,
        resource=EntityUid.of("Control", "keys"),
        detail=f"{'let' if allowed else 'do not let'} {consent.asked.client} act for oneself",
        changes={
            "via": "device" if consent.device is not None else "browser",
            "resources": list(consent.asked.resources),
            "asked_from": consent.device.asked_from if consent.device is not None else "",
        },
        allowed=allowed,
    )


async def sleepless(server: AuthorizationServer, session: ConsoleSession) -> Person:
    """Return who agrees, looked up outside the event loop."""
    return await asyncio.to_thread(person_of, server, session)


def _said(server: AuthorizationServer, resource: str) -> str:
    if resource == server.management:
        return f"manage Doorward with your rights ({resource})"
    return f"use AI systems with your rights ({resource})"


def _limits(asked: Asked) -> Sequence[str]:
    bounds = asked.bounds
    if bounds is None:
        return ()
    said = [
        ("actions", ", ".join(bounds.actions)),
        ("upstreams", ", ".join(bounds.upstreams)),
        ("assets", ", ".join(map(str, bounds.resources))),
        ("tokens a call", "" if bounds.max_tokens is None else str(bounds.max_tokens)),
        ("arguments", ", ".join(f"{name} = {value}" for name, value in bounds.arguments)),
    ]
    return [f"{name}: {value}" for name, value in said if value]
