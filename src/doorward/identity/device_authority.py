"""The installation's own CA: client certificates that prove devices, and the server's own."""

from __future__ import annotations

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

from doorward.core.clock import Clock
from doorward.core.errors import InvalidConfigError
from doorward.core.secret import Secret
from doorward.identity import certificates, vault
from doorward.identity.custody import Custodian, KeyUse
from doorward.identity.tls import TlsFiles, automatic_files

CA_LIFE = timedelta(days=3650)
DEVICE_LIFE = timedelta(days=90)
SERVER_LIFE = timedelta(days=90)
SERVER_RENEWAL = timedelta(days=30)
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- recognised here, never bound


class Enrolment(msgspec.Struct, frozen=True):
    """A device's new certificate; `key` only if we made it. `fingerprint` is SHA-256 of the DER, hex."""

    certificate: str
    key: Secret[str] | None
    fingerprint: str
    expires: datetime


class Generation(msgspec.Struct, frozen=True):
    """One key of the CA with its certificate; `bridge` is the same key certified by the one before."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    pem: bytes
    bridge: bytes


class DeviceAuthority:
    """Issue certificates under the custodian's CA key. Lives in the control process."""

    def __init__(self, custodian: Custodian, clock: Clock) -> None:
        """Read the CA, or make it on first use; raise InvalidConfigError if key and certificate differ."""
        self._custodian, self._clock = custodian, clock
        self._generations: dict[int, Generation] = {}
        self._newest()

    @property
    def ca_pem(self) -> str:
        """Return what clients trust: the CA, and after a rotation also the one before, for its overlap."""
        overlap = max(DEVICE_LIFE, SERVER_LIFE)
        counting = self._custodian.honoured(KeyUse.DEVICE_CA, overlap=overlap, now=self._clock.now())
        return "".join(self._generation(number).pem.decode("ascii") for number in counting)

    def _newest(self) -> Generation:
        return self._generation(self._custodian.generation(KeyUse.DEVICE_CA))

    def _generation(self, number: int) -> Generation:
        found = self._generations.get(number)
        if found is None:
            found = self._generations[number] = self._read(number)
        return found

    def _read(self, number: int) -> Generation:
        key = self._custodian.p256(KeyUse.DEVICE_CA, number)
        file = "device-ca.crt" if number == 1 else f"device-ca-{number}.crt"
        before = None if number == 1 else self._generation(number - 1)
        own = self._custodian.keep(file, lambda: self._new_ca(key, before))
        try:
            certificate = x509.load_pem_x509_certificate(own)
        except ValueError as reason:
            raise InvalidConfigError(f"the CA certificate {file} cannot be read") from reason
        if certificate.public_key() != key.public_key():
            raise InvalidConfigError(
                f"the CA certificate {file} does not belong to the key beside it",
                hint="Restore both from the same backup.",
            )
        bridge = b"" if before is None else self._bridge(number, key, before)
        return Generation(key, certificate, own, bridge)

    def _new_ca(self, key: ec.EllipticCurvePrivateKey, before: Generation | None) -> bytes:
        # The name tells two installations apart in a client's list of authorities; generations share it.
        name = f"Doorward installation {secrets.token_hex(4)}"
        subject = certificates.common_name(name) if before is None else before.certificate.subject
        return certificates.authority(key, subject, now=self._clock.now(), life=CA_LIFE)

    def _bridge(self, number: int, key: ec.EllipticCurvePrivateKey, before: Generation) -> bytes:
        """Return the new key certified by the old one (RFC 4210, 4.4: `newWithOld`).

        Sent along by our servers, it lets a client that still trusts the old CA verify them.
        """
        return self._custodian.keep(
            f"device-ca-{number}.bridge.crt",
            lambda: certificates.authority(
                key,
                before.certificate.subject,
                now=self._clock.now(),
                life=max(DEVICE_LIFE, SERVER_LIFE),
                issuer_key=before.key,
            ),
        )

    def enrol(self, name: str, csr: str | None = None, *, now: datetime) -> Enrolment:
        """Issue a client certificate for a device (90 days); without a CSR make its key, too.

        Of a CSR only the public key is taken. Raises InvalidRequestError for a name or CSR that is unfit.
        """
        ca = self._newest()
        key = ec.generate_private_key(ec.SECP256R1()) if csr is None else None
        public = key.public_key() if key is not None else certificates.read_csr(csr or "")
        certificate = certificates.leaf(
            public,
            subject=certificates.common_name(name),
            names=[x509.UniformResourceIdentifier(f"urn:doorward:device:{quote(name, safe='')}")],
            client=True,
            issuer=ca.certificate,
            issuer_key=ca.key,
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
            vault.replace(files.cert, self._server_pem(hosts, now))
        if files.client_ca is not None and (
            not files.client_ca.exists() or files.client_ca.read_text() != self.ca_pem
        ):
            vault.replace(files.client_ca, self.ca_pem.encode("ascii"))
        return files

    def _server_pem(self, hosts: Sequence[str], now: datetime) -> bytes:
        ca, key = self._newest(), ec.generate_private_key(ec.SECP256R1())
        certificate = certificates.leaf(
            key.public_key(),
            subject=certificates.common_name("doorward"),
            names=[certificates.host_name(host) for host in hosts],
            client=False,
            issuer=ca.certificate,
            issuer_key=ca.key,
            now=now,
            life=SERVER_LIFE,
        )
        own = certificate.public_bytes(serialization.Encoding.PEM)
        return own + ca.bridge + certificates.private_pem(key)

    def _serves(self, file: Path, hosts: Sequence[str], now: datetime) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(file.read_bytes())
            certificate.verify_directly_issued_by(self._newest().certificate)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except Exception:  # noqa: BLE001 -- whatever is wrong with the old file, a new one mends it
            return False
        current = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - SERVER_RENEWAL
        return current and set(names) == {certificates.host_name(host) for host in hosts}


def _hosts_of(host: str) -> tuple[str, ...]:
    own = socket.gethostname() if host in _EVERY_ADDRESS else host
    return tuple(dict.fromkeys((own, *_LOCAL_HOSTS)))
