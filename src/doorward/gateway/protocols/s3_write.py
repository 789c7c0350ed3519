"""Writes: bodies verified against what was signed, names spelled once, XML written anew."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from doorward.core.errors import InvalidRequestError, UnavailableError
from doorward.core.ports import CredentialRegistry
from doorward.core.wire import Answer, Request, UpstreamClient
from doorward.gateway.adapter import Permit
from doorward.gateway.protocols import s3_headers
from doorward.gateway.protocols.s3_chunked import CHECKSUMS, Checksum, ChunkedBody, ChunkSigner, checksum_of
from doorward.gateway.protocols.s3_errors import upstream_error
from doorward.gateway.protocols.s3_names import S3Detail
from doorward.gateway.protocols.s3_route import S3Call, check_key
from doorward.gateway.protocols.s3_tags import VIEWED, TagVeil
from doorward.gateway.protocols.s3_upstream import Outgoing, S3Upstream, read_whole
from doorward.gateway.protocols.s3_xml import children, error_answer, local, read_xml, write_xml, xml_answer
from doorward.identity import sigv4
from doorward.identity.sigv4_signing import encode

_OK, _NO_CONTENT, _SERVER_ERROR = 200, 204, 500
_PART = frozenset(
    {"PartNumber", "ETag", "ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1",
     "ChecksumSHA256"}
)  # fmt: skip
_MOST_PARTS, _MOST_DELETED = 10_000, 1000
_METHODS = {
    "PutObject": "PUT", "CopyObject": "PUT", "UploadPart": "PUT", "UploadPartCopy": "PUT",
    "CreateMultipartUpload": "POST", "CompleteMultipartUpload": "POST", "DeleteObjects": "POST",
    "AbortMultipartUpload": "DELETE", "DeleteObject": "DELETE", "ListParts": "GET",
}  # fmt: skip


class Content(NamedTuple):
    """State a verified body: whole, or a stream with its length."""

    body: bytes | AsyncIterator[bytes]
    length: int


def read_deletion(body: bytes) -> tuple[tuple[str, ...], bytes]:
    """Read the keys of DeleteObjects, write the document anew; raise InvalidRequestError for two readings."""
    root = read_xml(body)
    if local(root) != "Delete":
        raise InvalidRequestError("the XML body is not a deletion")
    keys: list[str] = []
    quiet = False
    for child in root:
        if local(child) == "Quiet" and not len(child):
            quiet = (child.text or "").strip() == "true"
            continue
        found = children(child, frozenset({"Key"}))
        if local(child) != "Object" or "Key" not in found:
            raise InvalidRequestError("the deletion names something other than keys", hint="Name plain keys.")
        keys.append(check_key(found["Key"]))
    if not 1 <= len(keys) <= _MOST_DELETED:
        raise InvalidRequestError("a deletion names 1 to 1000 keys")
    objects = [("Object", [("Key", key)]) for key in keys]
    return tuple(keys), write_xml("Delete", [*objects, ("Quiet", "true" if quiet else "false")])


def read_completion(body: bytes) -> bytes:
    """Read the parts of CompleteMultipartUpload and write the document anew."""
    root = read_xml(body)
    parts = [("Part", list(children(child, _PART).items())) for child in root if local(child) == "Part"]
    if (
        local(root) != "CompleteMultipartUpload"
        or len(parts) != len(root)
        or not 1 <= len(parts) <= _MOST_PARTS
    ):
        raise InvalidRequestError("the XML body is not a list of parts")
    return write_xml("CompleteMultipartUpload", parts)


def check_whole_body(request: Request, body: bytes) -> None:
    """Raise InvalidRequestError unless a whole body is the one that was signed."""
    kind = _payload_kind(request)
    if kind not in {"hash", "unsigned"}:
        raise InvalidRequestError("this operation takes no chunked body", hint="Send the body in one piece.")
    payload = request.header("x-amz-content-sha256") or ""
    if kind == "hash" and not sigv4.body_matches(payload, body):
        raise mismatch()
    digest = request.header("content-md5")
    if digest is not None and digest != _md5(body):
        raise mismatch()


def mismatch() -> InvalidRequestError:
    """Return the error for a body that is not the one signed."""
    return InvalidRequestError("the body is not the one that was signed", hint="Send it again.")


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _payload_kind(request: Request) -> str:
    payload = request.header("x-amz-content-sha256")
    if payload is None:
        return "unsigned"
    return sigv4.payload_kind(payload, method=request.method, tls=request.peer.tls)


class Writer:
    """Carry out everything that writes or deletes."""

    def __init__(
        self, upstream: S3Upstream, veil: TagVeil, registry: Callable[[], CredentialRegistry] | None
    ) -> None:
        """Take the way to the upstream, and the registry that signed chunks are verified with."""
        self._upstream = upstream
        self._veil = veil
        self._registry = registry

    async def exists(self, call: S3Call, client: UpstreamClient) -> bool:
        """Return whether the upstream has the object now; raise UnavailableError if it does not say."""
        answer = await self._upstream.send(client, Outgoing(method="HEAD", bucket=call.bucket, key=call.key))
        await answer.close()
        if answer.status not in {_OK, 404}:
            raise UnavailableError("the upstream does not say whether the object exists", hint="Try again.")
        return answer.status == _OK

    async def write(self, permit: Permit, detail: S3Detail, client: UpstreamClient) -> Answer:
        """Verify the body, send the operation, and return its result."""
        request, call = permit.request, detail.call
        outgoing = Outgoing(
            method=_METHODS[call.operation], bucket=call.bucket, key=call.key, query=dict(call.query)
        )
        match call.operation:
            case "PutObject" | "UploadPart":
                content = await self._content(permit)
                outgoing.headers, (outgoing.body, outgoing.length) = s3_headers.written(request), content
            case "CopyObject" | "UploadPartCopy":
                await _no_body(request)
                outgoing.headers = s3_headers.written(request, copy=True)
                condition = await self._copy_condition(request, call, client)
                if isinstance(condition, Answer):
                    return condition
                outgoing.headers += condition
            case "CreateMultipartUpload":
                outgoing.headers = s3_headers.written(request)
                outgoing.body = b""
            case "CompleteMultipartUpload" | "DeleteObjects":
                outgoing.body = detail.body
                outgoing.headers = [("content-type", "application/xml"), ("content-md5", _md5(detail.body))]
                outgoing.headers += [
                    (k, v) for k, v in s3_headers.written(request) if k in {"if-match", "if-none-match"}
                ]
        return await self._send(permit, detail, client, outgoing)

    async def _send(
        self, permit: Permit, detail: S3Detail, client: UpstreamClient, outgoing: Outgoing
    ) -> Answer:
        request, call = permit.request, detail.call
        answer = await self._upstream.send(client, outgoing)
        if answer.status not in {_OK, _NO_CONTENT}:
            return await upstream_error(request, call, answer)
        headers = [
            (k, v)
            for k, v in s3_headers.answered(answer.headers)
            if k not in {"content-length", "content-type"}
        ]
        body = await read_whole(answer)
        if not body:
            return Answer(status=answer.status, headers=headers, body=b"")
        if call.operation == "CompleteMultipartUpload":
            return _completed(request, call, body)
        if call.operation == "DeleteObjects":
            body = _deleted(body)
        result = xml_answer(answer.status, body)
        result.headers += headers
        return result

    async def _copy_condition(
        self, request: Request, call: S3Call, client: UpstreamClient
    ) -> list[tuple[str, str]] | Answer:
        if call.source is None:
            raise InvalidRequestError("a copy names its source")
        bucket, key = call.source
        headers = [("x-amz-copy-source", f"/{encode(bucket)}/{encode(key, safe='/')}")]
        wanted = request.header("x-amz-copy-source-if-match")
        if wanted is None:
            return headers
        # The caller may hold the veiled tag that HEAD and lists show.
        answer = await self._upstream.send(client, Outgoing(method="HEAD", bucket=bucket, key=key))
        if answer.status != _OK:
            # A source that is not there is said before any condition on it is looked at.
            return await upstream_error(request, call, answer)
        await answer.close()
        etag = s3_headers.find(answer.headers, "etag")
        veiled = self._veil.shown(bucket=bucket, key=key, etag=etag, form=VIEWED)
        if not etag or wanted.strip('"') not in {etag.strip('"'), veiled.strip('"')}:
            return error_answer(
                status=412,
                code="PreconditionFailed",
                message="At least one of the pre-conditions you specified did not hold",
                request_id=request.id,
            )
        return [*headers, ("x-amz-copy-source-if-match", etag)]

    async def _content(self, permit: Permit) -> Content:
        """Return the body to send; what is signed whole is verified whole, before anything is sent."""
        request = permit.request
        kind = _payload_kind(request)
        if kind.startswith("chunks"):
            length = _number(request, "x-amz-decoded-content-length")
            body = ChunkedBody(
                request.body.chunks(),
                length=length,
                signer=self._signer(permit) if kind == "chunks-signed" else None,
                trailer=request.header("x-amz-trailer"),
            )
            return Content(body.content(), length)
        if "aws-chunked" in (request.header("content-encoding") or "").lower():
            raise InvalidRequestError("the body is chunked but was not signed as such")
        if kind == "unsigned" and request.header("content-length") is not None:
            return Content(_checked(request), _number(request, "content-length"))
        whole = b"".join([chunk async for chunk in request.body.chunks()])
        payload = request.header("x-amz-content-sha256") or ""
        if kind == "hash" and not sigv4.body_matches(payload, whole):
            raise mismatch()
        _compare(request, {name: _summed(name, whole) for name in _claimed(request)})
        return Content(whole, len(whole))

    def _signer(self, permit: Permit) -> ChunkSigner:
        if permit.caller.method != "sigv4" or self._registry is None:
            raise InvalidRequestError(
                "signed chunks need a signed request", hint="Sign the whole body instead."
            )
        claim = sigv4.parse(permit.request)
        record = self._registry().key_by_access_key_id(claim.access_key_id)
        if record is None or not record.s3_secret or record.id != permit.caller.credential:
            raise InvalidRequestError("the chunks cannot be verified", hint="Sign the request again.")
        key = sigv4.signing_key(record.s3_secret, claim.scope)
        return ChunkSigner(key, claim.date, claim.scope, claim.signature)


def _claimed(request: Request) -> list[str]:
    """Return the headers with a checksum that can be computed here; the upstream looks at the others."""
    return [name for name, _ in request.headers if name in CHECKSUMS]


def _summed(name: str, data: bytes) -> Checksum:
    checksum = checksum_of(name)
    checksum.update(data)
    return checksum


def _compare(request: Request, checksums: dict[str, Checksum]) -> None:
    for name, checksum in checksums.items():
        if request.header(name) != base64.b64encode(checksum.digest()).decode():
            raise mismatch()


async def _checked(request: Request) -> AsyncIterator[bytes]:
    """Yield a body; hold back its last piece until its checksums fit, so that a false one never is whole."""
    checksums = {name: checksum_of(name) for name in _claimed(request)}
    held = b""
    async for chunk in request.body.chunks():
        for checksum in checksums.values():
            checksum.update(chunk)
        if chunk and held:
            yield held
        held = chunk or held
    _compare(request, checksums)
    if held:
        yield held


def _number(request: Request, name: str) -> int:
    value = request.header(name) or ""
    if not (value.isascii() and value.isdigit()) or len(value) > 15:  # noqa: PLR2004 -- a petabyte has 16 digits
        raise InvalidRequestError(f"the header {name} is missing or no number")
    return int(value)


async def _no_body(request: Request) -> None:
    async for chunk in request.body.chunks():
        if chunk:
            raise InvalidRequestError("this operation takes no body")


def _deleted(body: bytes) -> bytes:
    """Write the result of a deletion anew, so that it reads alike for every key."""
    try:
        root = read_xml(body)
    except InvalidRequestError:
        raise UnavailableError(
            "the upstream's answer cannot be read", hint="Look whether the objects are there."
        ) from None
    entries: list[tuple[str, object]] = []
    for entry in root:
        texts = {local(child): child.text or "" for child in entry}
        kept = ("Key",) if local(entry) == "Deleted" else ("Key", "Code", "Message")
        entries.append((local(entry), [(name, texts[name]) for name in kept if name in texts]))
    return write_xml("DeleteResult", entries)


def _completed(request: Request, call: S3Call, body: bytes) -> Answer:
    """Return the result of a completed upload; its location is here, not at the upstream."""
    try:
        root = read_xml(body)
    except InvalidRequestError:
        raise UnavailableError(
            "the upstream's answer cannot be read", hint="Look whether the object is there."
        ) from None
    texts = {local(child): (child.text or "").strip() for child in root}
    if local(root) == "Error":
        # S3 may answer 200 and fail afterwards.
        message = texts.get("Message", "")[:500] or "The upload could not be completed."
        code = texts.get("Code", "InternalError")
        return error_answer(status=_SERVER_ERROR, code=code, message=message, request_id=request.id)
    scheme = "https" if request.peer.tls else "http"
    upstream = request.raw_path.split("/", 2)[1]
    texts["Location"] = (
        f"{scheme}://{request.host}/{upstream}/{encode(call.bucket)}/{encode(call.key, safe='/')}"
    )
    return xml_answer(_OK, write_xml("CompleteMultipartUploadResult", list(texts.items())))
