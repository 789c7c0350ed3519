"""People's sign-ins through a client: begun by a code or a device, continued by refresh tokens used once.

A refresh token that comes a second time was stolen, from the client or by it: the sign-in ends, and with it
every token that came of it (OAuth 2.1, 4.3.1).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

from doorward.console.oauth.limits import scope_of, wanted_bounds
from doorward.console.oauth.refusal import OAuthError
from doorward.core.clock import rfc3339
from doorward.core.identity import Bounds, Descent
from doorward.core.model import Action, EntityUid
from doorward.core.record import AlertRecord
from doorward.core.sign_ins import SignIn
from doorward.identity.issuer import CLIENT as CLI
from doorward.identity.issuer import Granted, MintedToken

if TYPE_CHECKING:
    from fastapi import Request

    from doorward.console.oauth.clients import Client
    from doorward.console.oauth.forms import Form
    from doorward.console.oauth.pending import Asked, Person
    from doorward.console.oauth.server import AuthorizationServer

REFRESH = "refresh_token"
AUTHORIZATION_CODE = "authorization_code"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
LIFETIME = timedelta(hours=12)
PREFIX = "dr_"
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)
_SECRET_BYTES = 32
_Issued = tuple[MintedToken, Granted, str]


async def by_code(server: AuthorizationServer, request: Request, form: Form, client: Client) -> _Issued:
    """Redeem an authorization code (OAuth 2.1, 4.1.3): once, by its client, with the verifier."""
    _require_cli(client)
    text, verifier = form.require("code"), form.get("code_verifier")
    redirect_uri = form.get("redirect_uri")
    proof = await server.proof_key(request)
    # 1. Whoever presents it uses it up, whether or not the rest is right.
    code = server.codes.get(text)
    if code is None:
        raise _invalid_grant("code_unknown")
    if code.used:
        # 2. A second time: somebody else has it too, so what came of it ends (OAuth 2.1, 4.1.3).
        code.reused = True
        if code.sign_in:
            await _end(server, request, code.sign_in, code.person.principal, "authorization_code_reused")
        raise _invalid_grant("code_used")
    code.used = True
    asked = code.asked
    # 3. It was given to this client, at this address, and to who knows the verifier.
    if asked.client != client.id or redirect_uri not in {None, asked.redirect_uri}:
        raise _invalid_grant("code_of_another_client")
    if verifier is None or not _VERIFIER.fullmatch(verifier) or not _fits(verifier, asked.challenge):
        raise _invalid_grant("verifier_wrong")
    if asked.proof_key not in {None, proof}:
        raise _invalid_grant("code_bound_to_another_key")
    issued, code.sign_in = await _begun(server, request, form, agreed=(asked, code.person), proof=proof)
    if code.reused:  # while the sign-in was being kept
        await _end(server, request, code.sign_in, code.person.principal, "authorization_code_reused")
    return issued


async def by_device(server: AuthorizationServer, request: Request, form: Form, client: Client) -> _Issued:
    """Redeem a device code (RFC 8628, 3.4 and 3.5): pending until somebody agreed, then once."""
    _require_cli(client)
    text = form.require("device_code")
    proof = await server.proof_key(request)
    device = server.devices.get(text)
    if device is None or device.asked.client != client.id:
        raise OAuthError("expired_token", "the code is over, or was never given out", reason="device_unknown")
    now = server.clock.monotonic()
    hasty, device.polled = now - device.polled < device.interval, now
    if device.denied:
        server.devices.take(text)
        raise OAuthError("access_denied", "it was refused on the page")
    if device.person is None:
        if hasty:
            device.interval += 5
            raise OAuthError("slow_down", f"ask every {device.interval} seconds")
        raise OAuthError("authorization_pending", "nobody agreed yet")
    if server.devices.take(text) is None:
        raise _invalid_grant("device_code_used")
    issued, _ = await _begun(server, request, form, agreed=(device.asked, device.person), proof=proof)
    return issued


async def by_refresh(server: AuthorizationServer, request: Request, form: Form, client: Client) -> _Issued:
    """Continue a sign-in: the refresh token is used up and another one given (OAuth 2.1, 4.3)."""
    _require_cli(client)
    directory, now = server.services.directory, server.clock.now()
    presented = digest(form.require(REFRESH))
    proof = await server.proof_key(request)
    # 1. It is one of ours, this client's, shown with the key it is bound to.
    sign_in = await asyncio.to_thread(directory.sign_ins.find, presented, now)
    if sign_in is None or sign_in.client != client.id:
        raise _invalid_grant("refresh_token_unknown")
    request.state.oauth_client = str(sign_in.principal)
    if sign_in.proof_key not in {None, proof}:
        raise _invalid_grant("refresh_token_without_proof")
    # 2. Nothing ended the sign-in since.
    fault = _fault(server, sign_in)
    if fault is not None:
        raise _invalid_grant(fault)
    granted = _granted(server, form, sign_in, proof)
    # 3. It is used once: a second time it is stolen goods.
    following = new_refresh_token()
    redeem = directory.sign_ins.redeem
    continued = await asyncio.to_thread(redeem, presented, digest(following), now)
    if continued is None:
        raise _invalid_grant("refresh_token_unknown")
    if continued.stolen:
        await _end(server, request, sign_in.id, sign_in.principal, "refresh_token_reused")
        raise _invalid_grant("refresh_token_reused")
    token = await server.issue(request, granted, via=REFRESH, to=str(sign_in.principal))
    return token, granted, following


async def end(server: AuthorizationServer, request: Request, text: str, client: Client) -> bool:
    """End the sign-in of a refresh token; return whether it is one. Raises OAuthError for another's."""
    directory, now = server.services.directory, server.clock.now()
    sign_in = await asyncio.to_thread(directory.sign_ins.find, digest(text), now)
    if sign_in is None:
        return False
    if sign_in.client != client.id:
        raise OAuthError("unauthorized_client", "the token was issued to another client")
    await _end(server, request, sign_in.id, sign_in.principal, "")
    return True


