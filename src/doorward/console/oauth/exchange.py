"""Token exchange (RFC 8693): an agent shows somebody's token and its own credential, and gets one to act.

The subject token says for whom, the agent's own credential says who acts: the client authentication itself,
or an `actor_token`. Both together, they must be the same agent's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward.console.oauth.clients import name_of
from doorward.console.oauth.limits import scope_of, wanted_bounds
from doorward.console.oauth.refusal import OAuthError
from doorward.console.oauth.server import AuthorizationServer, address_of
from doorward.core.identity import Bounds
from doorward.identity import api_keys
from doorward.identity.delegation import ActingCredential, Parent, Wanted, delegated
from doorward.identity.descent import bounds_of
from doorward.identity.strict_jose import TokenFaultError

if TYPE_CHECKING:
    from fastapi import Request

    from doorward.console.oauth.clients import Client
    from doorward.console.oauth.forms import Form
    from doorward.core.identity import KeyRecord
    from doorward.identity.issuer import Granted, MintedToken
    from doorward.identity.own_tokens import OwnToken

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 -- a name, no secret
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_TYPES = frozenset({ACCESS_TOKEN, _JWT})
# What is told of a chain that may not be; everything else that is wrong with a token looks alike.
_TOLD = {
    "chain_too_deep": "the chain would be longer than three agents",
    "chain_has_a_loop": "this agent acts in the chain already",
    "actor_is_no_agent": "only an agent can act for somebody else",
    "purposes_differ": "the token and the agent's key are bound to different purposes",
}


async def exchanged(
    server: AuthorizationServer, request: Request, form: Form, client: Client
) -> tuple[MintedToken, Granted]:
    """Issue an agent a token to act with; raise OAuthError."""
    if form.get("requested_token_type") not in {None, *_TYPES}:
        raise OAuthError("invalid_request", f"the only token type issued is {ACCESS_TOKEN}")
    request.state.proof_key = proof = await server.proof_key(request)
    acting = await _acting(server, request, form, client)
    bounds = wanted_bounds(form)
    request.state.oauth_client = str(acting.agent)
    subject = await _token(server, form, "subject_token", proof)
    if (principal := subject.token.principal) is None:
        raise _invalid("subject_token")
    audience = server.audience(form.every("resource") + form.every("audience"), subject.audience)
    scope = scope_of(_limits(server, subject, acting, bounds))
    wanted = Wanted(audience=audience, bounds=bounds, proof_key=proof, scope=scope)
    parent = Parent(subject.token, principal, subject.audience)
    try:
        granted = delegated(parent, acting=acting, wanted=wanted, now=server.clock.now())
    except TokenFaultError as fault:
        raise _told(str(fault)) from None
    return await server.issue(request, granted, via="token-exchange", to=str(acting.agent)), granted


def _limits(
    server: AuthorizationServer, subject: OwnToken, acting: ActingCredential, wanted: Bounds | None
) -> list[Bounds]:
    """Return every bound the new token will have: a scope that says more would not be true."""
    keys = () if subject.token.descent is None else bounds_of(subject.token.descent, server.snapshot)
    records = (server.snapshot.key_by_id(key) for key in acting.keys)
    own = [record.bounds for record in records if record is not None and record.bounds is not None]
    return [*subject.token.bounds, *keys, *acting.bounds, *own, *(() if wanted is None else (wanted,))]


async def _acting(
    server: AuthorizationServer, request: Request, form: Form, client: Client
) -> ActingCredential:
    """Return the agent that will act, by what it showed of itself; raise OAuthError."""
    text = form.get("actor_token")
    if text is None:
        if form.get("actor_token_type") is not None:
            raise OAuthError("invalid_request", "actor_token_type is given without an actor_token")
        return _of_key(client.key)
    digest = api_keys.digest_of(text)
    if digest is not None:
        _require_type(form, "actor_token")
        acting = _of_key(_usable(server, digest, address_of(request)))
    else:
        acting = _of_token(await _token(server, form, "actor_token", request.state.proof_key))
    if client.principal not in {None, acting.agent}:
        raise OAuthError("invalid_request", "the client and the actor are not the same")
    return acting


def _of_key(key: KeyRecord | None) -> ActingCredential:
    if key is None or key.subject.kind != "Agent":
        raise OAuthError("unauthorized_client", "only an agent can act for somebody else")
    return ActingCredential(
        agent=key.subject, client=name_of(key.subject), keys=(key.id,), purpose=key.purpose, until=key.expires
    )


def _of_token(shown: OwnToken) -> ActingCredential:
    token, agent = shown.token, shown.token.principal
    # Who acts for another cannot lend that out as its own self.
    if agent is None or agent.kind != "Agent" or token.actors:
        raise _invalid("actor_token")
    descent = token.descent
    return ActingCredential(
        agent=agent,
        client=name_of(agent),
        keys=() if descent is None else descent.keys,
        tokens=(token.jti, *(() if descent is None else descent.tokens)),
        bounds=token.bounds,
        purpose=token.purpose,
        until=token.expires,
    )


def _usable(server: AuthorizationServer, digest: str, ip: str) -> KeyRecord:
    record = server.snapshot.key_by_hash(digest)
    if record is None or record.public_key is not None:
        raise _invalid("actor_token")
    fault = api_keys.fault_of(record, ip=ip, now=server.clock.now(), registry=server.snapshot)
    if fault is not None:
        raise _invalid("actor_token", fault)
    return record


def _require_type(form: Form, name: str) -> None:
    if form.require(f"{name}_type") not in _TYPES:
        raise OAuthError("invalid_request", f"{name}_type must be {ACCESS_TOKEN}")


async def _token(server: AuthorizationServer, form: Form, name: str, proof: str | None) -> OwnToken:
    """Return a token of ours that stands; raise OAuthError (RFC 8693, 2.2.2)."""
    text = form.require(name)
    _require_type(form, name)
    try:
        shown = await server.tokens.read(text)
    except TokenFaultError as fault:
        raise _invalid(name, str(fault)) from None
    ended = server.tokens.fault(shown.token, server.snapshot)
    if ended is not None:
        raise _invalid(name, ended)
    # A bound token is worth nothing without its key, here as anywhere.
    if shown.token.certificate is not None or shown.token.proof_key not in {None, proof}:
        raise _invalid(name, "bound_token_without_proof")
    return shown


def _invalid(name: str, reason: str = "") -> OAuthError:
    return OAuthError("invalid_request", f"the {name} is not accepted", reason=reason or f"{name}_not_fit")


def _told(reason: str) -> OAuthError:
    if reason == "audience_wider":
        said = "the new token may be used only where the subject token may"
        return OAuthError("invalid_target", said, reason=reason)
    return OAuthError("invalid_request", _TOLD.get(reason, "this cannot be delegated"), reason=reason)
