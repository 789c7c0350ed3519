"""TLS handshakes with certificates of the installation's own CA, verified strictly on both sides."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidConfigError
from doorward.identity.custody import Custodian
from doorward.identity.device_authority import DeviceAuthority, Enrolment
from doorward.identity.tls import TlsFiles, files_of, reload, server_context
from doorward.settings import TlsSettings

NOW = datetime.now(UTC)


@pytest.fixture
def authority(tmp_path: Path) -> DeviceAuthority:
    return DeviceAuthority(Custodian.open("file:keys", tmp_path), ManualClock(NOW))


@pytest.fixture
def files(authority: DeviceAuthority, tmp_path: Path) -> TlsFiles:
    return authority.ensure_server_files(tmp_path, "gateway", "127.0.0.1", now=NOW)


def client_context(ca: str, directory: Path, enrolment: Enrolment | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca)
    # As Python 3.13 does by default.
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    if enrolment is not None:
        pair = directory / "client.pem"
        assert enrolment.key is not None
        pair.write_text(enrolment.certificate + enrolment.key.reveal())
        context.load_cert_chain(pair)
    return context


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str = "127.0.0.1"
) -> tuple[bytes | None, Any]:
    """Shake hands over loopback; return what the server knows of the client, and the version."""
    known: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def accept() -> None:
            raw, _ = listener.accept()
            raw.settimeout(5)
            try:
                with server.wrap_socket(raw, server_side=True) as connection:
                    known.append((connection.getpeercert(binary_form=True), connection.version()))
                    connection.sendall(b"ok")
            except (ssl.SSLError, OSError) as reason:
                known.append(reason)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
                client.wrap_socket(raw, server_hostname=host) as connection,
            ):
                assert connection.recv(2) == b"ok"
        finally:
            thread.join()
    seen: tuple[bytes | None, Any] = known[0]
    return seen


def test_an_enrolled_device_shows_the_certificate_its_fingerprint_names(
    authority: DeviceAuthority, files: TlsFiles, tmp_path: Path
) -> None:
    enrolment = authority.enrol("laptop-7", now=NOW)
    client = client_context(authority.ca_pem, tmp_path, enrolment)
    for host in ("127.0.0.1", "localhost"):
        der, version = handshake(server_context(files), client, host)
        assert der is not None
        assert (hashlib.sha256(der).hexdigest(), version) == (enrolment.fingerprint, "TLSv1.3")


def test_a_client_without_certificate_is_welcome_and_unknown(
    authority: DeviceAuthority, files: TlsFiles, tmp_path: Path
) -> None:
    der, _ = handshake(server_context(files), client_context(authority.ca_pem, tmp_path))
    assert der is None


def test_tls_1_2_is_spoken_and_nothing_older(
    authority: DeviceAuthority, files: TlsFiles, tmp_path: Path
) -> None:
    client = client_context(authority.ca_pem, tmp_path, authority.enrol("laptop-7", now=NOW))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    der, version = handshake(server_context(files), client)
    assert (der is not None, version) == (True, "TLSv1.2")
    assert server_context(files).minimum_version >= ssl.TLSVersion.TLSv1_2


def _impostor(subject: x509.Name, issuer: x509.Name, path: Path) -> None:
    key, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(7).not_valid_before(NOW - timedelta(1)).not_valid_after(NOW + timedelta(1))
        .sign(signer, hashes.SHA256())
    )  # fmt: skip
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + pem)


def _expired(authority: DeviceAuthority, files: TlsFiles, path: Path) -> None:
    del files
    old = authority.enrol("laptop-7", now=NOW - timedelta(days=91))
    assert old.key is not None
    path.write_text(old.certificate + old.key.reveal())


def _of_the_server(authority: DeviceAuthority, files: TlsFiles, path: Path) -> None:
    del authority
    path.write_bytes(files.cert.read_bytes())


def _self_made(authority: DeviceAuthority, files: TlsFiles, path: Path) -> None:
    del files
    ca = x509.load_pem_x509_certificate(authority.ca_pem.encode())
    # It bears our CA's name, but another key signed it.
    _impostor(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "laptop-7")]), ca.subject, path)


def _of_another_installation(authority: DeviceAuthority, files: TlsFiles, path: Path) -> None:
    del authority, files
    (path.parent / "other").mkdir()
    other = DeviceAuthority(Custodian.open("file:keys", path.parent / "other"), ManualClock(NOW))
    enrolment = other.enrol("laptop-7", now=NOW)
    assert enrolment.key is not None
    path.write_text(enrolment.certificate + enrolment.key.reveal())


@pytest.mark.parametrize("make", [_expired, _of_the_server, _self_made, _of_another_installation])
def test_a_certificate_that_does_not_verify_gets_no_connection(
    authority: DeviceAuthority, files: TlsFiles, tmp_path: Path, make: Callable[..., None]
) -> None:
    make(authority, files, tmp_path / "bad.pem")
    client = client_context(authority.ca_pem, tmp_path)
    client.load_cert_chain(tmp_path / "bad.pem")
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        handshake(server_context(files), client)
    # The same client without that certificate gets in: it was the certificate.
    assert handshake(server_context(files), client_context(authority.ca_pem, tmp_path))[0] is None


def test_a_client_of_another_authority_does_not_trust_us(files: TlsFiles, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = DeviceAuthority(Custodian.open("file:keys", tmp_path / "other"), ManualClock(NOW))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(files), client_context(other.ca_pem, tmp_path))


def test_a_client_does_not_take_us_for_another_host(
    authority: DeviceAuthority, files: TlsFiles, tmp_path: Path
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(files), client_context(authority.ca_pem, tmp_path), "bank.example")


def test_a_device_certificate_cannot_serve(authority: DeviceAuthority, tmp_path: Path) -> None:
    enrolment = authority.enrol("localhost", now=NOW)
    client_context(authority.ca_pem, tmp_path, enrolment)
    posing = TlsFiles(tmp_path / "client.pem", tmp_path / "client.pem", None)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(posing), client_context(authority.ca_pem, tmp_path), "localhost")


def test_a_renewed_certificate_is_served_without_a_restart(
    authority: DeviceAuthority, files: TlsFiles, tmp_path: Path
) -> None:
    def served() -> bytes | None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=_serve_once, args=(listener, context))
            thread.start()
            client = client_context(authority.ca_pem, tmp_path)
            with (
                socket.create_connection(listener.getsockname(), timeout=5) as raw,
                client.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
            ):
                found = connection.getpeercert(binary_form=True)
            thread.join()
        return found

    context = server_context(files)
    first = served()
    files.cert.unlink()
    authority.ensure_server_files(tmp_path, "gateway", "127.0.0.1", now=NOW)
    assert served() == first
    reload(context, files)
    assert served() != first


def _serve_once(listener: socket.socket, context: ssl.SSLContext) -> None:
    raw, _ = listener.accept()
    with context.wrap_socket(raw, server_side=True) as connection:
        connection.recv(1)


def test_files_that_are_missing_or_do_not_fit_are_a_configuration_error(
    authority: DeviceAuthority, files: TlsFiles, tmp_path: Path
) -> None:
    other = authority.ensure_server_files(tmp_path, "control", "127.0.0.1", now=NOW)
    (tmp_path / "empty").write_bytes(b"")
    for wrong in (
        TlsFiles(tmp_path / "none", files.key, None),
        TlsFiles(tmp_path / "empty", files.key, None),
        TlsFiles(files.cert, tmp_path / "none", None),
        TlsFiles(files.cert, other.key, None),
        TlsFiles(files.cert, files.key, tmp_path / "none"),
        TlsFiles(files.cert, files.key, tmp_path / "empty"),
    ):
        with pytest.raises(InvalidConfigError):
            server_context(wrong)


def test_configured_paths_are_taken_from_the_configuration(tmp_path: Path) -> None:
    setting = TlsSettings(cert=Path("a.crt"), key=Path("a.key"), client_ca=Path("ca.crt"))
    found = files_of(
        setting, data=tmp_path, name="gateway", resolve=lambda path: Path("/etc/doorward") / path
    )
    assert [str(path) for path in (found.cert, found.key, found.client_ca)] == [
        "/etc/doorward/a.crt", "/etc/doorward/a.key", "/etc/doorward/ca.crt",
    ]  # fmt: skip
    automatic = files_of("auto", data=tmp_path, name="control", resolve=Path)
    assert automatic.cert == tmp_path / "tls" / "control.pem"
