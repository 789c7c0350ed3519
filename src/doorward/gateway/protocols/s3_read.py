"""GET and HEAD of objects: passed through, or read through a mask with everything about it derived."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from doorward.core.errors import UnavailableError
from doorward.core.obligation import AnyObligation, Mask
from doorward.core.wire import Answer, UpstreamAnswer, UpstreamClient
from doorward.gateway.adapter import Ask, Permit
from doorward.gateway.masking.known import KnownObjects
from doorward.gateway.masking.masker import plain
from doorward.gateway.masking.plan import Labels
from doorward.gateway.masking.reading import MaskedRead, changed, read_masked
from doorward.gateway.protocols import s3_headers, s3_tags
from doorward.gateway.protocols.s3_errors import upstream_error
from doorward.gateway.protocols.s3_names import S3Detail, reading
from doorward.gateway.protocols.s3_tags import PLAIN, VIEWED, State, TagVeil, UnsatisfiableError, Window
from doorward.gateway.protocols.s3_upstream import Outgoing, S3Upstream
from doorward.gateway.protocols.s3_xml import error_answer

_CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range")
_OK, _PARTIAL, _NOT_MODIFIED = 200, 206, 304


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """State one version of an object as the upstream describes it."""

    etag: str
    total: int
    modified: str
    labels: Labels
    headers: list[tuple[str, str]]


def mask_fields(obligations: tuple[AnyObligation, ...]) -> frozenset[str]:
    """Return the plain names of all fields to blank."""
    return frozenset(plain(field) for o in obligations if isinstance(o, Mask) for field in o.fields) - {""}


class ObjectReader:
    """Carry out GetObject and HeadObject."""

    def __init__(self, upstream: S3Upstream, veil: TagVeil, known: KnownObjects) -> None:
        """Take the way to the upstream, the secret of ETags, and what is remembered of masked objects."""
        self._upstream = upstream
        self._veil = veil
        self._known = known

    async def head(self, permit: Permit, detail: S3Detail, client: UpstreamClient) -> Answer:
        """Answer a HEAD; of a dataset only what the caller's own GET would show."""
        answer = await self._ask(detail, client, "HEAD", permit)
        if answer.status != _OK:
            return await upstream_error(permit.request, detail.call, answer)
        await answer.close()
        version = _version(detail, answer)
        form, fields = self._form_of_head(permit, detail)
        state = self._state(detail, version, form)
        status = s3_tags.precondition(permit.request, state)
        headers = self._headers(version, form)
        if status is not None:
            return _ended(permit, status, state, head=True)
        headers += [("content-length", str(version.total)), ("etag", state.tag), ("accept-ranges", "bytes")]
        if fields:
            headers = [(k, v) for k, v in headers if not k.startswith("x-amz-meta-")]
        return Answer(status=_OK, headers=headers, body=b"")

    async def get(self, permit: Permit, detail: S3Detail, client: UpstreamClient) -> Answer:
        """Answer a GET: as it is, or masked if the permit says so."""
        fields = mask_fields(permit.obligations)
        masked = any(isinstance(o, Mask) for o in permit.obligations)
        conditional = any(permit.request.header(name) is not None for name in _CONDITIONS)
        if not masked and not conditional:
            return await self._plain(permit, detail, client, None)
        answer = await self._ask(detail, client, "HEAD", permit)
        await answer.close()
        if answer.status != _OK:
            # The GET's own error has a body; were it to succeed now, the object has just changed.
            answer = await self._ask(detail, client, "GET", permit)
            if answer.status == _OK:
                await answer.close()
                raise changed()
            return await upstream_error(permit.request, detail.call, answer)
        version = _version(detail, answer)
        form = s3_tags.mask_form(fields) if masked else PLAIN
        state = self._state(detail, version, form)
        status = s3_tags.precondition(permit.request, state)
        if status is not None:
            return _ended(permit, status, state)
        try:
            window = s3_tags.window(permit.request, total=version.total, state=state)
        except UnsatisfiableError:
            return _unsatisfiable(permit, version.total)
        if not masked:
            return await self._plain(permit, detail, client, (version, window))
        return await self._masked(permit, detail, client, (version, window, fields, state.tag))

    async def _plain(
        self,
        permit: Permit,
        detail: S3Detail,
        client: UpstreamClient,
        checked: tuple[Version, Window] | None,
    ) -> Answer:
        if checked is None:
            asked = permit.request.header("range")
        else:
            window = checked[1]
            asked = None if window.whole else f"bytes={window.start}-{window.stop - 1}"
        answer = await self._ask(detail, client, "GET", permit, span=asked)
        if answer.status not in {_OK, _PARTIAL}:
            return await upstream_error(permit.request, detail.call, answer)
        if checked is not None and s3_headers.find(answer.headers, "etag") != checked[0].etag:
            await answer.close()
            raise changed()
        partial = bool(s3_headers.find(answer.headers, "content-range"))
        headers = s3_headers.answered(answer.headers)
        return Answer(status=_PARTIAL if partial else answer.status, headers=headers, body=_through(answer))

    async def _masked(
        self,
        permit: Permit,
        detail: S3Detail,
        client: UpstreamClient,
        found: tuple[Version, Window, frozenset[str], str],
    ) -> Answer:
        version, window, fields, tag = found
        if not version.etag:
            raise UnavailableError(
                "the upstream gives this object no ETag, so it cannot be masked in one piece",
                hint="Ask your operator to turn ETags on.",
            )

        def count(redactions: int) -> None:
            permit.outcome["redactions"] = permit.outcome.get("redactions", 0) + redactions

        read = MaskedRead(
            start=window.start,
            stop=window.stop,
            total=window.total,
            fields=fields,
            labels=version.labels,
            fetch=lambda start, stop: self._fetch(permit, detail, client, version, (start, stop)),
            count=count,
        )
        call = detail.call
        form = s3_tags.mask_form(fields)
        known = self._known.of((call.bucket, version.labels, version.etag, form), version.total)
        body = await read_masked(read, known)
        headers = s3_headers.answered_masked(version.headers)
        headers += [
            ("content-length", str(window.stop - window.start)),
            ("etag", tag),
            ("accept-ranges", "bytes"),
        ]
        partial = not window.whole
        if partial:
            headers.append(("content-range", f"bytes {window.start}-{window.stop - 1}/{window.total}"))
        return Answer(status=_PARTIAL if partial else _OK, headers=headers, body=body)

    async def _fetch(
        self,
        permit: Permit,
        detail: S3Detail,
        client: UpstreamClient,
        version: Version,
        span: tuple[int, int],
    ) -> AsyncGenerator[bytes, None]:
        """Yield original bytes of exactly this version; raise UnavailableError if it is another now."""
        start, stop = span
        whole = start == 0 and stop == version.total
        header = None if whole else f"bytes={start}-{stop - 1}"
        answer = await self._ask(detail, client, "GET", permit, span=header, etag=version.etag)
        try:
            expected = f"bytes {start}-{stop - 1}/{version.total}"
            given = s3_headers.find(answer.headers, "content-range")
            if s3_headers.find(answer.headers, "etag") != version.etag:
                raise changed()
            # Some stores send a part with status 200; what counts is which bytes they say it is.
            if answer.status not in {_OK, _PARTIAL} or given not in ({"", expected} if whole else {expected}):
                raise changed()
            left = stop - start
            async for chunk in answer.chunks():
                left -= len(chunk)
                if left < 0:
                    raise changed()
                yield chunk
        finally:
            await answer.close()

    async def _ask(  # noqa: PLR0913 -- one request to the upstream, by name
        self,
        detail: S3Detail,
        client: UpstreamClient,
        method: str,
        permit: Permit,
        *,
        span: str | None = None,
        etag: str | None = None,
    ) -> UpstreamAnswer:
        headers = [("range", span)] if span is not None else []
        if etag is not None:
            headers.append(("if-match", etag))
        elif (mode := permit.request.header("x-amz-checksum-mode")) is not None:
            headers.append(("x-amz-checksum-mode", mode))
        call = detail.call
        return await self._upstream.send(
            client, Outgoing(method=method, bucket=call.bucket, key=call.key, headers=headers)
        )

    def _form_of_head(self, permit: Permit, detail: S3Detail) -> tuple[str, frozenset[str]]:
        """Return how the object would be shown to this caller's GET, and the fields masked then."""
        if detail.target is None or detail.target.kind == "Model":
            return PLAIN, frozenset()
        fields = mask_fields(permit.obligations)
        foreseen = None
        if permit.foresees is not None:
            foreseen = permit.foresees(Ask(reading(detail.target), detail.target))
        if foreseen is not None:
            if not any(isinstance(o, Mask) for o in foreseen):
                return PLAIN, fields
            fields = mask_fields(foreseen)
        return (s3_tags.mask_form(fields) if fields else VIEWED), fields

    def _state(self, detail: S3Detail, version: Version, form: str) -> State:
        call = detail.call
        shown = [
            self._veil.shown(bucket=call.bucket, key=call.key, etag=version.etag, form=f)
            for f in (form, VIEWED)
        ]
        return State(tag=shown[0], also=frozenset(shown), modified=version.modified)

    def _headers(self, version: Version, form: str) -> list[tuple[str, str]]:
        if form == PLAIN:
            dropped = {"content-length", "etag", "accept-ranges"}
            return [(k, v) for k, v in s3_headers.answered(version.headers) if k not in dropped]
        if form == VIEWED:
            dropped = {"content-length", "etag", "accept-ranges", "x-amz-version-id"}
            kept = s3_headers.without_digests(s3_headers.answered(version.headers))
            return [(k, v) for k, v in kept if k not in dropped]
        return s3_headers.answered_masked(version.headers)


