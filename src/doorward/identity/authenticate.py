"""Turn the credential of a request into its caller: who asks, from which device, until when."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doorward.core.clock import Clock
from doorward.core.errors import InvalidRequestError
from doorward.core.identity import Caller, KeyRecord, Method
from doorward.core.ports import Arrivals, CredentialRegistry, OneTimeStore
from doorward.core.wire import Peer, Request
from doorward.identity import api_keys, credential, refusals, sigv4
from doorward.identity.access_tokens import TokenVerifier
from doorward.identity.arriving import Announcer
from doorward.identity.credential import Kind
from doorward.identity.dpop import ProofVerifier
from doorward.identity.fetching import HttpFetcher
from doorward.identity.introspection import Post, introspectors_by
from doorward.identity.issuer_keys import FedKeys, Fetch
from doorward.identity.last_use import LastUses
from doorward.identity.nonces import Nonces
from doorward.identity.own_addresses import OwnAddresses
from doorward.identity.spiffe import TrustDomains
from doorward.identity.standing import Standing
from doorward.identity.strict_jose import TokenFaultError
from doorward.identity.svids import CertificateSvids
from doorward.identity.token_callers import WORKLOADS, TokenCallers
from doorward.settings import IssuerSettings, SpiffeSettings


class Authenticator:
    """Verify who a request comes from. One per gateway process; safe within one event loop."""

    def __init__(  # noqa: PLR0913 -- what the composition root wires, by name
        self,
        registry: Callable[[], CredentialRegistry],
        issuers: Sequence[IssuerSettings],
        local_issuer_jwks: Callable[[], Mapping[str, Any]],
        clock: Clock,
        audience: str,
        *,
        one_time: OneTimeStore,
        test_minting: bool = False,
        fetch: Fetch | None = None,
        post: Post | None = None,
        resolve: Callable[[Path], Path] = Path,
        spiffe: Sequence[SpiffeSettings] = (),
        arrivals: Arrivals | None = None,
        nonces: Nonces | None = None,
        uses: LastUses | None = None,
        addresses: Sequence[str] = (),
    ) -> None:
        """Read `registry` and `local_issuer_jwks` afresh each time.

        `audience` is what the local issuer's tokens must be for; other issuers have their own.
        `one_time` is shared by every process that lets callers in. `addresses` are further URLs this
        gateway is known by, `nonces` makes DPoP proofs hold one of ours, `uses` remembers the keys' uses.
        `resolve` finds files that the settings name. Raises InvalidConfigError for an issuer that cannot
        be trusted.
        """
        self._registry, self._clock = registry, clock
        self._one_time = one_time
        self._uses = uses or LastUses(None)
        self._local = FedKeys(local_issuer_jwks)
        self._fetcher = HttpFetcher()
        domains = TrustDomains(spiffe, clock=clock, resolve=resolve)
        self._svids = CertificateSvids(domains, clock)
        self._verifier = TokenVerifier(
            issuers,
            local=self._local,
            audience=audience,
            clock=clock,
            fetch=fetch or self._fetcher,
            introspectors=introspectors_by(post or self._fetcher.post, clock=clock, resolve=resolve),
            domains=domains,
        )
        self._standing = Standing(self._verifier, local_issuer=lambda: self._local.issuer)
        own = OwnAddresses((audience, *addresses, *(issuer.audience for issuer in issuers)))
        self._tokens = TokenCallers(
            self._verifier,
            ProofVerifier(own=own, one_time=one_time, clock=clock, nonces=nonces),
            registry=registry,
            clock=clock,
            test_minting=test_minting,
            announcer=Announcer(arrivals, clock),
        )

    def cached(self, request: Request) -> Caller | None:
        """Return, without waiting, the caller of a plain token that was seen before; None: `authenticate`.

        Its end, its revocation, its link and its issuer's keys are judged as they are now. A token that
        must be shown with a proof or a certificate is never found here.
        """
        if request.peer.certificate is not None:
            return None
        text = credential.plain_bearer(request)
        return None if text is None else self._tokens.cached(text, request.path)

    async def authenticate(self, request: Request) -> Caller:
        """Return the verified caller of a request.

        Raises UnauthenticatedError (401) with `.challenge` for the caller and `.reason` for the
        record; InvalidRequestError (400) for more than one credential, or two that disagree.
        """
        # 0. What hangs on nothing but a token that was seen before is known without a wait.
        known = self.cached(request)
        if known is not None:
            return known
        # 1. At most one credential, in one place, in one reading.
        found = credential.find(request)
        # 2. The credential verifies, by its kind.
        caller = None if found is None else await self._verified(found, request)
        # 3. A client certificate shown on this very request proves its device, or stands for itself.
        caller = self._with_device(caller, request.peer)
        # 4. Whoever it is, is known and active now.
        if not self._registry().is_active(caller.principal):
            raise self._refusal(caller.method)("subject_inactive")
        return caller

    def still_valid(self, caller: Caller) -> bool:
        """Return whether what let a caller in still would, at this moment, without waiting."""
        return self._standing.holds(caller, self._registry(), self._clock.now())

    async def close(self) -> None:
        """Stop fetching and close connections to issuers."""
        await self._verifier.close()
        await self._fetcher.close()

    # Step 2, by kind

    async def _verified(self, found: credential.Credential, request: Request) -> Caller:
        match found.kind:
            case Kind.KEY:
                return self._caller_of_key(found.text, request.peer)
            case Kind.SIGNATURE:
                return await self._caller_of_signature(request)
            case Kind.TOKEN | Kind.BOUND_TOKEN:
                return await self._tokens.caller_of(found, request)

    def _caller_of_key(self, text: str, peer: Peer) -> Caller:
        # 2.1 Form and checksum are a key's. 2.2 Its hash is known. 2.3 It may be used now, from there.
        digest = api_keys.digest_of(text)
        record = None if digest is None else self._registry().key_by_hash(digest)
        if record is None or digest is None or not hmac.compare_digest(record.hash, digest):
            raise refusals.key_refused("key_malformed" if digest is None else "key_unknown")
        return self._caller_of_record(record, peer, Method.API_KEY)

    async def _caller_of_signature(self, request: Request) -> Caller:
        signed = await sigv4.verify(request, self._registry, self._clock, one_time=self._one_time)
        # The key behind the signature obeys the same rules as one shown openly.
        record = self._registry().key_by_id(signed.credential)
        if record is None or record.subject != signed.principal:
            raise refusals.key_refused("key_unknown")
        caller = self._caller_of_record(record, request.peer, Method.SIGNATURE)
        ends = [end for end in (caller.expires, signed.expires) if end is not None]
        return msgspec.structs.replace(caller, expires=min(ends, default=None))

    def _caller_of_record(self, record: KeyRecord, peer: Peer, method: Method) -> Caller:
        registry = self._registry()
        fault = api_keys.fault_of(record, ip=peer.ip, now=self._clock.now(), registry=registry)
        if fault is not None:
            raise refusals.key_refused(fault)
        self._uses.note(record.id, self._clock.now(), peer.ip)
        return api_keys.caller_of(record, method)

    # Step 3

    def _with_device(self, caller: Caller | None, peer: Peer) -> Caller:
        if peer.certificate is None:
            if caller is None:
                raise refusals.no_credential()
            return caller
        if self._svids.claims_to_be_one(peer.certificate):
            return self._with_svid(caller, peer)
        # 3.1 The certificate is bound to an active device, now; TLS alone cannot know.
        fingerprint = hashlib.sha256(peer.certificate).hexdigest()
        registry, now = self._registry(), self._clock.now()
        device = registry.device_of_certificate(fingerprint, now)
        if device is None or not registry.is_active(device):
            raise refusals.certificate_refused("certificate_unknown_or_revoked")
        # 3.2 Alone, it is the device that asks.
        if caller is None:
            return Caller(
                principal=device,
                credential=fingerprint,
                method=Method.CERTIFICATE,
                device=device,
                device_proven=True,
                certificate=fingerprint,
            )
        # 3.3 With a credential bound to a device, both must mean the same one.
        if caller.device is not None and caller.device != device:
            raise InvalidRequestError(
                "the credential belongs to another device than the client certificate",
                hint="Use the key made for this device, or the certificate of the other one.",
            )
        return msgspec.structs.replace(caller, device=device, device_proven=True, certificate=fingerprint)

    def _with_svid(self, caller: Caller | None, peer: Peer) -> Caller:
        # 3.1 The workload's certificate verifies, by its own trust domain.
        try:
            svid = self._svids.verify(peer)
        except TokenFaultError as fault:
            raise refusals.certificate_refused(str(fault)) from None
        # 3.2 It is linked to a Service or an Agent.
        principal = self._registry().principal_of(svid.id.issuer, svid.id.path)
        if principal is None or principal.kind not in WORKLOADS:
            raise refusals.certificate_refused("workload_not_linked")
        # 3.3 With a credential, both must mean the same one.
        if caller is not None and caller.principal != principal:
            raise InvalidRequestError(
                "the credential belongs to somebody else than the client certificate",
                hint="Use a credential of the workload whose certificate is shown.",
            )
        if caller is not None:
            return caller
        return Caller(
            principal=principal,
            credential=svid.name,
            method=Method.SVID,
            expires=svid.expires,
            issuer=svid.id.issuer,
            subject=svid.id.path,
            vouched_by=svid.id.issuer,
        )

    def _refusal(self, method: str) -> Callable[[str], Exception]:
        match method:
            case Method.TOKEN:
                return refusals.token_refused
            case Method.CERTIFICATE | Method.SVID:
                return refusals.certificate_refused
        return refusals.key_refused
