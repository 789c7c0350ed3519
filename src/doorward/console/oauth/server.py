"""What the OAuth endpoints share: keys, clocks, one-time things, and the record of what was issued."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from doorward.console import session as sessions
from doorward.console.acts import act_of
from doorward.console.authorise import request_id
from doorward.console.incoming import wire_request
from doorward.console.oauth import clients, pending
from doorward.console.oauth.pending import Waiting
from doorward.console.oauth.refusal import OAuthError, of_error
from doorward.console.oauth.throttle import Throttle
from doorward.core.errors import DoorwardError, UnavailableError
from doorward.core.model import Action, EntityUid
from doorward.identity import claims
from doorward.identity.assertions import AssertionVerifier
from doorward.identity.dpop import ProofVerifier
from doorward.identity.nonces import Nonces, shared_key
from doorward.identity.own_addresses import OwnAddresses
from doorward.identity.own_tokens import OwnTokens
from doorward.identity.strict_jose import TokenFaultError

if TYPE_CHECKING:
    from fastapi import Request

    from doorward.console.oauth.clients import Client
    from doorward.console.oauth.forms import Form
    from doorward.console.oauth.pending import Code, Consent, Device
    from doorward.console.services import Services
    from doorward.core.clock import Clock
    from doorward.core.ports import OneTimeStore
    from doorward.directory.snapshot import Snapshot
    from doorward.identity.issuer import Granted, LocalIssuer, MintedToken

_KEYS = EntityUid.of("Control", "keys")


class _NothingOnce:
    """Stands where nothing can be remembered: then nothing may be used once, and so nothing at all."""

    async def claim(self, kind: str, key: str, *, expires: float, again_within: float = 0.0) -> bool:
        """Raise UnavailableError."""
        del kind, key, expires, again_within
        raise UnavailableError("what was used once is not remembered here", hint="Run the ledger role.")


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """One per control process."""

    services: Services
    tokens: OwnTokens
    assertions: AssertionVerifier
    proofs: ProofVerifier
    throttle: Throttle
    askings: Throttle
    guesses: Throttle
    consents: Waiting[Consent]
    codes: Waiting[Code]
    devices: Waiting[Device]
    user_codes: Waiting[Device]

    @classmethod
    def of(cls, services: Services) -> AuthorizationServer:
        """Wire the parts."""
        clock, name = services.clock, services.issuer.issuer
        # A store that remembers nothing yet is empty, and still a store.
        once: OneTimeStore = _NothingOnce() if services.one_time is None else services.one_time
        nonces = (
            Nonces(shared_key(services.settings.data), clock)
            if services.settings.identity.dpop_nonce
            else None
        )
        own = OwnAddresses((name, services.settings.control_url, sessions.base_url(services)))
        return cls(
            services,
            OwnTokens(services.issuer.jwks, audiences=(services.issuer.audience, name), clock=clock),
            AssertionVerifier(audiences=(name, f"{name}/oauth/token"), one_time=once, clock=clock),
            ProofVerifier(own=own, one_time=once, clock=clock, nonces=nonces),
            Throttle(clock),
            Throttle(clock, most=20),
            Throttle(clock, most=5),
            Waiting(clock, pending.CONSENT_SECONDS),
            Waiting(clock, pending.CODE_SECONDS),
            Waiting(clock, pending.DEVICE_SECONDS),
            Waiting(clock, pending.DEVICE_SECONDS),
        )

    @property
    def clock(self) -> Clock:
        """Return the clock."""
        return self.services.clock

    @property
    def snapshot(self) -> Snapshot:
        """Return what is known now."""
        return self.services.directory.snapshot

    @property
    def issuer(self) -> LocalIssuer:
        """Return what signs."""
        return self.services.issuer

    @property
    def management(self) -> str:
        """Return the resource identifier of the management API."""
        return self.issuer.issuer

    async def client(self, request: Request, form: Form) -> Client:
        """Authenticate the client; raise OAuthError."""
        headers = request.headers.getlist("authorization")
        client = await clients.authenticated(self, form, authorization=headers, ip=address_of(request))
        request.state.oauth_client = client.name
        request.state.oauth_keyed = client.key is not None
        return client

    async def proof_key(self, request: Request) -> str | None:
        """Return the key a DPoP proof of this request is made with, None without one; raise OAuthError."""
        shown = request.headers.getlist("dpop")
        if not shown:
            return None
        if len(shown) > 1:
            raise OAuthError("invalid_dpop_proof", "more than one proof is sent")
        try:
            return await self.proofs.shown(shown[0], wire_request(request))
        except DoorwardError as error:
            raise of_error(error) from error

    def audience(self, wanted: tuple[str, ...], default: str) -> str:
        """Return the one resource server a token is asked for (RFC 8707); raise OAuthError for another's."""
        if not wanted:
            return default
        if len(set(wanted)) > 1:
            raise OAuthError("invalid_target", "a token is for one resource: ask once for each")
        upstreams = {upstream.name for upstream in self.services.settings.upstream}
        gateway = self.issuer.audience
        if wanted[0] == self.management:
            return wanted[0]
        try:
            path = claims.for_us(wanted[0], gateway)
        except TokenFaultError:
            raise OAuthError(
                "invalid_target", f"this issuer makes tokens for {gateway} and {self.management}"
            ) from None
        if path and path.split("/")[1] not in upstreams:
            raise OAuthError("invalid_target", "there is no upstream of this name")
        return wanted[0]

    async def issue(self, request: Request, granted: Granted, *, via: str, to: str) -> MintedToken:
        """Sign a token once its record is durable; raise OAuthError or AuditUnavailableError."""
        try:
            token = await asyncio.to_thread(self.issuer.issue, granted)
        except DoorwardError as error:
            raise OAuthError("invalid_grant", error.message) from error
        acts = granted.descent.acts
        await self.record(
            request,
            who=to,
            action=Action.ISSUE,
            resource=EntityUid.of("Key", token.jti),
            detail=f"an access token for {granted.principal}",
            changes={
                "via": via,
                "subject": str(granted.principal),
                "audience": granted.audience,
                "actors": [str(act.actor) for act in acts],
                "from": list(granted.descent.tokens),
                "keys": list(granted.descent.keys),
                "expires_in": token.expires_in,
            },
        )
        return token

    async def refused(self, request: Request, who: str, error: OAuthError, via: str) -> None:
        """Put a refusal on record."""
        await self.record(
            request,
            who=who,
            action=Action.ISSUE,
            resource=_KEYS,
            detail=f"{request.url.path}: {error.error}" + (f" ({error.reason})" if error.reason else ""),
            changes={"via": via},
            allowed=False,
        )

    async def record(  # noqa: PLR0913 -- the fields of a record
        self,
        request: Request,
        *,
        who: str,
        action: Action,
        resource: EntityUid,
        detail: str,
        changes: dict[str, Any],
        allowed: bool = True,
    ) -> None:
        """Make a record durable; raise AuditUnavailableError."""
        await self.services.audit.write(
            act_of(
                self.services,
                asked_as=request_id(request),
                who=who,
                action=action.value,
                resource=resource,
                detail=detail,
                changes=changes,
                allowed=allowed,
            )
        )


def address_of(request: Request) -> str:
    """Return where a request comes from; over the Unix socket that is this machine."""
    return request.client.host if request.client else "127.0.0.1"
