from __future__ import annotations

import hashlib
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidConfigError, InvalidRequestError
from doorward.identity.custody import Custodian
from doorward.identity.device_authority import DeviceAuthority

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> DeviceAuthority:
    return DeviceAuthority(Custodian.open("file:keys", tmp_path), ManualClock(NOW))


def csr(key: object, *, ca: bool = False) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root-of-all")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:doorward:device:other")])
        builder = builder.add_extension(names, critical=False)
    own = isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
    request = builder.sign(key, None if own else hashes.SHA256())  # type: ignore[arg-type]  # every kind on purpose
    return request.public_bytes(serialization.Encoding.PEM).decode()


def test_a_device_certificate_names_the_device_and_serves_clients_only(authority: DeviceAuthority) -> None:
    enrolment = authority.enrol("laptop-7", now=NOW)
    certificate = x509.load_pem_x509_certificate(enrolment.certificate.encode())
    assert certificate.subject.rfc4514_string() == "CN=laptop-7"
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:doorward:device:laptop-7"]
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc == NOW + timedelta(days=90) == enrolment.expires
    der = certificate.public_bytes(serialization.Encoding.DER)
    assert enrolment.fingerprint == hashlib.sha256(der).hexdigest()
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.ca_pem.encode()))


def test_the_made_key_belongs_to_the_certificate_and_does_not_print(authority: DeviceAuthority) -> None:
    enrolment = authority.enrol("laptop-7", now=NOW)
    assert enrolment.key is not None
    key = serialization.load_pem_private_key(enrolment.key.reveal().encode(), None)
    certificate = x509.load_pem_x509_certificate(enrolment.certificate.encode())
    assert key.public_key() == certificate.public_key()
    assert "PRIVATE" not in repr(enrolment)


def test_of_a_signing_request_only_the_public_key_is_taken(authority: DeviceAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    enrolment = authority.enrol("laptop-7", csr(key, ca=True), now=NOW)
    certificate = x509.load_pem_x509_certificate(enrolment.certificate.encode())
    assert enrolment.key is None
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=laptop-7"
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:doorward:device:laptop-7"]


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
)
def test_sound_kinds_of_keys_are_accepted(authority: DeviceAuthority, key: object) -> None:
    assert authority.enrol("laptop-7", csr(key), now=NOW).fingerprint


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),  # noqa: S505 -- weak on purpose
        rsa.generate_private_key(3, 2048),
        ed448.Ed448PrivateKey.generate(),
        ec.generate_private_key(ec.SECP224R1()),
        ec.generate_private_key(ec.SECP256K1()),
        dsa.generate_private_key(2048),
    ],
)
def test_weak_and_odd_kinds_of_keys_are_refused(authority: DeviceAuthority, key: object) -> None:
    with pytest.raises(InvalidRequestError, match="refused"):
        authority.enrol("laptop-7", csr(key), now=NOW)


def test_a_signing_request_must_be_signed_by_its_own_key(authority: DeviceAuthority) -> None:
    text = csr(ec.generate_private_key(ec.SECP256R1()))
    der = bytearray(x509.load_pem_x509_csr(text.encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(InvalidRequestError, match="its own key"):
        authority.enrol("laptop-7", forged, now=NOW)


@pytest.mark.parametrize("text", ["", "no", "é", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "x" * 20_000])
def test_what_is_no_signing_request_is_refused(authority: DeviceAuthority, text: str) -> None:
    with pytest.raises(InvalidRequestError):
        authority.enrol("laptop-7", text, now=NOW)


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "a\x00"])
def test_a_name_that_cannot_stand_in_a_certificate_is_refused(authority: DeviceAuthority, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        authority.enrol(name, now=NOW)


def test_odd_names_are_escaped_in_the_uri(authority: DeviceAuthority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.enrol("é/x y", now=NOW).certificate.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:doorward:device:%C3%A9%2Fx%20y"]


def test_the_authority_stays_the_same_and_lives_ten_years(tmp_path: Path, authority: DeviceAuthority) -> None:
    later = DeviceAuthority(Custodian.open("file:keys", tmp_path), ManualClock(NOW + timedelta(days=400)))
    assert later.ca_pem == authority.ca_pem
    certificate = x509.load_pem_x509_certificate(authority.ca_pem.encode())
    assert certificate.not_valid_after_utc == NOW + timedelta(days=3650)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_no_certificate_outlives_the_authority(authority: DeviceAuthority) -> None:
    late = NOW + timedelta(days=3640)
    assert authority.enrol("laptop-7", now=late).expires == NOW + timedelta(days=3650)


def test_an_authority_whose_key_was_swapped_is_refused(tmp_path: Path, authority: DeviceAuthority) -> None:
    assert authority
    (tmp_path / "keys/device-ca.pem").unlink()
    with pytest.raises(InvalidConfigError, match="does not belong"):
        DeviceAuthority(Custodian.open("file:keys", tmp_path), ManualClock(NOW))


def test_server_files_are_kept_until_they_near_their_end_or_the_host_changes(
    tmp_path: Path, authority: DeviceAuthority
) -> None:
    def made(host: str, now: datetime) -> bytes:
        files = authority.ensure_server_files(tmp_path, "gateway", host, now=now)
        assert files.client_ca is not None
        assert files.client_ca.read_text() == authority.ca_pem
        assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
        return files.cert.read_bytes()

    first = made("127.0.0.1", NOW)
    assert made("127.0.0.1", NOW + timedelta(days=59)) == first
    assert made("127.0.0.1", NOW + timedelta(days=61)) != first
    other = made("gate.example", NOW)
    names = x509.load_pem_x509_certificate(other).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["gate.example", "localhost"]
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    usage = x509.load_pem_x509_certificate(other).extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(usage.value) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_a_damaged_server_file_is_made_anew(tmp_path: Path, authority: DeviceAuthority) -> None:
    files = authority.ensure_server_files(tmp_path, "gateway", "127.0.0.1", now=NOW)
    files.cert.write_bytes(b"")
    authority.ensure_server_files(tmp_path, "gateway", "127.0.0.1", now=NOW)
    assert b"PRIVATE KEY" in files.cert.read_bytes()
