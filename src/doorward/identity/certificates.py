"""Build X.509 certificates that strict verifiers accept (RFC 5280; Python's VERIFY_X509_STRICT)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from doorward.core.errors import InvalidRequestError

# Clocks of devices run late; a certificate is valid a little before it was made.
BACKDATE = timedelta(minutes=5)
MAX_CSR = 16 * 1024
_MAX_COMMON_NAME = 64
_MIN_RSA_BITS, _MAX_RSA_BITS, _MIN_RSA_EXPONENT = 2048, 8192, 65537
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def common_name(name: str) -> x509.Name:
    """Return a subject with one common name; raise InvalidRequestError beyond its 64 characters."""
    if not 0 < len(name) <= _MAX_COMMON_NAME or not name.isprintable():
        raise InvalidRequestError(
            f"`{name}` cannot stand in a certificate", hint="Names have 1 to 64 printable characters."
        )
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def read_csr(text: str) -> PublicKey:
    """Return a request's public key, and nothing else of it; raise InvalidRequestError if it is unfit.

    Names, extensions and usages it asks for are ignored: we say what a certificate is for.
    """
    if len(text) > MAX_CSR:
        raise InvalidRequestError(f"the signing request has more than {MAX_CSR} bytes")
    try:
        request = x509.load_pem_x509_csr(text.encode("ascii"))
        signed = request.is_signature_valid
        key = request.public_key()
    except Exception as reason:  # the parser raises more kinds than it names; all mean the same
        raise InvalidRequestError(
            "the signing request cannot be read", hint="Send PKCS #10 in PEM: `openssl req -new ...`."
        ) from reason
    if not signed:
        raise InvalidRequestError("the signing request is not signed by its own key")
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)):
        raise _weak("its kind of key is not accepted")
    _refuse_weak(key)
    return key


def _refuse_weak(key: PublicKey) -> None:
    match key:
        case rsa.RSAPublicKey():
            if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
                raise _weak(f"RSA with {key.key_size} bits")
            if key.public_numbers().e < _MIN_RSA_EXPONENT:
                raise _weak(f"RSA with exponent {key.public_numbers().e}")
        case ec.EllipticCurvePublicKey():
            if not isinstance(key.curve, _CURVES):
                raise _weak(f"curve {key.curve.name}")


def _weak(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the signing request's key is refused: {what}",
        hint="Use P-256, P-384, Ed25519 or RSA from 2048 bits.",
    )


def authority(
    key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    *,
    now: datetime,
    life: timedelta,
    issuer_key: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """Return a CA certificate (PEM) that may sign leaves and nothing below them.

    It is signed by itself, or by an earlier key of the same authority (`issuer_key`).
    """
    public = key.public_key()
    signer = issuer_key or key
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    above = x509.SubjectKeyIdentifier.from_public_key(signer.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def leaf(  # noqa: PLR0913 -- the fields of a certificate
    public: PublicKey,
    *,
    subject: x509.Name,
    names: Sequence[x509.GeneralName],
    client: bool,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    life: timedelta,
) -> x509.Certificate:
    """Return a certificate for a client (`client`) or a server, never for both, never past its CA."""
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    signer = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + life, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def host_name(host: str) -> x509.GeneralName:
    """Return a host as a certificate names it: an address or a DNS name."""
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PKCS #8 PEM, not encrypted: its file is what protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
