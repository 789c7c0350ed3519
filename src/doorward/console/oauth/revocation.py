"""Take a token back (RFC 7009), and tell a service of ours whether one still counts (RFC 7662)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from doorward.console.oauth import people
from doorward.console.oauth.forms import read_form
from doorward.console.oauth.refusal import OAuthError, answer
from doorward.console.oauth.token import guarded
from doorward.core.context import Context, NetworkContext, SessionContext
from doorward.core.decision import AccessRequest
from doorward.core.identity import Method
from doorward.core.model import Action, EntityUid
from doorward.identity.strict_jose import TokenFaultError

if TYPE_CHECKING:
    from doorward.console.oauth.clients import Client
    from doorward.console.oauth.server import AuthorizationServer
    from doorward.identity.own_tokens import OwnToken

_KEYS = EntityUid.of("Control", "keys")
_TOLD = (
    "iss",
    "sub",
    "aud",
    "client_id",
    "iat",
    "exp",
    "jti",
    "scope",
    "act",
    "cnf",
    "acr",
    "amr",
    "auth_time",
)


def add(routes: APIRouter, server: AuthorizationServer) -> None:
    """Add the revocation and introspection endpoints."""

    @routes.post("/revoke")
    async def revoke(request: Request) -> Response:
        """End a token at once, and everything that was made from it (RFC 7009)."""
        return await guarded(server, request, lambda: _revoked(server, request))

    @routes.post("/introspect")
    async def introspect(request: Request) -> Response:
        """Tell a service that may know whether a token still counts, and what it says (RFC 7662)."""
        return await guarded(server, request, lambda: _introspected(server, request))


async def _revoked(server: AuthorizationServer, request: Request) -> Response:
    form = await read_form(request)
    client = await server.client(request, form)
    text = form.require("token")
    if text.startswith(people.PREFIX):
        await people.end(server, request, text, client)
        return answer({})
    try:
        shown = await server.tokens.read(text)
    except TokenFaultError:
        # RFC 7009, 2.2: what is no token is revoked already.
        return answer({})
    token = shown.token
    if client.id != token.client_id:
        raise OAuthError("unauthorized_client", "the token was issued to another client")
    await server.record(
        request,
        who=client.name,
        action=Action.CONTAIN,
        resource=EntityUid.of("Key", token.jti),
        detail=f"revoke an access token of {token.principal}",
        changes={"via": "revoke"},
    )
    revoke = server.services.directory.revoke_token
    await asyncio.to_thread(revoke, token.jti, token.expires, operator=client.name)
    return answer({})


async def _introspected(server: AuthorizationServer, request: Request) -> Response:
    form = await read_form(request)
    client = await server.client(request, form)
    if not await asyncio.to_thread(_may_ask, server, client):
        raise OAuthError("access_denied", "policies do not let this client ask about tokens", status=403)
    try:
        shown = await server.tokens.read(form.require("token"))
    except TokenFaultError:
        return answer({"active": False})
    if server.tokens.fault(shown.token, server.snapshot) is not None:
        return answer({"active": False})
    return answer(_said(shown))


def _may_ask(server: AuthorizationServer, client: Client) -> bool:
    """Judge as any look at keys is judged: only who may inspect them hears of others' tokens."""
    if client.principal is None or client.key is None:
        return False
    bounds = client.key.bounds
    if bounds is not None and not bounds.permits(Action.INSPECT.value, _KEYS):
        return False
    context = Context(
        now=server.clock.now(), network=NetworkContext(), session=SessionContext(method=Method.API_KEY)
    )
    asked = AccessRequest(client.principal, Action.INSPECT.uid, _KEYS, context)
    return server.services.point.pin().decide(asked).allowed


def _said(shown: OwnToken) -> dict[str, Any]:
    said = {name: shown.claims[name] for name in _TOLD if name in shown.claims}
    kind = "Bearer" if shown.token.proof_key is None else "DPoP"
    return {"active": True, "token_type": kind, **said}
