"""Find the one credential of a request; two that could be read differently are refused, never ranked."""

from __future__ import annotations

import hmac
import re
from enum import Enum

import msgspec

from doorward.core.errors import InvalidRequestError
from doorward.core.wire import Request
from doorward.identity import api_keys, refusals

_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
_SIGNATURE_SCHEME = "aws4-hmac-sha256"
_IN_QUERY = frozenset({"access_token", "api_key", "apikey", "api-key", "x-api-key", "authorization"})
_OLD_SIGNED_QUERY = "awsaccesskeyid"
_SIGNED_QUERY = ("x-amz-algorithm", "x-amz-credential", "x-amz-signature")
_BEARER = "Bearer "
_HEADERS = frozenset({"authorization", "x-api-key", "dpop"})


class Kind(Enum):
    """Say how a credential is verified."""

    KEY = "key"
    TOKEN = "token"  # noqa: S105 -- a word, no secret
    BOUND_TOKEN = "bound token"  # noqa: S105 -- a word, no secret
    SIGNATURE = "signature"


class Credential(msgspec.Struct, frozen=True):
    """One credential, not yet believed; `text` is empty for a signature, which spans the request.

    `proof` is the DPoP proof that comes with a bound token.
    """

    kind: Kind
    text: str = ""
    proof: str = ""

    def __repr__(self) -> str:
        """Return the kind alone: the text is a secret."""
        return f"Credential({self.kind.value})"


def plain_bearer(request: Request) -> str | None:
    """Return what a request shows as its only credential, `Bearer` before it and unread; None: ask `find`.

    For looking it up among tokens that were read and verified before, and for nothing else.
    """
    if request.query:
        return None
    text = None
    for name, value in request.headers:
        if name in _HEADERS:
            if text is not None or name != "authorization" or not value.startswith(_BEARER):
                return None
            text = value[len(_BEARER) :]
    return text


def find(request: Request) -> Credential | None:
    """Return the request's only credential, or None if it has none.

    Raises InvalidRequestError for two, or for one in the URL; UnauthenticatedError for a kind that
    is not accepted.
    """
    # 1. A secret in a URL ends up in logs and histories: it is refused even if it would verify.
    signed_url = _signed_url(request) if request.query else False
    # 2. Each header at most once, and no list inside it.
    authorization, bare_key, proof = _headers(request)
    # 3. One credential in one place; the same key in two places is the one exception.
    if signed_url:
        if authorization is not None or bare_key is not None or proof is not None:
            raise _two_credentials()
        return Credential(Kind.SIGNATURE)
    found = None if authorization is None else _of_authorization(authorization, proof)
    # 4. A proof belongs to a token that is sent as bound, and to nothing else.
    if proof is not None and (found is None or found.kind is not Kind.BOUND_TOKEN):
        raise _loose_proof()
    if bare_key is None:
        return found
    if found is not None and not _same(found.text, bare_key):
        raise _two_credentials()
    return Credential(Kind.KEY, bare_key)


def _headers(request: Request) -> tuple[str | None, str | None, str | None]:
    """Return authorization, x-api-key and dpop; one pass, because every request comes through here."""
    found: dict[str, str] = {}
    for name, value in request.headers:
        if name in _HEADERS:
            if name in found:
                raise InvalidRequestError(f"header `{name}` is given more than once", hint="Send it once.")
            found[name] = value
    if not found:
        return None, None, None
    authorization = found.get("authorization")
    for value in found.values():
        if "," in value and not (value is authorization and _is_signature(value)):
            raise _two_credentials()
    return authorization, found.get("x-api-key"), found.get("dpop")


def _is_signature(value: str) -> bool:
    return value.partition(" ")[0].lower() == _SIGNATURE_SCHEME


def _of_authorization(value: str, proof: str | None) -> Credential:
    scheme, separator, text = value.partition(" ")
    match scheme.lower():
        case "bearer" if separator and _TOKEN68.fullmatch(text):
            kind = Kind.KEY if text.startswith(api_keys.PREFIX) else Kind.TOKEN
            return Credential(kind, text)
        case "bearer":
            raise refusals.token_refused("bearer_malformed")
        case "dpop":
            return _bound_token(text, proof)
        case "aws4-hmac-sha256":
            return Credential(Kind.SIGNATURE)
        case "aws":
            raise refusals.old_signature()
    raise refusals.unknown_scheme("scheme_not_supported")


def _bound_token(text: str, proof: str | None) -> Credential:
    if proof is None:
        raise refusals.proof_refused("proof_missing")
    if not _TOKEN68.fullmatch(text):
        raise refusals.token_refused("dpop_malformed", bound=True)
    return Credential(Kind.BOUND_TOKEN, text, proof)


def _signed_url(request: Request) -> bool:
    """Return whether the URL is a signed one; raise for any other secret in it."""
    signed = False
    for name, value in request.query:
        low = name.lower()
        if low in _IN_QUERY or api_keys.digest_of(value) is not None:
            raise InvalidRequestError(
                "the URL carries a credential, where logs and histories keep it",
                hint="Send it in the Authorization header, and replace it: it may have leaked.",
            )
        if low == _OLD_SIGNED_QUERY:
            raise refusals.old_signature()
        signed = signed or low.startswith(_SIGNED_QUERY)
    return signed


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(
        one.encode("utf-8", "surrogateescape"), other.encode("utf-8", "surrogateescape")
    )


def _two_credentials() -> InvalidRequestError:
    return InvalidRequestError(
        "the request carries more than one credential",
        hint="Send exactly one: an Authorization header, an x-api-key header or a signed URL.",
    )


def _loose_proof() -> InvalidRequestError:
    return InvalidRequestError(
        "the request carries a DPoP proof without a token that is sent as bound",
        hint="Send the token as `Authorization: DPoP ...`, or leave the `DPoP` header out.",
    )
