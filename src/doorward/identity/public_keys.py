"""Read the public key a client is registered with: a JWK or PEM, and never a private one."""

from __future__ import annotations

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from doorward.core.errors import InvalidRequestError
from doorward.identity.key_sets import PROOF_ALGORITHMS, VerificationKey, read_key
from doorward.identity.strict_jose import TokenFaultError, read_object

_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_KINDS: tuple[type[RSAKey | ECKey | OKPKey], ...] = (ECKey, OKPKey, RSAKey)


def public_key_of(text: str) -> VerificationKey:
    """Return the key; raise InvalidRequestError with what is wrong with it."""
    entry = _document(text)
    if any(member in entry for member in _PRIVATE):
        raise InvalidRequestError(
            "this is a private key", hint="Keep it to yourself and send its public half only."
        )
    key = read_key(entry)
    if key is None or not any(key.fits(alg) for alg in PROOF_ALGORITHMS):
        raise InvalidRequestError(
            "this is no public key for signatures", hint="Use P-256, Ed25519 or RSA (2048)."
        )
    return key


def _document(text: str) -> dict[str, object]:
    if "PRIVATE KEY" in text:
        return {"d": ""}
    if text.lstrip().startswith("{"):
        try:
            return read_object(text.encode())
        except TokenFaultError as fault:
            raise InvalidRequestError("the key is not a JWK") from fault
    for kind in _KINDS:
        try:
            return dict(kind.import_key(text).as_dict(private=False))
        except (JoseError, ValueError, TypeError):
            continue
    raise InvalidRequestError("the key is neither a JWK nor PEM", hint="openssl pkey -in KEY.pem -pubout")
