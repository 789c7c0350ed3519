"""Keys in a PKCS #11 token (a hardware module, or softhsm2): made there, used there, never given out.

The token is named by a URI of RFC 7512: `pkcs11:token=LABEL?module-path=FILE&pin-source=file:FILE`. The PIN
is never written into the configuration itself; `pin-source=env:NAME` reads it from the environment.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from pkcs11.exceptions import PKCS11Error, UserAlreadyLoggedIn
from pkcs11.util.ec import encode_named_curve_parameters

from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.identity.token_keys import TokenEd25519, TokenP256
from doorward.identity.vault import SECRET_BYTES, read_private

_HINT = "Write pkcs11:token=LABEL?module-path=/path/to/module.so&pin-source=file:/path/to/pin"
_ED25519_OID = "1.3.101.112"
T = TypeVar("T")


class TokenUri(msgspec.Struct, frozen=True):
    """Name a token, the library that reaches it, and where its PIN is read (RFC 7512, 2.3 and 2.4)."""

    token: str
    module: Path
    pin_source: str

    @classmethod
    def parse(cls, uri: str) -> TokenUri:
        """Read a URI; raise InvalidConfigError for one that is not whole, or that holds a PIN."""
        path, _, query = uri.removeprefix("pkcs11:").partition("?")
        parts = {
            name: unquote(value)
            for name, _, value in (part.partition("=") for part in [*path.split(";"), *query.split("&")])
        }
        if "pin-value" in parts:
            raise InvalidConfigError(
                "[keys] provider: a PIN may not stand in the configuration",
                hint="Use pin-source=file:/path or pin-source=env:NAME.",
            )
        unknown = sorted(set(parts) - {"token", "module-path", "pin-source", ""})
        if unknown or not all(parts.get(name) for name in ("token", "module-path", "pin-source")):
            said = f"does not know `{unknown[0]}`" if unknown else "needs token, module-path and pin-source"
            raise InvalidConfigError(f"[keys] provider: a PKCS #11 token {said}", hint=_HINT)
        return cls(parts["token"], Path(parts["module-path"]), parts["pin-source"])

    def pin(self) -> str:
        """Return the PIN; raise InvalidConfigError if it is not where the URI says."""
        scheme, _, place = self.pin_source.partition(":")
        match scheme:
            case "file":
                return read_private(Path(place.removeprefix("//"))).decode().strip()
            case "env" if place in os.environ:
                return os.environ[place]
            case "env":
                raise InvalidConfigError(f"[keys] provider: the environment has no {place}", hint="Set it.")
        raise InvalidConfigError(f"[keys] provider: a PIN cannot be read from `{scheme}`", hint=_HINT)


class TokenVault:
    """Keep keys in one token; a session is opened again when the token was away."""

    def __init__(self, uri: str) -> None:
        """Log in; raise InvalidConfigError if the token cannot be used."""
        self._uri = TokenUri.parse(uri)
        # A session does one operation at a time (PKCS #11, 5.2).
        self._lock = threading.RLock()
        self._session: Any = None
        with self._using():
            pass

    def p256(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Return a P-256 key that signs in the token."""
        self._made(name, "EC", self._make_p256)
        return TokenP256(self._signer(name, "EC", "ECDSA"), self._public(name, "EC"))

    def ed25519(self, name: str) -> ed25519.Ed25519PrivateKey:
        """Return an Ed25519 key that signs in the token."""
        self._made(name, "EC_EDWARDS", self._make_ed25519)
        return TokenEd25519(self._signer(name, "EC_EDWARDS", "EDDSA"), self._public(name, "EC_EDWARDS"))

    def mac(self, name: str, message: bytes) -> bytes:
        """Return HMAC-SHA-256 of a message, computed in the token."""
        self._made(name, "GENERIC_SECRET", self._make_secret)
        return self._with_key(
            name,
            "GENERIC_SECRET",
            lambda key: bytes(key.sign(message, mechanism=pkcs11.Mechanism.SHA256_HMAC)),
        )

    def _signer(self, name: str, kind: str, mechanism: str) -> Callable[[bytes], bytes]:
        chosen = pkcs11.Mechanism[mechanism]
        return lambda message: self._with_key(
            name, kind, lambda key: bytes(key.sign(message, mechanism=chosen))
        )

    def _with_key(self, name: str, kind: str, use: Callable[[Any], T]) -> T:
        with self._using() as session:
            found = self._find(
                session, name, kind, "SECRET_KEY" if kind == "GENERIC_SECRET" else "PRIVATE_KEY"
            )
            if found is None:
                raise UnavailableError(f"the token no longer holds the key `{name}`", hint="Restore it.")
            return use(found)

    def _made(self, name: str, kind: str, make: Callable[[Any, str], None]) -> None:
        with self._using() as session:
            if self._find(session, name, kind, _half(kind)) is None:
                make(session, name)

    def _public(self, name: str, kind: str) -> bytes:
        with self._using() as session:
            public = self._find(session, name, kind, "PUBLIC_KEY")
            if public is None:
                raise InvalidConfigError(f"the token holds no public key `{name}`", hint="Restore both keys.")
            return bytes(public[pkcs11.Attribute.EC_POINT])

    @staticmethod
    def _find(session: Any, name: str, kind: str, held: str) -> Any:
        wanted = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass[held],
            pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType[kind],
            pkcs11.Attribute.LABEL: name,
        }
        found = list(session.get_objects(wanted))
        if len(found) > 1:
            raise InvalidConfigError(f"the token holds {len(found)} keys `{name}`", hint="Leave one of them.")
        return found[0] if found else None

    @staticmethod
    def _make_p256(session: Any, name: str) -> None:
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        parameters.generate_keypair(store=True, label=name)

    @staticmethod
    def _make_ed25519(session: Any, name: str) -> None:
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(_ED25519_OID)}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC_EDWARDS, curve, local=True)
        mechanism = pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN
        parameters.generate_keypair(mechanism=mechanism, store=True, label=name)

    @staticmethod
    def _make_secret(session: Any, name: str) -> None:
        hidden = {
            pkcs11.Attribute.SENSITIVE: True,
            pkcs11.Attribute.EXTRACTABLE: False,
            pkcs11.Attribute.SIGN: True,
        }
        session.generate_key(
            pkcs11.KeyType.GENERIC_SECRET,
            SECRET_BYTES * 8,
            store=True,
            label=name,
            template=hidden,
            mechanism=pkcs11.Mechanism.GENERIC_SECRET_KEY_GEN,
        )

    @contextmanager
    def _using(self) -> Iterator[Any]:
        with self._lock:
            try:
                if self._session is None:
                    self._session = self._opened()
                yield self._session
            except PKCS11Error as reason:
                # The next use logs in again: a module that was reset heals by itself.
                self._session = None
                said = str(reason) or type(reason).__name__
                raise UnavailableError(
                    f"the PKCS #11 token `{self._uri.token}` cannot be used: {said}",
                    hint="Check the module, the token's label and its PIN.",
                ) from reason

    def _opened(self) -> Any:
        if not self._uri.module.is_absolute() or not self._uri.module.exists():
            raise InvalidConfigError(
                f"[keys] provider: there is no PKCS #11 module {self._uri.module}", hint=_HINT
            )
        token = pkcs11.lib(str(self._uri.module)).get_token(token_label=self._uri.token)
        pin = self._uri.pin()
        try:
            return token.open(rw=True, user_pin=pin)
        except UserAlreadyLoggedIn:
            # A process logs in once to a token, however many sessions it has (PKCS #11, 5.6).
            return token.open(rw=True)


def _half(kind: str) -> str:
    return "SECRET_KEY" if kind == "GENERIC_SECRET" else "PRIVATE_KEY"
