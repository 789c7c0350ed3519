"""From a token to who asks: verified, not revoked, shown with what it is bound to, linked to a principal."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

import msgspec

from doorward.core.clock import Clock
from doorward.core.identity import Caller, Method
from doorward.core.model import EntityUid
from doorward.core.ports import CredentialRegistry
from doorward.core.wire import Peer, Request
from doorward.identity import refusals
from doorward.identity.access_tokens import TokenVerifier
from doorward.identity.arriving import Announcer
from doorward.identity.claims import VerifiedToken
from doorward.identity.credential import Credential, Kind
from doorward.identity.descent import bounds_of, fault_of, unlinked
from doorward.identity.dpop import Presented, ProofVerifier
from doorward.identity.sign_in import UNKNOWN_SIGN_IN, sign_in_of, without_ended_mfa
from doorward.identity.strict_jose import TokenFaultError
from doorward.identity.token_cache import Kept

# Whom a workload may stand for: a person is never a program.
WORKLOADS = frozenset({"Service", "Agent"})


class TokenCallers:
    """Say who an access token stands for; one per process."""

    def __init__(  # noqa: PLR0913 -- what the authenticator wires, by name
        self,
        verifier: TokenVerifier,
        proofs: ProofVerifier,
        *,
        registry: Callable[[], CredentialRegistry],
        clock: Clock,
        test_minting: bool,
        announcer: Announcer | None = None,
    ) -> None:
        """Read `registry` afresh each time; what it returns never changes, a change is another one."""
        self._verifier, self._proofs = verifier, proofs
        self._announcer = announcer or Announcer(None, clock)
        self._registry, self._clock, self._test_minting = registry, clock, test_minting

    def cached(self, text: str, path: str) -> Caller | None:
        """Return, without waiting, whom an unbound token was found to stand for, if that still holds."""
        kept = self._verifier.cached(text, now=self._clock.now())
        if kept is None or kept.caller is None or kept.registry is not self._registry():
            return None
        if kept.token.path and not _is_under(path, kept.token.path):
            return None
        return kept.caller

    async def caller_of(self, found: Credential, request: Request) -> Caller:
        """Return whom a token stands for; raise UnauthenticatedError, or UnavailableError for a proof."""
        bound = found.kind is Kind.BOUND_TOKEN
        # 2.1 The token verifies (RFC 9068). The registry is read after this wait, never before it.
        kept = await self._verified(found.text, bound=bound)
        token = kept.token
        # 2.2 It is for what is asked.
        if token.path and not _is_under(request.path, token.path):
            raise refusals.token_refused("audience_wrong", bound=bound)
        # 2.3 What it is bound to was shown, on this very request; that is never remembered.
        shown_by = await self._sender_constraint(token, found, request)
        registry = self._registry()
        # 2.4 It was not revoked, nor anything it was made from.
        fault = self._revoked(token, registry, request.peer)
        if fault is not None:
            raise refusals.token_refused(fault, bound=bound)
        # 2.5 Its (issuer, subject) is linked to a principal; never by e-mail or name.
        principal = token.principal or registry.principal_of(token.issuer, token.subject)
        if token.arrival is not None:
            await self._announcer.tell(found.text, token, known=principal is not None)
            registry = self._registry()
            principal = registry.principal_of(token.issuer, token.subject)
        if principal is None:
            raise refusals.not_linked(bound=bound)
        if token.workload and principal.kind not in WORKLOADS:
            raise refusals.token_refused("workload_linked_to_a_person", bound=bound)
        caller = self._caller(kept, principal, registry, shown_by)
        # 2.6 The sign-in behind it was not ended; of its MFA counts what was shown since.
        out = registry.sign_out_of(principal)
        if out is not None:
            if out.ends(sign_in_of(caller)):
                raise refusals.token_refused("signed_out", bound=bound)
            caller = without_ended_mfa(caller, out)
        # 2.7 Whoever it is, is active now.
        if not registry.is_active(principal):
            raise refusals.token_refused("subject_inactive", bound=bound)
        # What hangs on where a request comes from, or on a key's end, is asked again each time.
        if not shown_by and not (token.descent is not None and token.descent.keys):
            kept.caller, kept.registry = caller, registry
        return caller

    def _revoked(self, token: VerifiedToken, registry: CredentialRegistry, peer: Peer) -> str | None:
        if registry.token_revoked(token.jti):
            return "token_revoked"
        if token.descent is None:
            return None
        if token.principal is not None and unlinked(token.descent, registry, token.principal):
            return "ancestor_identity_unlinked"
        return fault_of(token.descent, registry, now=self._clock.now(), ip=peer.ip)

    async def _verified(self, text: str, *, bound: bool) -> Kept:
        kept = self._verifier.cached(text, now=self._clock.now())
        if kept is not None:
            return kept
        try:
            return await self._verifier.verify(text)
        except TokenFaultError as fault:
            raise refusals.token_refused(str(fault), bound=bound) from None

    async def _sender_constraint(self, token: VerifiedToken, found: Credential, request: Request) -> str:
        if token.certificate is not None and not _shows(request.peer, token.certificate):
            raise refusals.token_refused("bound_to_a_certificate_not_shown")
        if found.kind is not Kind.BOUND_TOKEN:
            if token.proof_key is not None:
                # RFC 9449, 7.2: a bound token sent as a plain one is a stolen one.
                raise refusals.token_refused("bound_token_without_proof", bound=True)
            return "certificate" if token.certificate is not None else ""
        if token.proof_key is None:
            raise refusals.token_refused("token_not_bound", bound=True)
        await self._proofs.verify(Presented(found.proof, request, found.text, token.proof_key))
        return "dpop"

    def _caller(
        self, kept: Kept, principal: EntityUid, registry: CredentialRegistry, shown_by: str
    ) -> Caller:
        token = kept.token
        caller = Caller(
            principal=principal,
            credential=token.jti,
            method=Method.SVID if token.workload else Method.TOKEN,
            bound_purpose=token.purpose,
            acr=token.acr,
            signed_in_at=token.signed_in_at or UNKNOWN_SIGN_IN,
            mfa_at=token.mfa_at,
            minted=token.minted,
            expires=token.expires,
            issuer=token.issuer,
            subject=token.subject,
            shown_by=shown_by,
            vouched_by=token.issuer,
            vouched_at=token.issued,
            vouched_until=token.vouched_until,
            introspected=kept.introspected,
            actors=token.actors,
            descent=token.descent,
            bounds=token.bounds + (() if token.descent is None else bounds_of(token.descent, registry)),
        )
        return self._with_test_claims(caller, token, registry) if self._test_minting else caller

    @staticmethod
    def _with_test_claims(caller: Caller, token: VerifiedToken, registry: CredentialRegistry) -> Caller:
        # Only here does a token say MFA or device without proof; `minted` tells every policy so.
        if not token.minted:
            return caller
        device = None if token.minted_device is None else EntityUid.of("Device", token.minted_device)
        if device is not None and not registry.is_active(device):
            raise refusals.token_refused("device_inactive")
        mfa_at = token.signed_in_at if token.minted_mfa else None
        return msgspec.structs.replace(
            caller, mfa_at=mfa_at, device=device, device_proven=device is not None, vouched_by="test_minting"
        )


def _is_under(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above}/")


def _shows(peer: Peer, thumbprint: str) -> bool:
    """Return whether the client certificate has this RFC 8705 thumbprint: base64url of its SHA-256."""
    if peer.certificate is None:
        return False
    digest = hashlib.sha256(peer.certificate).digest()
    shown = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
    return hmac.compare_digest(shown, thumbprint)
