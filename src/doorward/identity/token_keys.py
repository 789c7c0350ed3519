"""Keys that stay in a PKCS #11 token, in the form in which certificates and JSON Web Tokens are signed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

_COORDINATE = 32
Sign = Callable[[bytes], bytes]


def _stays() -> NoReturn:
    raise UnsupportedAlgorithm("this key lies in a PKCS #11 token and does not leave it")


class TokenP256(ec.EllipticCurvePrivateKey):
    """A P-256 key of a token in the form certificates and tokens are signed with (ECDSA, SHA-256)."""

    def __init__(self, sign: Sign, point: bytes) -> None:
        """Take what signs a digest (raw `r || s`), and the public point as a DER octet string."""
        self._sign = sign
        raw = point[-(2 * _COORDINATE + 1) :]
        self._public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)

    @property
    def curve(self) -> ec.EllipticCurve:
        """Return the curve."""
        return ec.SECP256R1()

    @property
    def key_size(self) -> int:
        """Return its bits."""
        return 8 * _COORDINATE

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public half."""
        return self._public

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return a DER signature over SHA-256 of the data."""
        digest = hashes.Hash(hashes.SHA256())
        if not isinstance(signature_algorithm.algorithm, hashes.SHA256):
            _stays()
        digest.update(data)
        raw = self._sign(digest.finalize())
        r, s = int.from_bytes(raw[:_COORDINATE]), int.from_bytes(raw[_COORDINATE:])
        return utils.encode_dss_signature(r, s)

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """Refuse: this key signs."""
        del algorithm, peer_public_key
        _stays()

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        """Refuse: they stay in the token."""
        _stays()

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 -- the base class's name
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> bytes:
        """Refuse: they stay in the token."""
        del encoding, format, encryption_algorithm
        _stays()

    def __copy__(self) -> TokenP256:
        """Return itself: it has no state of its own."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TokenP256:
        """Return itself: it has no state of its own."""
        return self


class TokenEd25519(ed25519.Ed25519PrivateKey):
    """An Ed25519 key of a token in the form checkpoints are signed with (RFC 8032)."""

    def __init__(self, sign: Sign, point: bytes) -> None:
        """Take what signs a message; `point` ends with the 32 public bytes."""
        self._sign = sign
        self._public = ed25519.Ed25519PublicKey.from_public_bytes(point[-_COORDINATE:])

    def public_key(self) -> ed25519.Ed25519PublicKey:
        """Return the public half."""
        return self._public

    def sign(self, data: Any) -> bytes:
        """Return the signature of the data."""
        return self._sign(bytes(data))

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 -- the base class's name
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> bytes:
        """Refuse: they stay in the token."""
        del encoding, format, encryption_algorithm
        _stays()

    def private_bytes_raw(self) -> bytes:
        """Refuse: they stay in the token."""
        _stays()

    def __copy__(self) -> TokenEd25519:
        """Return itself: it has no state of its own."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TokenEd25519:
        """Return itself: it has no state of its own."""
        return self
