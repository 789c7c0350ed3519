"""Speak S3 (Simple Storage Service), path style: an allow-list of operations, every key named and decided."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import msgspec

from doorward.core.clock import Clock, SystemClock
from doorward.core.errors import InvalidRequestError
from doorward.core.model import Action
from doorward.core.obligation import Limit, Mask, Obligation
from doorward.core.ports import CredentialRegistry
from doorward.core.wire import Answer, Request, UpstreamClient
from doorward.gateway.adapter import Ask, BodyNeed, Catalogue, Naming, Permit, Refusal
from doorward.gateway.masking.known import KnownObjects
from doorward.gateway.protocols import s3_errors
from doorward.gateway.protocols.s3_headers import check_headers
from doorward.gateway.protocols.s3_list import Lister
from doorward.gateway.protocols.s3_names import Names, S3Detail, asks_of
from doorward.gateway.protocols.s3_read import ObjectReader
from doorward.gateway.protocols.s3_route import LISTING, WRITING, S3Call, read_call
from doorward.gateway.protocols.s3_tags import TagVeil
from doorward.gateway.protocols.s3_upstream import Outgoing, S3Upstream, read_whole
from doorward.gateway.protocols.s3_write import Writer, check_whole_body, read_completion, read_deletion
from doorward.gateway.protocols.s3_xml import read_xml, write_xml, xml_answer
from doorward.gateway.refusal import event
from doorward.identity.sigv4_signing import EMPTY_SHA256, UNSIGNED
from doorward.settings import UpstreamSettings

_OK = 200
_LOOKING = LISTING | {"HeadObject", "HeadBucket", "GetBucketLocation"}
_STREAMED = frozenset({"PutObject", "UploadPart", "CopyObject", "UploadPartCopy"})


class S3Adapter:
    """Name, filter, mask and re-sign requests to one S3 upstream.

    Objects are `Dataset::"<upstream>/<bucket>/<key>"`, or `Model` where the longest declared name says so.
    """

    kind = "s3"

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        registry: Callable[[], CredentialRegistry] | None = None,
        etag_key: bytes | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Take the upstream's settings.

        `registry` verifies signed chunks (without it they are refused), `etag_key` makes derived ETags
        (without it they change with every start).
        """
        self.settings = settings
        veil = TagVeil(etag_key or secrets.token_bytes(32))
        self._upstream = S3Upstream(settings, clock or SystemClock())
        self._reader = ObjectReader(self._upstream, veil, KnownObjects())
        self._lister = Lister(self._upstream, veil)
        self._writer = Writer(self._upstream, veil, registry)

    def keeps(self, naming: Naming) -> frozenset[type[Obligation]]:
        """Return the obligations kept: limits always, masks where bytes are masked or none are shown.

        A signed URL is handed on, and a copy is another object: neither is made of an object masked for you.
        """
        detail = _detail(naming)
        call, kinds = detail.call, {ask.resource.kind for ask in naming.asks}
        if call.operation in _LOOKING:
            return frozenset({Limit, Mask})
        if call.operation == "GetObject" and kinds == {"Dataset"} and not call.presigned:
            return frozenset({Limit, Mask})
        return frozenset({Limit})

    def body_need(self, request: Request) -> BodyNeed:
        """Return that documents are read whole and objects stream."""
        match request.method:
            case "POST":
                return BodyNeed.WHOLE
            case "PUT":
                return BodyNeed.STREAM
        return BodyNeed.NONE

    def name(self, request: Request, body: bytes, catalogue: Catalogue) -> Naming:
        """Name the operation's assets; raise UnknownRouteError off the allow-list."""
        call = read_call(request)
        check_headers(request)
        _check_prefix(call)
        names = Names(self.settings, catalogue)
        keys: tuple[str, ...] = ()
        if call.operation not in _STREAMED:
            _check_body(request, call, body)
        if call.operation == "DeleteObjects":
            keys, body = read_deletion(body)
        elif call.operation == "CompleteMultipartUpload":
            body = read_completion(body)
        asks = asks_of(call, names, keys)
        target = asks[-1].resource if asks else None
        return Naming(
            asks=asks,
            route=call.operation,
            model=target.id if target is not None and target.kind == "Model" else "",
            lists=call.operation in LISTING,
            detail=S3Detail(call=call, names=names, target=target, keys=keys, body=body),
        )

    async def refine(self, request: Request, naming: Naming, upstream: UpstreamClient) -> Naming:  # noqa: ARG002 -- the port's
        """Return `modify` in place of `create` for an object that exists already."""
        detail = _detail(naming)
        if detail.call.operation not in WRITING or not await self._writer.exists(detail.call, upstream):
            return naming
        asks = tuple(
            Ask(Action.MODIFY, ask.resource) if ask.action is Action.CREATE else ask for ask in naming.asks
        )
        return msgspec.structs.replace(naming, asks=asks)

    async def forward(self, permit: Permit, upstream: UpstreamClient) -> Answer:
        """Carry out the operation with the upstream's own keys."""
        answer = await self._carry(permit, _detail(permit.naming), upstream)
        if all(name != "x-amz-request-id" for name, _ in answer.headers):
            answer.headers.append(("x-amz-request-id", permit.request.id))
        return answer

    async def _carry(self, permit: Permit, detail: S3Detail, upstream: UpstreamClient) -> Answer:
        match detail.call.operation:
            case "ListBuckets":
                return await self._lister.buckets(permit, detail, upstream)
            case "ListObjects" | "ListObjectsV2":
                return await self._lister.objects(permit, detail, upstream)
            case "GetObject":
                return await self._reader.get(permit, detail, upstream)
            case "HeadObject":
                return await self._reader.head(permit, detail, upstream)
            case "HeadBucket" | "GetBucketLocation":
                return await self._bucket(permit, detail, upstream)
        return await self._writer.write(permit, detail, upstream)

    async def _bucket(self, permit: Permit, detail: S3Detail, upstream: UpstreamClient) -> Answer:
        call = detail.call
        outgoing = Outgoing(method=permit.request.method, bucket=call.bucket, query=dict(call.query))
        answer = await self._upstream.send(upstream, outgoing)
        if answer.status != _OK:
            return await s3_errors.upstream_error(permit.request, call, answer)
        if call.operation == "HeadBucket":
            await answer.close()
            return Answer(status=_OK, headers=[("content-type", "application/xml")], body=b"")
        location = read_xml(await read_whole(answer)).text or ""
        return xml_answer(_OK, write_xml("LocationConstraint", location))

    def refuse(self, request: Request, refusal: Refusal) -> Answer:
        """Return a refusal as S3's error document."""
        return s3_errors.refuse(request, refusal)

    def broken_off(self, request: Request, refusal: Refusal) -> bytes:  # noqa: ARG002 -- the port's signature
        """Return the generic event: this protocol streams none of its own."""
        return event(refusal)

    def not_found(self, request: Request, naming: Naming, request_id: str) -> Answer:
        """Return what the upstream answers for a name that does not exist."""
        detail, within = _detail(naming), naming.within
        call = detail.call
        bucket = f"{self.settings.name}/{call.bucket if call.source is None else call.source[0]}/"
        # Without anything visible above it, the caller cannot tell in which bucket she looks in vain.
        in_bucket = within is not None and f"{within.id}/".startswith(bucket)
        if call.operation in LISTING and in_bucket:
            return self._lister.empty(detail, request_id)
        return s3_errors.absent(
            request, call, detail.keys, request_id, bucket_exists=within is None or in_bucket
        )


def _detail(naming: Naming) -> S3Detail:
    if not isinstance(naming.detail, S3Detail):
        raise TypeError("a naming of another adapter")
    return naming.detail


def _check_prefix(call: S3Call) -> None:
    """Raise InvalidRequestError for a prefix that a store could walk out of."""
    whole = call.query.get("prefix", "").split("/")[:-1]
    if any(segment.strip() in {"", ".", ".."} for segment in whole):
        raise InvalidRequestError("the prefix holds an empty or dotted segment", hint="Use a plain prefix.")


def _check_body(request: Request, call: S3Call, body: bytes) -> None:
    """Raise InvalidRequestError for a body where none belongs, or one that is not the signed one."""
    if request.method == "POST":
        check_whole_body(request, body)
        if call.operation != "CreateMultipartUpload" or not body:
            return
    elif request.header("x-amz-content-sha256") not in {None, EMPTY_SHA256, UNSIGNED}:
        raise InvalidRequestError("this operation takes no body")
    elif request.header("transfer-encoding") is None and (request.header("content-length") or "0") == "0":
        return
    raise InvalidRequestError("this operation takes no body")
