"""Errors as OAuth says them: `error` and `error_description` (RFC 6749, 5.2); nothing secret in either."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

import msgspec
from fastapi import Response

from doorward.core.errors import DoorwardError, UnauthenticatedError, UnavailableError

JSON = "application/json"
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class OAuthError(Exception):
    """Refuse a request at one of the OAuth endpoints; `reason` is for the record only."""

    def __init__(
        self,
        error: str,
        description: str = "",
        *,
        status: int = HTTPStatus.BAD_REQUEST,
        reason: str = "",
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        """Keep the code of the RFC, a sentence for the developer, and the reason for the record."""
        super().__init__(error)
        self.error, self.description, self.status = error, description, int(status)
        self.reason, self.headers = reason, dict(headers)

    def response(self) -> Response:
        """Return the answer."""
        said = {"error": self.error}
        if self.description:
            said["error_description"] = self.description
        return answer(said, self.status, headers=self.headers)


def answer(
    document: object, status: int = HTTPStatus.OK, *, headers: Mapping[str, str] = _NO_HEADERS
) -> Response:
    """Return a JSON answer that nobody keeps (RFC 6749, 5.1)."""
    kept = {"Cache-Control": "no-store", "Pragma": "no-cache", **headers}
    return Response(msgspec.json.encode(document), status, media_type=JSON, headers=kept)


def invalid_client(reason: str, *, by_header: bool = False) -> OAuthError:
    """Refuse a client that did not authenticate: unknown, wrong and ended look alike (RFC 6749, 5.2)."""
    headers = {"WWW-Authenticate": 'Basic realm="doorward"'} if by_header else _NO_HEADERS
    said = "the client did not authenticate"
    return OAuthError("invalid_client", said, status=HTTPStatus.UNAUTHORIZED, reason=reason, headers=headers)


def of_error(error: DoorwardError) -> OAuthError:
    """Return one of our own errors in OAuth's words."""
    if isinstance(error, UnavailableError):
        unavailable = HTTPStatus.SERVICE_UNAVAILABLE
        return OAuthError("temporarily_unavailable", error.message, status=unavailable)
    if isinstance(error, UnauthenticatedError):
        # A DPoP proof that is refused, or wants a nonce, is a 400 here (RFC 9449, 5 and 8).
        code = "use_dpop_nonce" if error.reason == "proof_nonce_wanted" else "invalid_dpop_proof"
        return OAuthError(code, error.message, reason=error.reason, headers=dict(error.headers))
    return OAuthError("invalid_request", error.message, reason=error.code)
