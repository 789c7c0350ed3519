"""Verify what workloads show: an X.509-SVID on the connection, a JWT-SVID in the header (SPIFFE)."""

from __future__ import annotations

from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, VerificationError

from doorward.core.clock import Clock
from doorward.core.wire import Peer
from doorward.identity import claims
from doorward.identity.claims import VerifiedToken
from doorward.identity.key_sets import signature_holds
from doorward.identity.spiffe import SCHEME, Bundle, SpiffeId, TrustDomain, TrustDomains, read_id
from doorward.identity.strict_jose import SignedParts, TokenFaultError

# JWT-SVID, 3: RSA and EC signatures only.
JWT_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"})
_TYPES = frozenset({None, "JWT", "JOSE"})
_HEADER = frozenset({"alg", "kid", "typ"})
_REMEMBERED = 1024
_MAX_CHAIN = 8


class Svid(msgspec.Struct, frozen=True):
    """A workload that showed who it is, until `expires`; `name` says what it showed, for records."""

    id: SpiffeId
    expires: datetime
    name: str


class CertificateSvids:
    """Verify X.509-SVIDs; a certificate that verified is remembered until it ends or its bundle changes."""

    def __init__(self, domains: TrustDomains, clock: Clock) -> None:
        """Trust these domains, each for its own names only."""
        self._domains, self._clock = domains, clock
        self._known: dict[bytes, tuple[Svid, Bundle]] = {}

    def claims_to_be_one(self, certificate: bytes) -> bool:
        """Return whether a certificate names a workload, so that it is judged as one and as nothing else."""
        return bool(self._domains) and SCHEME.encode() in certificate

    def verify(self, peer: Peer) -> Svid:
        """Return the workload whose certificate was shown; raise TokenFaultError."""
        der, now = peer.certificate or b"", self._clock.now()
        known = self._known.get(der)
        if known is not None and now < known[0].expires:
            domain = self._domains.of(known[0].id.trust_domain)
            if domain is not None and domain.bundle() is known[1]:
                return known[0]
        # 1. It is a certificate.
        try:
            leaf = x509.load_der_x509_certificate(der)
            uris = _uris_of(leaf)
        except (ValueError, x509.UnsupportedGeneralNameType) as reason:
            raise TokenFaultError("svid_unreadable") from reason
        # 2-3. It has exactly one URI name, and that is a workload's SPIFFE ID.
        if len(uris) != 1:
            raise TokenFaultError("svid_has_not_one_uri")
        spiffe_id = read_id(uris[0])
        # 4. It is a leaf that signs only for itself.
        _check_leaf(leaf)
        # 5. Its chain ends in the bundle of its own trust domain; another domain's authority is nobody here.
        domain = self._domains.of(spiffe_id.trust_domain)
        if domain is None:
            raise TokenFaultError("trust_domain_unknown")
        bundle = domain.bundle()
        _check_chain(leaf, peer.chain, bundle, now)
        svid = Svid(spiffe_id, leaf.not_valid_after_utc, f"x509-{leaf.serial_number:x}"[:64])
        self._remember(der, svid, bundle)
        return svid

    def _remember(self, der: bytes, svid: Svid, bundle: Bundle) -> None:
        if len(self._known) >= _REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[der] = (svid, bundle)


def _uris_of(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _check_leaf(leaf: x509.Certificate) -> None:
    extensions = leaf.extensions
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        raise TokenFaultError("svid_key_usage_wrong") from None
    may = usage.value
    if not usage.critical or not may.digital_signature or may.key_cert_sign or may.crl_sign:
        raise TokenFaultError("svid_key_usage_wrong")
    for extension in extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                raise TokenFaultError("svid_is_an_authority")
            case x509.ExtendedKeyUsage() as uses if ExtendedKeyUsageOID.CLIENT_AUTH not in uses:
                raise TokenFaultError("svid_key_usage_wrong")


def _check_chain(leaf: x509.Certificate, chain: tuple[bytes, ...], bundle: Bundle, now: datetime) -> None:
    if bundle.store is None:
        raise TokenFaultError("bundle_has_no_authorities")
    if len(chain) > _MAX_CHAIN:
        raise TokenFaultError("svid_chain_too_long")
    try:
        between = [x509.load_der_x509_certificate(der) for der in chain[1:]]
        PolicyBuilder().store(bundle.store).time(now).build_client_verifier().verify(leaf, between)
    except (VerificationError, ValueError) as reason:
        raise TokenFaultError("svid_chain_invalid") from reason


def is_jwt_svid(parts: SignedParts) -> bool:
    """Return whether a token says that it is a workload's, so that it is judged as one and nothing else."""
    subject = parts.payload.get("sub")
    return isinstance(subject, str) and subject.startswith(SCHEME) and parts.header.get("typ") in _TYPES


def verify_jwt(
    parts: SignedParts, domains: TrustDomains, *, now: datetime, audience: str
) -> tuple[TrustDomain, VerifiedToken]:
    """Return the trust domain that vouches for a JWT-SVID, and what it says; raise TokenFaultError."""
    header, payload = parts.header, parts.payload
    # 1. Its header is that of a JWT-SVID and brings nothing of its own.
    alg, kid = header.get("alg"), header.get("kid")
    if header.keys() - _HEADER:
        raise TokenFaultError("svid_header_has_more")
    if not isinstance(alg, str) or alg not in JWT_ALGORITHMS:
        raise TokenFaultError("algorithm_not_allowed")
    if not isinstance(kid, str):
        raise TokenFaultError("key_id_invalid")
    # 2. Its subject is a workload of a trust domain we know.
    spiffe_id = read_id(str(payload["sub"]))
    domain = domains.of(spiffe_id.trust_domain)
    if domain is None:
        raise TokenFaultError("trust_domain_unknown")
    # 3. The key is one of that domain's for tokens, and the signature holds.
    key = domain.current().choose(kid, alg)
    if key is None:
        raise TokenFaultError("signing_key_unknown")
    if not signature_holds(parts, key, alg):
        raise TokenFaultError("signature_invalid")
    # 4. It is for us and for nobody else. 5. It has begun, has not ended, and says when it will.
    path = claims.for_us(payload.get("aud"), domain.audience or audience)
    expires = claims.lifetime_of_svid(payload, now)
    return domain, VerifiedToken(
        issuer=spiffe_id.issuer,
        subject=spiffe_id.path,
        jti=f"svid-{parts.digest}",
        client_id=spiffe_id.path,
        expires=expires,
        issued=now,
        path=path,
        workload=True,
    )
