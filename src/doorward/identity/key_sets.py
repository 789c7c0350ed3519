"""JSON Web Key Sets: which of an issuer's keys may check which signature (RFC 7517, RFC 8725)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from doorward.identity.strict_jose import SignedParts, TokenFaultError

# Signature algorithms and the key (kty, crv) each one takes. No HMAC, no `none`: an issuer's public key
# must never double as a shared secret.
ALGORITHMS: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None), "RS384": ("RSA", None), "RS512": ("RSA", None),
    "PS256": ("RSA", None), "PS384": ("RSA", None), "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"), "Ed25519": ("OKP", "Ed25519"),
}  # fmt: skip
# What a proof of possession may be signed with: the same list, in the order it is advertised.
PROOF_ALGORITHMS = ("ES256", "EdDSA", "Ed25519", "ES384", "ES512", "PS256", "RS256")
_KEY_TYPES: Mapping[str, type[RSAKey | ECKey | OKPKey]] = {
    "RSA": RSAKey, "EC": ECKey, "OKP": OKPKey,
}  # fmt: skip
_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 8192
_MAX_KEYS = 64


class VerificationKey(msgspec.Struct, frozen=True):
    """One public key and what its issuer says it is for; `thumbprint` names it (RFC 7638)."""

    key: RSAKey | ECKey | OKPKey
    kid: str | None
    kty: str
    crv: str | None
    alg: str | None
    thumbprint: str

    def fits(self, alg: str) -> bool:
        """Return whether this key may check a signature of `alg`."""
        kty, crv = ALGORITHMS[alg]
        return self.kty == kty and (crv is None or self.crv == crv) and self.alg in {None, alg}


class KeySet(msgspec.Struct, frozen=True):
    """The usable keys of one issuer."""

    keys: tuple[VerificationKey, ...] = ()
    thumbprints: frozenset[str] = frozenset()

    def same_as(self, other: KeySet) -> bool:
        """Return whether both hold the same keys for the same uses."""
        return [_identity(key) for key in self.keys] == [_identity(key) for key in other.keys]

    def choose(self, kid: str | None, alg: str) -> VerificationKey | None:
        """Return the one key a token names; None if there is none or it is not clear which."""
        fitting = [key for key in self.keys if key.fits(alg) and (kid is None or key.kid == kid)]
        return fitting[0] if len(fitting) == 1 else None

    def names(self, kid: str) -> bool:
        """Return whether any key has this id, fitting or not."""
        return any(key.kid == kid for key in self.keys)


def read_key_set(document: Mapping[str, Any]) -> KeySet:
    """Keep the keys of a JWKS that may check signatures; the others are passed over.

    Raises TokenFaultError if the document is not a key set.
    """
    entries = document.get("keys")
    if not isinstance(entries, (list, tuple)) or len(entries) > _MAX_KEYS:
        raise TokenFaultError("key_set_invalid")
    keys = tuple(key for entry in entries if (key := read_key(entry)) is not None)
    return KeySet(keys, frozenset(key.thumbprint for key in keys))


def _identity(key: VerificationKey) -> tuple[str | None, ...]:
    return key.kid, key.alg, key.thumbprint


def read_key(entry: Any) -> VerificationKey | None:
    """Return a public key that may check signatures; None for anything else."""
    if not isinstance(entry, Mapping) or not _meant_to_verify(entry):
        return None
    kty, kid, alg = entry.get("kty"), entry.get("kid"), entry.get("alg")
    if not isinstance(kty, str) or not all(isinstance(text, (str, type(None))) for text in (kid, alg)):
        return None
    # A symmetric key, or a private one that was published, is never trusted.
    if kty not in _KEY_TYPES or "d" in entry or (alg is not None and alg not in ALGORITHMS):
        return None
    try:
        key = _KEY_TYPES[kty].import_key({"kty": kty, **{m: entry[m] for m in _PUBLIC_MEMBERS[kty]}})
        strong = not isinstance(key, RSAKey) or _MIN_RSA_BITS <= key.public_key.key_size <= _MAX_RSA_BITS
        thumbprint = key.thumbprint()
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    crv = entry.get("crv")
    if not strong:
        return None
    return VerificationKey(key, kid, kty, crv if kty != "RSA" else None, alg, thumbprint)


def _meant_to_verify(entry: Mapping[str, Any]) -> bool:
    use, operations = entry.get("use"), entry.get("key_ops")
    if operations is not None and not (isinstance(operations, (list, tuple)) and "verify" in operations):
        return False
    return use is None or use == "sig"


def signature_holds(parts: SignedParts, key: VerificationKey, alg: str) -> bool:
    """Return whether the signature was made by this key with this algorithm, and no other."""
    if not key.fits(alg):
        return False
    try:
        # The algorithm is ours from the allow-list, not the header's; EdDSA's name is old, not weak.
        return bool(JWSRegistry.algorithms[alg].verify(parts.signing_input, parts.signature, key.key))
    except (JoseError, ValueError, TypeError):
        return False
