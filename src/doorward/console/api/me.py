"""What is one's own: passkeys, the authenticator app, recovery codes, sessions; signed in with MFA."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from webauthn import base64url_to_bytes
from webauthn.helpers import bytes_to_base64url

from doorward.console import passkeys
from doorward.console.api.sessions import SessionAnswer, shown
from doorward.console.authorise import Myself, myself, record
from doorward.console.doors import AppOffer, offer, origin_of
from doorward.core.errors import ConflictError, NotFoundError
from doorward.core.model import EntityUid
from doorward.identity.authenticator_app import AuthenticatorApps

if TYPE_CHECKING:
    from doorward.console.services import Services

Me = Annotated[Myself, Depends(myself)]
_CONTROL = EntityUid.of("Control", "keys")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PasskeyAnswer(_Body):
    """A passkey of one's own; never its key."""

    id: str
    created: datetime


class Mine(_Body):
    """Everything that signs one in, and where one is signed in."""

    principal: str
    passkeys: list[PasskeyAnswer]
    authenticator_since: datetime | None
    recovery_codes_left: int
    sessions: list[SessionAnswer]


class NewPasskey(_Body):
    """What the browser's authenticator answered."""

    credential: dict[str, Any]


class NewApp(_Body):
    """The secret that was offered and the code it shows."""

    secret: str = Field(max_length=64)
    code: str = Field(max_length=16)


class Codes(_Body):
    """Recovery codes, shown this once; each works once."""

    recovery_codes: list[str]


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["me"])
    accounts = services.directory.accounts
    apps = AuthenticatorApps(accounts, services.custodian, services.clock)

    @routes.get("/me")
    def mine(me: Me) -> Mine:
        """Return one's own factors and sessions."""
        app = accounts.authenticator(me.principal)
        return Mine(
            principal=str(me.principal),
            passkeys=[
                PasskeyAnswer(id=bytes_to_base64url(key.credential_id), created=key.created)
                for key in accounts.list_passkeys(me.principal)
            ],
            authenticator_since=None if app is None else app.created,
            recovery_codes_left=accounts.recovery_codes(me.principal),
            sessions=[shown(one) for one in accounts.sessions(services.clock.now(), me.principal)],
        )

    @routes.delete("/me/sessions/{session_id}")
    async def end_session(session_id: str, request: Request, me: Me) -> dict[str, Any]:
        """End one of one's own sessions at once."""
        found = await asyncio.to_thread(accounts.sessions, services.clock.now(), me.principal)
        session = next((one for one in found if shown(one).id == session_id), None)
        if session is None:
            raise NotFoundError(f"you have no session `{session_id}`", hint="See `GET /api/v1/me`.")
        await _noted(request, me, f"end the session {session_id}")
        await asyncio.to_thread(accounts.end_session, session.hash)
        return {"id": session_id, "ended": True}

    _passkeys(routes, services)
    _app(routes, services, apps)
    return routes


def _passkeys(routes: APIRouter, services: Services) -> None:
    accounts = services.directory.accounts
    challenges = passkeys.Challenges(services.clock)

    @routes.post("/me/passkeys/options")
    async def options(request: Request, me: Me) -> dict[str, Any]:
        """Return the options for one more passkey (`navigator.credentials.create`)."""
        known = await asyncio.to_thread(accounts.list_passkeys, me.principal)
        return passkeys.enrol_options(
            challenges,
            rp_id=str(request.url.hostname),
            principal=me.principal,
            known=known,
            purpose=_purpose(me),
        )

    @routes.post("/me/passkeys", status_code=201)
    async def add(request: Request, body: NewPasskey, me: Me) -> PasskeyAnswer:
        """Keep one more passkey of one's own."""
        passkey = passkeys.enrol(
            challenges,
            body.credential,
            rp_id=str(request.url.hostname),
            origin=origin_of(request),
            principal=me.principal,
            purpose=_purpose(me),
            clock=services.clock,
        )
        await _noted(request, me, "enrol one more passkey")
        await asyncio.to_thread(accounts.add_passkey, passkey)
        return PasskeyAnswer(id=bytes_to_base64url(passkey.credential_id), created=passkey.created)

    @routes.delete("/me/passkeys/{passkey_id}")
    async def remove(passkey_id: str, request: Request, me: Me) -> dict[str, Any]:
        """Forget a passkey of one's own; not the last factor there is."""
        known = await asyncio.to_thread(accounts.list_passkeys, me.principal)
        app = await asyncio.to_thread(accounts.authenticator, me.principal)
        if len(known) + (app is not None) <= 1:
            raise ConflictError("this is your only factor", hint="Enrol another one first.")
        await _noted(request, me, "remove a passkey")
        credential_id = _bytes_of(passkey_id)
        if not await asyncio.to_thread(accounts.remove_passkey, credential_id, me.principal):
            raise NotFoundError("you have no such passkey", hint="See `GET /api/v1/me`.")
        return {"id": passkey_id, "removed": True}


def _app(routes: APIRouter, services: Services, apps: AuthenticatorApps) -> None:
    accounts = services.directory.accounts

    @routes.post("/me/authenticator")
    def begin(me: Me) -> AppOffer:
        """Offer a secret for an authenticator app; nothing is kept before a code confirms it."""
        return offer(apps, me.principal)

    @routes.post("/me/authenticator/confirm", status_code=201)
    async def confirm(request: Request, body: NewApp, me: Me) -> Codes:
        """Keep the app that shows the right code, in place of an earlier one."""
        apps.verify_new(body.secret, body.code)
        await _noted(request, me, "enrol an authenticator app")
        return Codes(
            recovery_codes=await asyncio.to_thread(apps.confirm, me.principal, body.secret, body.code)
        )

    @routes.delete("/me/authenticator")
    async def remove(request: Request, me: Me) -> dict[str, Any]:
        """Forget the app and its recovery codes; not the last factor there is."""
        if not await asyncio.to_thread(accounts.list_passkeys, me.principal):
            raise ConflictError("this is your only factor", hint="Enrol a passkey first.")
        await _noted(request, me, "remove the authenticator app")
        removed = await asyncio.to_thread(accounts.remove_authenticator, me.principal)
        await asyncio.to_thread(accounts.set_recovery_codes, me.principal, (), services.clock.now())
        return {"removed": removed}

    @routes.post("/me/recovery-codes", status_code=201)
    async def renew(request: Request, me: Me) -> Codes:
        """Make new recovery codes; the earlier ones end."""
        if await asyncio.to_thread(accounts.authenticator, me.principal) is None:
            raise ConflictError("recovery codes stand in for an authenticator app", hint="Enrol one first.")
        await _noted(request, me, "make new recovery codes")
        return Codes(recovery_codes=await asyncio.to_thread(apps.new_recovery_codes, me.principal))


async def _noted(request: Request, me: Myself, detail: str) -> None:
    await record(
        request,
        who=me.actor.name,
        action="enrol",
        resource=_CONTROL,
        allowed=True,
        detail=detail,
        via=me.actor.via,
    )


def _purpose(me: Myself) -> str:
    return f"mine:{me.session.hash}"


def _bytes_of(passkey_id: str) -> bytes:
    try:
        return base64url_to_bytes(passkey_id)
    except ValueError:
        raise NotFoundError("you have no such passkey", hint="See `GET /api/v1/me`.") from None