def _version(detail: S3Detail, answer: UpstreamAnswer) -> Version:
    length = s3_headers.find(answer.headers, "content-length")
    if not length.isascii() or not length.isdigit():
        raise UnavailableError("the upstream does not say how long the object is", hint="Try again.")
    return Version(
        etag=s3_headers.find(answer.headers, "etag"),
        total=int(length),
        modified=s3_headers.find(answer.headers, "last-modified"),
        labels=Labels(
            detail.call.key,
            s3_headers.find(answer.headers, "content-type"),
            s3_headers.find(answer.headers, "content-encoding"),
        ),
        headers=answer.headers,
    )


def _ended(permit: Permit, status: int, state: State, *, head: bool = False) -> Answer:
    if status == _NOT_MODIFIED:
        headers = [("etag", state.tag)]
        if state.modified:
            headers.append(("last-modified", state.modified))
        return Answer(status=status, headers=headers, body=b"")
    return error_answer(
        status=status,
        code="PreconditionFailed",
        message="At least one of the pre-conditions you specified did not hold",
        request_id=permit.request.id,
        head=head,
    )


def _unsatisfiable(permit: Permit, total: int) -> Answer:
    return error_answer(
        status=416,
        code="InvalidRange",
        message="The requested range is not satisfiable",
        request_id=permit.request.id,
        headers={"content-range": f"bytes */{total}"},
    )


async def _through(answer: UpstreamAnswer) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.chunks():
            yield chunk
    finally:
        await answer.close()
