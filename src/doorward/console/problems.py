"""Errors as RFC 9457 problem details: what happened, and what to do next."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import Response

from doorward.core.errors import DoorwardError, PayloadTooLargeError, UnsupportedMediaError

if TYPE_CHECKING:
    from fastapi.exceptions import RequestValidationError

MEDIA_TYPE = "application/problem+json"
_STATUS = {
    "invalid_config": HTTPStatus.BAD_REQUEST,
    "invalid_policy": HTTPStatus.BAD_REQUEST,
    "invalid_request": HTTPStatus.BAD_REQUEST,
    PayloadTooLargeError.code: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedMediaError.code: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "denied": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "conflict": HTTPStatus.CONFLICT,
    "precondition_failed": HTTPStatus.PRECONDITION_FAILED,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "audit_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "audit_broken": HTTPStatus.INTERNAL_SERVER_ERROR,
}
_CODE = {
    HTTPStatus.UNAUTHORIZED: "unauthenticated",
    HTTPStatus.FORBIDDEN: "denied",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.CONFLICT: "conflict",
    HTTPStatus.PRECONDITION_FAILED: "precondition_failed",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable",
    HTTPStatus.INTERNAL_SERVER_ERROR: "error",
}


def status_of(error: DoorwardError) -> HTTPStatus:
    """Return the HTTP status of an error; a code nobody mapped is a fault of ours (500)."""
    status = _STATUS.get(error.code)
    if status is None and error.code.startswith("invalid_"):
        return HTTPStatus.BAD_REQUEST
    return status or HTTPStatus.INTERNAL_SERVER_ERROR


def problem(
    status: int, *, code: str | None = None, detail: str, hint: str = "", request_id: str = ""
) -> Response:
    """Return one problem document; members beside RFC 9457's are `code`, `hint` and `request_id`."""
    phrase = HTTPStatus(status)
    code = code or _CODE.get(phrase, "invalid_request")
    body: dict[str, Any] = {
        "type": f"urn:doorward:{code}",
        "title": phrase.phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "hint": hint,
        "request_id": request_id,
    }
    return Response(msgspec.json.encode(body), status, media_type=MEDIA_TYPE)


def of_error(error: DoorwardError, request_id: str) -> Response:
    """Return the problem document of one of our own errors."""
    told = problem(
        status_of(error), code=error.code, detail=error.message, hint=error.hint, request_id=request_id
    )
    if (wait := getattr(error, "retry_after", None)) is not None:
        told.headers["Retry-After"] = str(wait)
    return told


def of_validation(error: RequestValidationError, request_id: str) -> Response:
    """Return which fields of a request are wrong; their values are not repeated."""
    wrong = "; ".join(
        f"`{'.'.join(str(part) for part in fault['loc'])}`: {fault['msg']}" for fault in error.errors()
    )
    return problem(
        HTTPStatus.BAD_REQUEST,
        code="invalid_request",
        detail=f"the request is not as described: {wrong}",
        hint="GET /openapi.json describes every request.",
        request_id=request_id,
    )
