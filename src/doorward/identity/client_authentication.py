"""How we authenticate where we are somebody's client: a signed assertion (RFC 7523), or a shared secret."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import quote_plus

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from doorward.core.clock import Clock
from doorward.core.errors import InvalidConfigError
from doorward.core.secret import Secret
from doorward.settings import IntrospectionSettings

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFETIME = 60  # seconds
_KEYS: tuple[tuple[type[RSAKey | ECKey | OKPKey], str, str], ...] = (
    (ECKey, "P-256", "ES256"), (ECKey, "P-384", "ES384"), (OKPKey, "Ed25519", "EdDSA"), (RSAKey, "", "PS256"),
)  # fmt: skip


class ClientAuthentication(Protocol):
    """Say who we are, in one request to an authorization server."""

    def of(self, audience: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the form fields and the headers that authenticate us to `audience`, the issuer."""


class SharedSecret:
    """Authenticate by `client_secret_basic` (RFC 6749, 2.3.1)."""

    def __init__(self, client_id: str, secret: Secret[str]) -> None:
        """Take what the authorization server gave us."""
        self._id, self._secret = client_id, secret

    def of(self, audience: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the form fields and the headers that authenticate us."""
        del audience
        pair = f"{quote_plus(self._id)}:{quote_plus(self._secret.reveal())}"
        return {}, {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"}


class SignedAssertion:
    """Authenticate by `private_key_jwt`: each assertion has an id of its own and lives a minute."""

    def __init__(
        self,
        client_id: str,
        pem: bytes,
        *,
        clock: Clock,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(24),
    ) -> None:
        """Take the private key (PEM); raise InvalidConfigError for one that cannot sign."""
        self._id, self._clock, self._new_id = client_id, clock, new_id
        self._key, self._algorithm = _signing_key(pem)

    def public_key(self) -> Mapping[str, str | list[str]]:
        """Return the JWK to register at the authorization server."""
        public = self._key.as_dict(private=False)
        return {**public, "kid": self._key.thumbprint(), "alg": self._algorithm, "use": "sig"}

    def of(self, audience: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the form fields and the headers that authenticate us."""
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": self._id,
            "sub": self._id,
            "aud": audience,
            "iat": now,
            "exp": now + _LIFETIME,
            "jti": self._new_id(),
        }
        header = {"alg": self._algorithm, "typ": "JWT", "kid": self._key.thumbprint()}
        text = jwt.encode(header, claims, self._key, algorithms=[self._algorithm])
        return {"client_id": self._id, "client_assertion_type": ASSERTION_TYPE, "client_assertion": text}, {}


def authentication_of(
    settings: IntrospectionSettings, *, clock: Clock, resolve: Callable[[Path], Path] = Path
) -> ClientAuthentication:
    """Return how we authenticate by the settings; raise InvalidConfigError if the key cannot be used."""
    if settings.client_key is None:
        return SharedSecret(settings.client_id, Secret(settings.client_secret or ""))
    file = resolve(settings.client_key)
    try:
        if file.stat().st_mode & 0o077:
            raise InvalidConfigError(f"{file} may be read by others", hint=f"chmod 600 {file}")
        pem = file.read_bytes()
    except OSError as reason:
        raise InvalidConfigError(f"the client key {file} cannot be read: {reason.strerror}") from reason
    return SignedAssertion(settings.client_id, pem, clock=clock)


def _signing_key(pem: bytes) -> tuple[RSAKey | ECKey | OKPKey, str]:
    try:
        load_pem_private_key(pem, None)
    except (ValueError, TypeError) as reason:
        raise InvalidConfigError(
            "the client key is no private key in PEM", hint="openssl genpkey -algorithm EC -pkeyopt ..."
        ) from reason
    for kind, curve, algorithm in _KEYS:
        try:
            key = kind.import_key(pem)
        except (JoseError, ValueError, TypeError):
            continue
        if not curve or key.as_dict(private=False).get("crv") == curve:
            return key, algorithm
    raise InvalidConfigError(
        "the client key is of a kind that is not used", hint="Use P-256, Ed25519 or RSA."
    )
