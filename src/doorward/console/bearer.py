"""Programs at the management API: an access token of the local issuer, made for this very API (RFC 6750).

Judged as any user is, with the MFA of the sign-in behind the token; where agents act for somebody, each of
them must be allowed as well.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from doorward.console import session as sessions
from doorward.console.incoming import peer_of, wire_request
from doorward.core.context import Context, NetworkContext, SessionContext
from doorward.core.decision import AccessRequest
from doorward.core.errors import InvalidRequestError, UnauthenticatedError, UnavailableError
from doorward.core.identity import Caller
from doorward.identity import credential, refusals
from doorward.identity.access_tokens import TokenVerifier
from doorward.identity.credential import Kind
from doorward.identity.dpop import ProofVerifier
from doorward.identity.issuer_keys import FedKeys
from doorward.identity.nonces import Nonces, shared_key
from doorward.identity.own_addresses import OwnAddresses
from doorward.identity.standing import Standing
from doorward.identity.token_callers import TokenCallers

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

    from doorward.console.services import Services
    from doorward.core.model import EntityUid

PATH = "/.well-known/oauth-protected-resource"
_UNKNOWN_AGE = 2**31 - 1


class Bearers:
    """Say who a token at the management API stands for. One per control process."""

    def __init__(self, services: Services) -> None:
        """Trust the local issuer alone, for tokens whose audience is the control plane."""
        settings, clock = services.settings, services.clock
        self._services, self._resource = services, services.issuer.issuer
        keys = FedKeys(services.issuer.jwks)
        verifier = TokenVerifier((), local=keys, audience=self._resource, clock=clock, fetch=_nothing)
        own = OwnAddresses((self._resource, settings.control_url, sessions.base_url(services)))
        self._standing = Standing(verifier, local_issuer=lambda: keys.issuer)
        self._tokens: TokenCallers | None = None
        if services.one_time is not None:
            demanded = settings.identity.dpop_nonce
            nonces = Nonces(shared_key(settings.data), clock) if demanded else None
            self._tokens = TokenCallers(
                verifier,
                ProofVerifier(own=own, one_time=services.one_time, clock=clock, nonces=nonces),
                registry=lambda: services.directory.snapshot,
                clock=clock,
                test_minting=settings.identity.test_minting,
            )

    async def caller_of(self, request: Request) -> Caller:
        """Return who asks; raise UnauthenticatedError, or InvalidRequestError for two credentials.

        What was verified on this very request is not verified again, only whether it still stands.
        """
        known: Caller | None = getattr(request.state, "caller", None)
        if known is not None:
            if not self._standing.holds(known, self._services.directory.snapshot, self._services.clock.now()):
                raise self._pointed(refusals.token_refused("no_longer_stands"))
            return known
        if sessions.token_of(request) is not None:
            raise InvalidRequestError("a token and a session are sent at once", hint="Send one of them.")
        if self._tokens is None:
            raise UnavailableError("tokens cannot be verified here")
        wire = wire_request(request, peer_of(request))
        try:
            found = credential.find(wire)
            if found is None or found.kind not in {Kind.TOKEN, Kind.BOUND_TOKEN}:
                raise refusals.token_refused("not_a_token")
            caller = await self._tokens.caller_of(found, wire)
        except UnauthenticatedError as error:
            raise self._pointed(error) from None
        request.state.caller = caller
        return caller

    def metadata(self) -> dict[str, object]:
        """Return the management API as an OAuth resource (RFC 9728)."""
        return {
            "resource": self._resource,
            "authorization_servers": [self._resource],
            "bearer_methods_supported": ["header"],
            "resource_name": "Doorward management API",
        }

    def _pointed(self, error: UnauthenticatedError) -> UnauthenticatedError:
        scheme, _, told = error.challenge.partition(" ")
        error.challenge = f'{scheme} resource_metadata="{self._resource}{PATH}", {told}'
        return error


def requests_of(  # noqa: PLR0913 -- what one question is made of
    caller: Caller,
    *,
    action: EntityUid,
    resource: EntityUid,
    now: datetime,
    ip: str | None,
    zone_of: Callable[[str], str],
) -> tuple[AccessRequest, ...]:
    """Return what must all be allowed: the principal's request, and that of each agent that acts for it."""
    shown = caller.as_vouched(now)
    session = SessionContext(
        method=caller.method,
        acr=shown.acr,
        mfa=shown.mfa_at is not None,
        age=_UNKNOWN_AGE if shown.signed_in_at is None else _age(shown.signed_in_at, now),
        mfa_age=None if shown.mfa_at is None else _age(shown.mfa_at, now),
        minted=caller.minted,
    )
    alone = Context(
        now=now,
        network=NetworkContext(zone=zone_of(ip)) if ip else NetworkContext(),
        session=session,
        depth=len(caller.actors),
        purpose=caller.bound_purpose,
    )
    context = msgspec.structs.replace(alone, actor=caller.actors[0] if caller.actors else None)
    agents = (AccessRequest(agent, action, resource, alone) for agent in caller.actors)
    return (AccessRequest(caller.principal, action, resource, context), *agents)


def _age(since: datetime, now: datetime) -> int:
    return max(0, int((now - since).total_seconds()))


async def _nothing(url: str) -> bytes:
    raise UnavailableError(f"{url} is not asked: only the local issuer is trusted here")
