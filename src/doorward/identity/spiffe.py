"""SPIFFE: names of workloads, and the trust domains whose word on them counts (its Bundle standard)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog
from cryptography import x509
from cryptography.x509.verification import Store

from doorward.core.clock import Clock
from doorward.core.errors import InvalidConfigError
from doorward.identity.key_sets import KeySet, read_key_set
from doorward.identity.strict_jose import TokenFaultError, read_object
from doorward.settings import SpiffeSettings

SCHEME = "spiffe://"
_MAX_ID = 2048
_MAX_BUNDLE = 1024 * 1024
_LOOK_EVERY = 1.0  # seconds between looks at whether a bundle's file changed
_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+", re.ASCII)
_log = structlog.get_logger()


class SpiffeId(msgspec.Struct, frozen=True):
    """One workload's name: a trust domain and a path that is not empty."""

    trust_domain: str
    path: str

    @property
    def issuer(self) -> str:
        """Return the trust domain as identities are linked by it: `spiffe://corp.example`."""
        return SCHEME + self.trust_domain


def read_id(text: str) -> SpiffeId:
    """Read a workload's SPIFFE ID (SPIFFE-ID, 2); raise TokenFaultError for any other text."""
    if len(text) > _MAX_ID or not text.startswith(SCHEME):
        raise TokenFaultError("spiffe_id_invalid")
    domain, slash, rest = text.removeprefix(SCHEME).partition("/")
    path = slash + rest
    if not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path):
        raise TokenFaultError("spiffe_id_invalid")
    return SpiffeId(domain, path)


class Bundle(msgspec.Struct, frozen=True):
    """What may sign for a trust domain: authorities for certificates, keys for tokens."""

    authorities: tuple[x509.Certificate, ...]
    store: Store | None
    keys: KeySet


class TrustDomain:
    """One trust domain: its bundle is read again when the file changes; a broken file changes nothing."""

    def __init__(self, settings: SpiffeSettings, file: Path, clock: Clock) -> None:
        """Read the bundle; raise InvalidConfigError if there is none to start with."""
        self.name, self.audience = settings.trust_domain, settings.audience
        self._file, self._clock = file, clock
        self._looked, self._stamp = clock.monotonic(), self._state()
        try:
            self._bundle = read_bundle(file.read_bytes())
        except (OSError, TokenFaultError) as reason:
            raise InvalidConfigError(
                f"the bundle {file} of trust domain {self.name} cannot be used: {reason}",
                hint="It is a SPIFFE bundle (JSON) or the authorities' certificates in PEM.",
            ) from reason

    def bundle(self) -> Bundle:
        """Return the newest good bundle: the same object for as long as its file does not change."""
        now = self._clock.monotonic()
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            self._look()
        return self._bundle

    def current(self) -> KeySet:
        """Return the keys that may sign tokens now: the same object for as long as none changes."""
        return self.bundle().keys

    def _look(self) -> None:
        stamp = self._state()
        if stamp == self._stamp or stamp is None:
            return
        self._stamp = stamp
        try:
            self._bundle = read_bundle(self._file.read_bytes())
        except (OSError, TokenFaultError) as reason:
            _log.warning("spiffe_bundle_not_read", trust_domain=self.name, reason=str(reason))
            return
        _log.info("spiffe_bundle_read", trust_domain=self.name)

    def _state(self) -> tuple[int, int, int] | None:
        try:
            state = self._file.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_size, state.st_ino


class TrustDomains:
    """Every trust domain whose workloads may come in."""

    def __init__(
        self, settings: Sequence[SpiffeSettings], *, clock: Clock, resolve: Callable[[Path], Path] = Path
    ) -> None:
        """Read every bundle; raise InvalidConfigError for one that cannot be used, or two of one domain."""
        for one in settings:
            if not _DOMAIN.fullmatch(one.trust_domain):
                raise InvalidConfigError(
                    f"`{one.trust_domain}` is no trust domain", hint="Write it without scheme: corp.example."
                )
        domains = [TrustDomain(one, resolve(one.bundle), clock) for one in settings]
        self._domains: Mapping[str, TrustDomain] = {domain.name: domain for domain in domains}
        if len(self._domains) != len(domains):
            raise InvalidConfigError("one trust domain is configured twice")

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._domains)

    def of(self, name: str) -> TrustDomain | None:
        """Return the trust domain of exactly this name."""
        return self._domains.get(name)


def read_bundle(data: bytes) -> Bundle:
    """Read a SPIFFE bundle (a JWKS of x509-svid and jwt-svid keys), or PEM certificates of authorities.

    Raises TokenFaultError if nothing in it can be used.
    """
    if len(data) > _MAX_BUNDLE:
        raise TokenFaultError("bundle_too_large")
    if data.lstrip().startswith(b"-----BEGIN"):
        authorities, keys = _authorities_in_pem(data), KeySet()
    else:
        authorities, keys = _of_document(read_object(data))
    if not authorities and not keys.keys:
        raise TokenFaultError("bundle_holds_nothing_usable")
    return Bundle(authorities, Store(list(authorities)) if authorities else None, keys)


def _authorities_in_pem(data: bytes) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(filter(_is_authority, x509.load_pem_x509_certificates(data)))
    except ValueError as reason:
        raise TokenFaultError("bundle_invalid") from reason


def _of_document(document: Mapping[str, Any]) -> tuple[tuple[x509.Certificate, ...], KeySet]:
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise TokenFaultError("bundle_invalid")
    members = [entry for entry in entries if isinstance(entry, dict)]
    certificates = [_certificate(entry) for entry in members if entry.get("use") == "x509-svid"]
    tokens = [
        {name: value for name, value in entry.items() if name != "use"}
        for entry in members
        if entry.get("use") == "jwt-svid" and isinstance(entry.get("kid"), str)
    ]
    return tuple(one for one in certificates if one is not None), read_key_set({"keys": tokens})


def _certificate(entry: Mapping[str, Any]) -> x509.Certificate | None:
    chain = entry.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        return None
    try:
        found = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
    except (ValueError, binascii.Error):
        return None
    return found if _is_authority(found) else None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
