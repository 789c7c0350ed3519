"""`POST /oauth/token`: one grant after another, each refused in the words of its RFC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from doorward.console.oauth import exchange, people
from doorward.console.oauth.forms import read_form
from doorward.console.oauth.limits import scope_of, wanted_bounds
from doorward.console.oauth.refusal import OAuthError, answer, of_error
from doorward.console.oauth.server import AuthorizationServer, address_of
from doorward.core.errors import DoorwardError
from doorward.core.identity import Descent
from doorward.identity.issuer import Granted, MintedToken

if TYPE_CHECKING:
    from doorward.console.oauth.clients import Client
    from doorward.console.oauth.forms import Form

CLIENT_CREDENTIALS = "client_credentials"
_Answered = dict[str, Any]
_Grant = Callable[[AuthorizationServer, Request, "Form", "Client"], Awaitable[_Answered]]


def add(routes: APIRouter, server: AuthorizationServer) -> None:
    """Add the token endpoint."""

    @routes.post("/token")
    async def token(request: Request) -> Response:
        """Issue a token (RFC 6749, 3.2): the grant is named by `grant_type`."""
        return await guarded(server, request, lambda: _issued(server, request))


async def guarded(
    server: AuthorizationServer, request: Request, act: Callable[[], Awaitable[Response]]
) -> Response:
    """Answer what `act` refuses as OAuth does, and put it on record unless nothing had happened yet."""
    address = address_of(request)
    try:
        server.throttle.require(address)
        return await act()
    except OAuthError as error:
        refused = error
    except DoorwardError as error:
        refused = of_error(error)
    if refused.error not in _NOT_RECORDED:
        # Whoever shows no key of its own may fail, and fill the log, so often only.
        if not getattr(request.state, "oauth_keyed", False):
            server.throttle.failed(address)
        try:
            who = getattr(request.state, "oauth_client", "unknown client")
            await server.refused(request, who, refused, via=request.url.path)
        except DoorwardError as error:
            refused = of_error(error)
    return refused.response()


# Polling is no refusal, and floods are bounded by address before anything is known.
_NOT_RECORDED = frozenset({"authorization_pending", "slow_down", "temporarily_unavailable", "use_dpop_nonce"})


async def _issued(server: AuthorizationServer, request: Request) -> Response:
    form = await read_form(request)
    client = await server.client(request, form)
    grant = GRANTS.get(form.require("grant_type"))
    if grant is None:
        raise OAuthError("unsupported_grant_type", f"known are: {', '.join(GRANTS)}")
    return answer(await grant(server, request, form, client))


async def _client_credentials(
    server: AuthorizationServer, request: Request, form: Form, client: Client
) -> _Answered:
    """Give a service or agent a token for itself (RFC 6749, 4.4)."""
    if client.key is None or client.principal is None:
        raise OAuthError("unauthorized_client", "this client has nothing of its own to ask a token for")
    bounds = wanted_bounds(form)
    key = client.key
    limits = tuple(one for one in (key.bounds, bounds) if one is not None)
    scope = scope_of(limits)
    audience = server.audience(form.every("resource") + form.every("audience"), server.issuer.audience)
    proof = await server.proof_key(request)
    granted = Granted(
        principal=client.principal,
        client=client.id,
        audience=audience,
        until=key.expires,
        purpose=key.purpose,
        descent=Descent(keys=(key.id,)),
        bounds=() if bounds is None else (bounds,),
        proof_key=proof,
        scope=scope,
    )
    token = await server.issue(request, granted, via=CLIENT_CREDENTIALS, to=client.name)
    return answered(token, granted)


def answered(token: MintedToken, granted: Granted, **more: Any) -> _Answered:
    """Return the successful answer (RFC 6749, 5.1)."""
    scope = {"scope": granted.scope} if granted.scope else {}
    return {
        "access_token": token.text.reveal(),
        "token_type": "Bearer" if granted.proof_key is None else "DPoP",
        "expires_in": token.expires_in,
        **scope,
        **more,
    }


async def _exchange(server: AuthorizationServer, request: Request, form: Form, client: Client) -> _Answered:
    token, granted = await exchange.exchanged(server, request, form, client)
    return answered(token, granted, issued_token_type=exchange.ACCESS_TOKEN)


def _of_people(
    redeemed: Callable[
        [AuthorizationServer, Request, Form, Client], Awaitable[tuple[MintedToken, Granted, str]]
    ],
) -> _Grant:
    async def grant(server: AuthorizationServer, request: Request, form: Form, client: Client) -> _Answered:
        token, granted, following = await redeemed(server, request, form, client)
        return answered(token, granted, refresh_token=following)

    return grant


GRANTS: dict[str, _Grant] = {
    people.AUTHORIZATION_CODE: _of_people(people.by_code),
    people.DEVICE: _of_people(people.by_device),
    people.REFRESH: _of_people(people.by_refresh),
    CLIENT_CREDENTIALS: _client_credentials,
    exchange.GRANT: _exchange,
}
