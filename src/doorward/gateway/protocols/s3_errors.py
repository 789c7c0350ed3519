"""Errors in S3's own shape: refusals, what does not exist, and what the upstream answered."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from doorward.core.errors import InvalidRequestError
from doorward.core.wire import Answer, Request, UpstreamAnswer
from doorward.gateway.adapter import Refusal
from doorward.gateway.protocols.s3_route import S3Call
from doorward.gateway.protocols.s3_upstream import read_whole
from doorward.gateway.protocols.s3_xml import error_answer, local, read_xml, write_xml, xml_answer
from doorward.gateway.refusal import sentence

# Our code -> S3's. A rate limit stays 429: stock clients read the code, wait and then show the sentence.
_CODES = {
    "denied": "AccessDenied", "unauthenticated": "AccessDenied",
    "insufficient_user_authentication": "AccessDenied", "limit_exceeded": "SlowDown",
    "not_found": "NoSuchKey", "invalid_request": "InvalidRequest", "payload_too_large": "EntityTooLarge",
    "unsupported_media_type": "InvalidRequest", "conflict": "OperationAborted",
    "unavailable": "ServiceUnavailable", "audit_unavailable": "ServiceUnavailable",
    "upstream_unavailable": "ServiceUnavailable", "upstream_timeout": "ServiceUnavailable",
    "internal": "InternalError", "request_timeout": "RequestTimeout",
    "method_not_allowed": "MethodNotAllowed", "malformed_xml": "MalformedXML",
}  # fmt: skip
_MISSING = {
    "NoSuchKey": "The specified key does not exist.",
    "NoSuchBucket": "The specified bucket does not exist",
    "NoSuchUpload": "The specified multipart upload does not exist.",
}
_CODE = re.compile(r"[A-Za-z]{1,64}")
_NOT_FOUND = 404


def refuse(request: Request, refusal: Refusal) -> Answer:
    """Return a refusal as S3's error document; stock clients print its message."""
    headers = {"cache-control": "no-store"}
    if refusal.challenge:
        headers["www-authenticate"] = refusal.challenge
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    return error_answer(
        status=refusal.status,
        code=_CODES.get(refusal.code, "AccessDenied"),
        message=sentence(refusal),
        request_id=refusal.request_id,
        head=request.method == "HEAD",
        headers=headers,
    )


def missing(request: Request, code: str, request_id: str, *, resource: str = "") -> Answer:
    """Return S3's not-found; the same for a hidden name and for one that the upstream does not have."""
    return error_answer(
        status=_NOT_FOUND,
        code=code,
        message=_MISSING[code],
        request_id=request_id,
        resource=resource,
        head=request.method == "HEAD",
    )


def absent(
    request: Request, call: S3Call, keys: tuple[str, ...], request_id: str, *, bucket_exists: bool
) -> Answer:
    """Return what an upstream answers to `call` when the name in it does not exist.

    `bucket_exists`: whether its bucket does, as far as this caller may know.
    """
    code, resource = "NoSuchBucket", call.bucket
    match call.operation:
        case _ if not bucket_exists:
            pass
        case "GetObject" | "HeadObject" | "CopyObject" | "UploadPartCopy":
            code, resource = "NoSuchKey", _named(call)
        case "UploadPart" | "CompleteMultipartUpload" | "AbortMultipartUpload" | "ListParts":
            code, resource = "NoSuchUpload", call.key
        case "DeleteObject" | "DeleteObjects":
            return _nothing_deleted(keys, request_id)
    return missing(request, code, request_id, resource=resource)


def _nothing_deleted(keys: tuple[str, ...], request_id: str) -> Answer:
    """Return what deleting a missing key is answered with: S3 deletes what is not there with success."""
    own = {"x-amz-request-id": request_id}
    match keys:
        case ():
            return Answer(status=204, headers=list(own.items()), body=b"")
        case (key,):
            return xml_answer(200, write_xml("DeleteResult", [("Deleted", [("Key", key)])]), own)
    return error_answer(
        status=403,
        code="AccessDenied",
        message="Nothing was deleted, as not all of these keys may be. Delete them one by one.",
        request_id=request_id,
    )


async def upstream_error(request: Request, call: S3Call, answer: UpstreamAnswer) -> Answer:
    """Return an upstream's error in our own words where it has a code we know, else its code and message."""
    body = b"" if request.method == "HEAD" else await read_whole(answer)
    await answer.close()
    code, message = _said(body)
    if answer.status == _NOT_FOUND:
        code = code if code in _MISSING else ("NoSuchKey" if call.key else "NoSuchBucket")
        resource = call.bucket if code == "NoSuchBucket" else _named(call)
        return missing(request, code, request.id, resource=resource)
    return error_answer(
        status=answer.status,
        code=code or "InternalError",
        message=message or "The upstream refused the request.",
        request_id=request.id,
        head=request.method == "HEAD",
    )


def _named(call: S3Call) -> str:
    """Return the key that is missing: of a copy it is the source, whose absence alone is answered so."""
    return call.key if call.source is None else call.source[1]


def _said(body: bytes) -> tuple[str, str]:
    try:
        root: ET.Element = read_xml(body)
    except InvalidRequestError:
        return "", ""
    texts = {local(child): (child.text or "").strip() for child in root}
    code = texts.get("Code", "")
    return (code if _CODE.fullmatch(code) else ""), texts.get("Message", "")[:500]
