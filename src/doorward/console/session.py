"""Browser sessions: a random cookie, kept hashed, new at each sign-in, gone at sign-out."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from doorward.core.accounts import ConsoleSession
from doorward.settings import is_loopback, split_listen

if TYPE_CHECKING:
    from fastapi import Request, Response

    from doorward.console.services import Services
    from doorward.core.model import EntityUid

LIFETIME = timedelta(hours=8)
IDLE = timedelta(hours=1)
_TOUCH_EVERY = timedelta(seconds=30)
_TOKEN_BYTES = 32
_MAX_COOKIE = 128
_log = structlog.get_logger()
_PLAIN = "doorward_session"
_OVER_TLS = "__Host-doorward_session"


def digest(token: str) -> str:
    """Return what is kept of a secret token: its SHA-256 in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """Return 256 random bits as URL-safe text."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def cookie_name(request: Request) -> str:
    """Return the session cookie's name; `__Host-` pins it to this origin where TLS allows."""
    return _OVER_TLS if request.url.scheme == "https" else _PLAIN


def token_of(request: Request) -> str | None:
    """Return the session token a browser sent, if it can be one."""
    token = request.cookies.get(cookie_name(request))
    return token if token and len(token) <= _MAX_COOKIE else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session is used: the network zone, and a digest of what the browser says it is."""

    zone: str
    browser: str


def place_of(request: Request, services: Services) -> Place:
    """Return where a request comes from."""
    ip = request.client.host if request.client else ""
    said = request.headers.get("user-agent", "")
    return Place(services.directory.snapshot.zone_of(ip), hashlib.sha256(said.encode()).hexdigest()[:32])


def start(  # noqa: PLR0913 -- the fields of a session
    services: Services,
    *,
    principal: EntityUid | None,
    operator: str,
    method: str,
    replaces: str | None,
    place: Place,
    mfa: bool,
) -> str:
    """Store a new session and return its token; a session the browser already had is ended."""
    end(services, replaces)
    token, now = new_token(), services.clock.now()
    services.directory.accounts.create_session(
        ConsoleSession(
            hash=digest(token),
            principal=principal,
            operator=operator,
            method=method,
            created=now,
            last_seen=now,
            expires=now + LIFETIME,
            mfa_at=now if mfa else None,
            zone=place.zone,
            browser=place.browser,
        )
    )
    return token


def current(
    services: Services, token: str | None, place: Place, *, touch: bool = True
) -> ConsoleSession | None:
    """Return the live session of a token, or None when unknown, ended, idle, over, or used elsewhere.

    A cookie that turns up in another zone or another browser than it was given to was taken: the
    session ends for everybody.
    """
    if token is None:
        return None
    session = services.directory.accounts.session(digest(token))
    if session is None:
        return None
    now = services.clock.now()
    if now >= session.expires or now - session.last_seen >= IDLE or _signed_out(services, session):
        services.directory.accounts.end_session(session.hash)
        return None
    if (session.zone, session.browser) != (place.zone, place.browser):
        _log.warning("session_moved", principal=str(session.principal or session.operator))
        services.directory.accounts.end_session(session.hash)
        return None
    if touch and now - session.last_seen >= _TOUCH_EVERY:
        services.directory.accounts.touch_session(session.hash, now)
    return session


def _signed_out(services: Services, session: ConsoleSession) -> bool:
    """Return whether the sign-in behind a session, or the MFA it was, was ended since."""
    if session.principal is None:
        return False
    out = services.directory.snapshot.sign_out_of(session.principal)
    return out is not None and out.ends_mfa(session.created)


def end(services: Services, token: str | None) -> None:
    """End the session of a token at once; no session is no error."""
    if token is not None:
        services.directory.accounts.end_session(digest(token))


def set_cookie(request: Request, response: Response, token: str) -> None:
    """Give the browser its session: HttpOnly, SameSite=Strict, and Secure over TLS."""
    response.set_cookie(
        cookie_name(request),
        token,
        max_age=int(LIFETIME.total_seconds()),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def clear_cookie(request: Request, response: Response) -> None:
    """Take the session cookie back."""
    response.delete_cookie(
        cookie_name(request),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def base_url(services: Services) -> str:
    """Return the console's address for people.

    On loopback it says `localhost`: a passkey belongs to a host name and browsers refuse it for an
    IP address (WebAuthn Level 3, 5.1.3 step 7).
    """
    control = services.settings.control
    if control.public_url is not None:
        return control.public_url
    host, port = split_listen(control.listen)
    name = "localhost" if is_loopback(host) else f"[{host}]" if ":" in host else host
    return f"{'https' if control.tls else 'http'}://{name}:{port}"