def digest(text: str) -> str:
    """Return what is kept of a refresh token."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def new_refresh_token() -> str:
    """Return the text of a new refresh token: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


# Inside


async def _begun(
    server: AuthorizationServer,
    request: Request,
    form: Form,
    *,
    agreed: tuple[Asked, Person],
    proof: str | None,
) -> tuple[_Issued, str]:
    (asked, person), now = agreed, server.clock.now()
    sign_in = SignIn(
        id=server.services.ids.new(),
        principal=person.principal,
        client=asked.client,
        resources=asked.resources,
        signed_in_at=person.signed_in_at,
        acr=person.acr,
        amr=person.amr,
        created=now,
        expires=now + LIFETIME,
        bounds=asked.bounds,
        proof_key=proof,
    )
    request.state.oauth_client = str(person.principal)
    fault = _fault(server, sign_in)
    if fault is not None:
        raise _invalid_grant(fault)
    granted, following = _granted(server, form, sign_in, proof), new_refresh_token()
    token = await server.issue(request, granted, via=form.require("grant_type"), to=str(person.principal))
    await asyncio.to_thread(server.services.directory.sign_ins.begin, sign_in, digest(following))
    return (token, granted, following), sign_in.id


def _granted(server: AuthorizationServer, form: Form, sign_in: SignIn, proof: str | None) -> Granted:
    """Return what the access token of a sign-in shall say, for the one resource asked for now."""
    wanted = server.audience(form.every("resource") + form.every("audience"), sign_in.resources[0])
    if not any(wanted == held or wanted.startswith(f"{held}/") for held in sign_in.resources):
        raise OAuthError("invalid_target", "the sign-in was not for this resource")
    narrower = wanted_bounds(form) if form.get("grant_type") == REFRESH else None
    bounds: tuple[Bounds, ...] = tuple(one for one in (sign_in.bounds, narrower) if one is not None)
    out = server.snapshot.sign_out_of(sign_in.principal)
    stands = out is None or not out.ends_mfa(sign_in.signed_in_at)
    return Granted(
        principal=sign_in.principal,
        client=sign_in.client,
        audience=wanted,
        until=sign_in.expires,
        signed_in_at=sign_in.signed_in_at,
        acr=sign_in.acr if stands else "",
        amr=sign_in.amr if stands else (),
        descent=Descent(tokens=(sign_in.id,)),
        bounds=bounds,
        proof_key=proof,
        scope=scope_of(bounds),
    )


def _fault(server: AuthorizationServer, sign_in: SignIn) -> str | None:
    snapshot = server.snapshot
    if not snapshot.is_active(sign_in.principal):
        return "subject_inactive"
    if snapshot.token_revoked(sign_in.id):
        return "sign_in_revoked"
    out = snapshot.sign_out_of(sign_in.principal)
    return "signed_out" if out is not None and out.ends(sign_in.signed_in_at) else None


async def _end(
    server: AuthorizationServer, request: Request, sign_in: str, principal: EntityUid, why: str
) -> None:
    """End a sign-in and everything that came of it; with a reason it is an alert."""
    if why:
        await server.services.audit.write(
            AlertRecord(
                id=server.services.ids.new(),
                kind="alert",
                time=rfc3339(server.clock.now()),
                request_id=str(request.scope.get("state", {}).get("request_id", "")),
                code=why,
                severity="high",
                detail="What may be used once came a second time: the sign-in it belongs to was ended.",
                principal=str(principal),
                facts={"sign_in": sign_in, "ip": request.client.host if request.client else ""},
            )
        )
    await server.record(
        request,
        who=str(principal),
        action=Action.CONTAIN,
        resource=EntityUid.of("Key", sign_in),
        detail=f"end a sign-in of {principal}" + (f": {why}" if why else ""),
        changes={"via": request.url.path},
    )
    directory = server.services.directory
    revoke = directory.revoke_token
    await asyncio.to_thread(revoke, sign_in, server.clock.now() + LIFETIME, operator=str(principal))
    await asyncio.to_thread(directory.sign_ins.end, sign_in)


def _require_cli(client: Client) -> None:
    if client.id != CLI:
        raise OAuthError("unauthorized_client", "nobody signs in through this client")


def _fits(verifier: str, challenge: str) -> bool:
    """Return whether a verifier is behind a challenge (RFC 7636, 4.6; S256 alone)."""
    made = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=")
    return hmac.compare_digest(made, challenge.encode("ascii"))


def _invalid_grant(reason: str) -> OAuthError:
    return OAuthError("invalid_grant", "the grant is not accepted", reason=reason)
