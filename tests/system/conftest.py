"""Certificates made on the spot, for tests that speak TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Certificates:
    server: ssl.SSLContext
    with_client: ssl.SSLContext
    without_client: ssl.SSLContext
    client_serial: int


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(name, key, *, issuer=None, issuer_key=None, authority=False):
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer or name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
    )
    return builder.sign(issuer_key or key, hashes.SHA256())


def _write(path, key, certificate):
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def certificates(tmp_path):
    authority_key, server_key, client_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    authority = _signed("test authority", authority_key, authority=True)
    issued = {"issuer": "test authority", "issuer_key": authority_key}
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    server_file = _write(tmp_path / "server.pem", server_key, _signed("localhost", server_key, **issued))
    client_certificate = _signed("laptop-7", client_key, **issued)
    client_file = _write(tmp_path / "client.pem", client_key, client_certificate)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    server.load_cert_chain(server_file)
    server.verify_mode = ssl.CERT_OPTIONAL
    with_client, without_client = (ssl.create_default_context(cafile=ca) for _ in range(2))
    with_client.load_cert_chain(client_file)
    return Certificates(server, with_client, without_client, client_certificate.serial_number)
