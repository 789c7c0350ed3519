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


class Kind(Enum):
    """Say how a credential is verified."""

    KEY = "key"
    TOKEN = "token"  # noqa: S105 -- a word, no secret
    SIGNATURE = "signature"


class Credential(msgspec.Struct, frozen=True):
    """One credential, not yet believed; `text` is empty for a signature, which spans the request."""

    kind: Kind
    text: str = ""

    def __repr__(self) -> str:
        """Return the kind alone: the text is a secret."""
        return f"Credential({self.kind.value})"


def find(request: Request) -> Credential | None:
    """Return the request's only credential, or None if it has none.

    Raises InvalidRequestError for two, or for one in the URL; UnauthenticatedError for a kind that
    is not accepted.
    """
    # 1. A secret in a URL ends up in logs and histories: it is refused even if it would verify.
    _refuse_secrets_in_query(request)
    # 2. Each header at most once, and no list inside it.
    authorization = _only(request, "authorization")
    bare_key = _only(request, "x-api-key")
    signed_url = any(name.lower().startswith(_SIGNED_QUERY) for name, _ in request.query)
    if any(name.lower() == _OLD_SIGNED_QUERY for name, _ in request.query):
        raise refusals.old_signature()
    # 3. One credential in one place; the same key in two places is the one exception.
    if signed_url and (authorization is not None or bare_key is not None):
        raise _two_credentials()
    if signed_url:
        return Credential(Kind.SIGNATURE)
    found = None if authorization is None else _of_authorization(authorization)
    if bare_key is None:
        return found
    if found is not None and not _same(found.text, bare_key):
        raise _two_credentials()
    return Credential(Kind.KEY, bare_key)


def _only(request: Request, name: str) -> str | None:
    value = request.header(name)
    if value is None:
        return None
    scheme = value.partition(" ")[0].lower()
    if "," in value and scheme != _SIGNATURE_SCHEME:
        raise _two_credentials()
    return value


def _of_authorization(value: str) -> Credential:
    scheme, separator, text = value.partition(" ")
    match scheme.lower():
        case "bearer" if separator and _TOKEN68.fullmatch(text):
            kind = Kind.KEY if text.startswith(api_keys.PREFIX) else Kind.TOKEN
            return Credential(kind, text)
        case "bearer":
            raise refusals.token_refused("bearer_malformed")
        case "aws4-hmac-sha256":
            return Credential(Kind.SIGNATURE)
        case "aws":
            raise refusals.old_signature()
        case "dpop":
            raise refusals.unknown_scheme("dpop_not_supported")
    raise refusals.unknown_scheme("scheme_not_supported")


def _refuse_secrets_in_query(request: Request) -> None:
    for name, value in request.query:
        if name.lower() in _IN_QUERY or api_keys.digest_of(value) is not None:
            raise InvalidRequestError(
                "the URL carries a credential, where logs and histories keep it",
                hint="Send it in the Authorization header, and replace it: it may have leaked.",
            )


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(
        one.encode("utf-8", "surrogateescape"), other.encode("utf-8", "surrogateescape")
    )


def _two_credentials() -> InvalidRequestError:
    return InvalidRequestError(
        "the request carries more than one credential",
        hint="Send exactly one: an Authorization header, an x-api-key header or a signed URL.",
    )
