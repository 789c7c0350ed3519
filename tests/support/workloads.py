"""A SPIFFE trust domain made for a test: authorities, X.509-SVIDs, JWT-SVIDs, right ones and wrong ones."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc.jwk import ECKey

from support.proofs import sign


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) if text else x509.Name([])


def key_usage(*, signs: bool, digital: bool = True, crl: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=crl or signs,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass
class Authority:
    """One certificate authority, of a trust domain or below another authority."""

    name: str
    now: datetime
    above: Authority | None = None
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        signer = self.above or self
        own = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        above = x509.SubjectKeyIdentifier.from_public_key(signer.key.public_key())
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(named(self.name))
            .issuer_name(named(signer.name))
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - timedelta(days=1))
            .not_valid_after(self.now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage(signs=True, digital=False), critical=True)
            .add_extension(own, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above), critical=False
            )
            .sign(signer.key, hashes.SHA256())
        )

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def svid(  # noqa: PLR0913 -- what a test may bend
        self,
        *uris: str,
        dns: tuple[str, ...] = (),
        ca: bool = False,
        usage: x509.KeyUsage | None = None,
        critical_usage: bool = True,
        uses: tuple[Any, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
        begins: timedelta = timedelta(minutes=-5),
        ends: timedelta = timedelta(hours=1),
        without_usage: bool = False,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> bytes:
        """Return a certificate (DER)."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(uri) for uri in uris] + [x509.DNSName(name) for name in dns]
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(named("workload"))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now + begins)
            .not_valid_after(self.now + ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if not without_usage:
            builder = builder.add_extension(usage or key_usage(signs=False), critical=critical_usage)
        if uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(uses)), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


class Domain:
    """A trust domain with one authority and one token key, and its bundle in a file."""

    def __init__(self, name: str, now: datetime, folder: Path) -> None:
        self.name, self.now, self.file = name, now, folder / f"{name}.json"
        self.authority = Authority(f"{name} root", now)
        self.key = ECKey.generate_key("P-256")
        self.kid = "token-1"
        self.write()

    def write(self, *, authorities: list[Authority] | None = None, keys: list[Any] | None = None) -> None:
        certificates = [self.authority] if authorities is None else authorities
        tokens = [(self.kid, self.key)] if keys is None else keys
        entries: list[dict[str, Any]] = [
            {**_public(one), "use": "x509-svid", "x5c": [base64.b64encode(one.der).decode()]}
            for one in certificates
        ]
        entries += [{**key.as_dict(private=False), "use": "jwt-svid", "kid": kid} for kid, key in tokens]
        self.file.write_text(json.dumps({"keys": entries, "spiffe_sequence": 1}))

    def token(
        self,
        path: str,
        *,
        header: dict[str, Any] | None = None,
        key: Any = None,
        alg: str = "ES256",
        **changes: Any,
    ) -> str:
        now = int(self.now.timestamp())
        claims = {
            "sub": f"spiffe://{self.name}{path}",
            "aud": ["https://gate.example"],
            "exp": now + 300,
            **changes,
        }
        head = {"alg": alg, "kid": self.kid, "typ": "JWT", **(header or {})}
        return sign(
            {name: value for name, value in head.items() if value is not ...},
            {name: value for name, value in claims.items() if value is not ...},
            key or self.key,
            alg,
        )


def _public(authority: Authority) -> dict[str, Any]:
    public = ECKey.import_key(
        authority.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return dict(public.as_dict(private=False))
