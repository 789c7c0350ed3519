"""The installation's own CA: client certificates that prove devices, and the server's own."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from doorward.core.errors import InvalidConfigError
from doorward.core.secret import Secret
from doorward.identity import certificates
from doorward.identity.custody import Custodian, KeyUse
from doorward.identity.tls import TlsFiles, automatic_files

CA_LIFE = timedelta(days=3650)
DEVICE_LIFE = timedelta(days=90)
SERVER_LIFE = timedelta(days=90)
SERVER_RENEWAL = timedelta(days=30)
_CA_FILE = "device-ca.crt"
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- recognised here, never bound


class Enrolment(msgspec.Struct, frozen=True):
    """A device's new certificate; `key` only if we made it. `fingerprint` is SHA-256 of the DER, hex."""

    certificate: str
    key: Secret[str] | None
    fingerprint: str
    expires: datetime


class DeviceAuthority:
    """Issue certificates under the custodian's CA key. Lives in the control process."""

    def __init__(self, custodian: Custodian, now: datetime) -> None:
        """Read the CA, or make it on first use; raise InvalidConfigError if key and certificate differ."""
        self._key = custodian.p256(KeyUse.DEVICE_CA)
        self._pem = custodian.keep(_CA_FILE, lambda: _new_ca(self._key, now))
        try:
            self._certificate = x509.load_pem_x509_certificate(self._pem)
        except ValueError as reason:
            raise InvalidConfigError(f"the CA certificate {_CA_FILE} cannot be read") from reason
        if self._certificate.public_key() != self._key.public_key():
            raise InvalidConfigError(
                f"the CA certificate {_CA_FILE} does not belong to the key beside it",
                hint="Restore both from the same backup.",
            )

    @property
    def ca_pem(self) -> str:
        """Return the CA certificate, for clients to trust."""
        return self._pem.decode("ascii")

    def enrol(self, name: str, csr: str | None = None, *, now: datetime) -> Enrolment:
        """Issue a client certificate for a device (90 days); without a CSR make its key, too.

        Of a CSR only the public key is taken. Raises InvalidRequestError for a name or CSR that is unfit.
        """
        key = ec.generate_private_key(ec.SECP256R1()) if csr is None else None
        public = key.public_key() if key is not None else certificates.read_csr(csr or "")
        certificate = certificates.leaf(
            public,
            subject=certificates.common_name(name),
            names=[x509.UniformResourceIdentifier(f"urn:doorward:device:{quote(name, safe='')}")],
            client=True,
            issuer=self._certificate,
            issuer_key=self._key,
            now=now,
            life=DEVICE_LIFE,
        )
        return Enrolment(
            certificate=certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
            key=None if key is None else Secret(certificates.private_pem(key).decode("ascii")),
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            expires=certificate.not_valid_after_utc,
        )

    def ensure_server_files(
        self, data: Path, name: str, host: str, *, now: datetime, public: str | None = None
    ) -> TlsFiles:
        """Return the files of listener `name` for `tls = "auto"`, made anew 30 days before they end.

        `public` is the name others reach it by, where that is another than the address it listens on.
        Certificate and key are one file, replaced whole, so that they always belong together.
        """
        files = automatic_files(data, name)
        files.cert.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        hosts = tuple(dict.fromkeys((*_hosts_of(host), *([] if public is None else [public]))))
        if not self._serves(files.cert, hosts, now):
            _replace(files.cert, self._server_pem(hosts, now))
        if files.client_ca is not None and (
            not files.client_ca.exists() or files.client_ca.read_bytes() != self._pem
        ):
            _replace(files.client_ca, self._pem)
        return files

    def _server_pem(self, hosts: Sequence[str], now: datetime) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = certificates.leaf(
            key.public_key(),
            subject=certificates.common_name("doorward"),
            names=[certificates.host_name(host) for host in hosts],
            client=False,
            issuer=self._certificate,
            issuer_key=self._key,
            now=now,
            life=SERVER_LIFE,
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + certificates.private_pem(key)

    def _serves(self, file: Path, hosts: Sequence[str], now: datetime) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(file.read_bytes())
            certificate.verify_directly_issued_by(self._certificate)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except Exception:  # noqa: BLE001 -- whatever is wrong with the old file, a new one mends it
            return False
        current = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - SERVER_RENEWAL
        return current and set(names) == {certificates.host_name(host) for host in hosts}


def _hosts_of(host: str) -> tuple[str, ...]:
    own = socket.gethostname() if host in _EVERY_ADDRESS else host
    return tuple(dict.fromkeys((own, *_LOCAL_HOSTS)))


def _new_ca(key: ec.EllipticCurvePrivateKey, now: datetime) -> bytes:
    # The name tells two installations apart in a client's list of authorities.
    subject = certificates.common_name(f"Doorward installation {secrets.token_hex(4)}")
    return certificates.authority(key, subject, now=now, life=CA_LIFE)


def _replace(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(descriptor)
    draft.replace(file)
