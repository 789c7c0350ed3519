"""Lists of buckets and keys: read from the upstream, filtered name by name, written anew."""

from __future__ import annotations

import asyncio
import base64
import binascii
import xml.etree.ElementTree as ET
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

import msgspec

from doorward.core.errors import InvalidRequestError, UnavailableError
from doorward.core.wire import Answer, UpstreamAnswer, UpstreamClient
from doorward.gateway.adapter import Permit
from doorward.gateway.prefixes import Prefixes
from doorward.gateway.protocols.s3_errors import upstream_error
from doorward.gateway.protocols.s3_names import S3Detail
from doorward.gateway.protocols.s3_route import check_key
from doorward.gateway.protocols.s3_tags import PLAIN, VIEWED, TagVeil
from doorward.gateway.protocols.s3_upstream import Outgoing, S3Upstream, read_whole
from doorward.gateway.protocols.s3_xml import local, read_xml, write_xml, xml_answer

_OK = 200
_PAGE = 1000
# So many pages of hidden keys in a row end a list with an error instead of a marker that names one.
_MOST_PAGES = 100
# Under a prefix the first key is mostly visible: a short page tells.
_FEW = 20
# So many names are decided before other requests get their turn.
_TURN = 50
# No key sorts behind it.
_LAST = "\U0010ffff"
_FIELDS = ("LastModified", "ETag", "Size", "StorageClass")


class Entry(msgspec.Struct, frozen=True, order=True):
    """State one line of a listing: a key with its fields, or a common prefix without any."""

    name: str
    fields: tuple[tuple[str, str], ...] = ()
    is_prefix: bool = False


class _Page(msgspec.Struct, frozen=True):
    entries: tuple[Entry, ...]
    truncated: bool
    token: str


class _Span(NamedTuple):
    prefix: str
    delimiter: str
    start: str


class _UpstreamSaidError(Exception):
    def __init__(self, answer: UpstreamAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class _Skip:
    """Finds how far a list may go on without reading; asked for only when there is a further page."""

    def __init__(self, permit: Permit, detail: S3Detail) -> None:
        self._permit, self._detail = permit, detail
        self._prefixes: Prefixes | None = None
        self._asked = False

    def beyond(self, key: str) -> str | None:
        """Return where to go on behind everything under the widest denied prefix a key lies in."""
        if not self._asked:
            self._asked = True
            place = self._detail.names.place(self._detail.call.bucket)
            self._prefixes = None if self._permit.outlook is None else self._permit.outlook(place)
        if self._prefixes is None:
            return None
        bucket, steps = f"{self._detail.names.settings.name}/{self._detail.call.bucket}", key.split("/")[:-1]
        for count in range(len(steps) + 1):
            prefix = "/".join(steps[:count])
            if self._prefixes.throughout(f"{bucket}/{prefix}".removesuffix("/")) is False:
                beyond = f"{prefix}/{_LAST}".removeprefix("/")
                return beyond if beyond > key else None
        return None


class Lister:
    """Carry out ListBuckets and both forms of ListObjects.

    INVARIANT: an answer says nothing that depends on a name the caller may not view: not its keys, its
    counts, nor its markers.
    """

    def __init__(self, upstream: S3Upstream, veil: TagVeil) -> None:
        """Take the way to the upstream and the secret of ETags."""
        self._upstream = upstream
        self._veil = veil

    async def buckets(self, permit: Permit, detail: S3Detail, client: UpstreamClient) -> Answer:
        """Answer ListBuckets with the buckets the caller may view."""
        answer = await self._upstream.send(client, Outgoing(method="GET"))
        if answer.status != _OK:
            return await upstream_error(permit.request, detail.call, answer)
        shown: list[tuple[str, object]] = []
        total = 0
        for bucket in _read(await read_whole(answer)).iter():
            if local(bucket) != "Bucket":
                continue
            fields = _texts(bucket)
            total += 1
            if permit.sees(detail.names.of(fields.get("Name", ""))):
                kept = [(name, fields[name]) for name in ("Name", "CreationDate") if name in fields]
                shown.append(("Bucket", kept))
        permit.outcome.update(shown=len(shown), hidden=total - len(shown))
        owner = [("ID", "doorward"), ("DisplayName", "doorward")]
        return xml_answer(_OK, write_xml("ListAllMyBucketsResult", [("Owner", owner), ("Buckets", shown)]))

    async def objects(self, permit: Permit, detail: S3Detail, client: UpstreamClient) -> Answer:
        """Answer ListObjects and ListObjectsV2 with full pages of what the caller may view."""
        query = detail.call.query
        most = min(int(query.get("max-keys", _PAGE)), _PAGE)
        span = _Span(query.get("prefix", ""), query.get("delimiter", ""), _start(query))
        visible: list[Entry] = []
        hidden = 0
        try:
            skip = _Skip(permit, detail)
            async with aclosing(self._entries(detail, client, span, skip=skip)) as entries:
                async for entry in entries:
                    if await self._shows(permit, detail, client, entry):
                        visible.append(entry)
                    else:
                        hidden += 1
                    if len(visible) > most:
                        break
        except _UpstreamSaidError as said:
            return await upstream_error(permit.request, detail.call, said.answer)
        shown = visible[:most]
        permit.outcome.update(shown=len(shown), hidden=hidden)
        truncated = bool(shown) and len(visible) > most
        return xml_answer(_OK, self._write(detail, shown, truncated=truncated))

    def empty(self, detail: S3Detail, request_id: str) -> Answer:
        """Return the list of a prefix that nothing lies under."""
        body = self._write(detail, [], truncated=False)
        return xml_answer(_OK, body, {"x-amz-request-id": request_id})

    async def _entries(
        self,
        detail: S3Detail,
        client: UpstreamClient,
        span: _Span,
        *,
        first: int = _PAGE,
        skip: _Skip | None = None,
    ) -> AsyncGenerator[Entry, None]:
        """Yield the upstream's entries behind the span's start, in order; `first` sizes the first page.

        With `skip`, pages that lie wholly under a prefix the caller may not view are not read.
        """
        token, after, size = "", span.start, first
        for _ in range(_MOST_PAGES):
            query = {"list-type": "2", "encoding-type": "url", "max-keys": str(size)}
            query |= {k: v for k, v in (("prefix", span.prefix), ("delimiter", span.delimiter)) if v}
            if token or after:
                query |= {"continuation-token": token} if token else {"start-after": after}
            answer = await self._upstream.send(
                client, Outgoing(method="GET", bucket=detail.call.bucket, query=query)
            )
            if answer.status != _OK:
                raise _UpstreamSaidError(answer)
            page = _read_page(await read_whole(answer))
            for number, entry in enumerate(sorted(page.entries)):
                if number % _TURN == 0:
                    await asyncio.sleep(0)
                if _is_past(entry, span.start):
                    yield entry
            if not page.truncated:
                return
            token, after, size = page.token, max((e.name for e in page.entries), default=after), _PAGE
            if skip is not None and (beyond := skip.beyond(after)) is not None:
                token, after = "", beyond
        raise UnavailableError("the list is too long to be filtered", hint="Ask for a narrower prefix.")

    async def _shows(self, permit: Permit, detail: S3Detail, client: UpstreamClient, entry: Entry) -> bool:
        """Return whether an entry is visible; a prefix is if a visible key lies under it."""
        if not self._sees(permit, detail, entry):
            return False
        if not entry.is_prefix:
            return True
        span = _Span(entry.name, "", _start(detail.call.query))
        async with aclosing(self._entries(detail, client, span, first=_FEW)) as below:
            async for inner in below:
                if self._sees(permit, detail, inner):
                    return True
        return False

    def _sees(self, permit: Permit, detail: S3Detail, entry: Entry) -> bool:
        try:
            check_key(entry.name)
        except InvalidRequestError:
            # No request can name it here, so it is not there.
            return False
        return permit.sees(detail.names.of(detail.call.bucket, entry.name))

    def _write(self, detail: S3Detail, shown: list[Entry], *, truncated: bool) -> bytes:
        query, v2 = detail.call.query, detail.call.operation == "ListObjectsV2"
        as_url = query.get("encoding-type") == "url"

        def coded(text: str) -> str:
            return quote(text, safe="/-_.~") if as_url else text

        fields: list[tuple[str, object]] = [
            ("Name", detail.call.bucket),
            ("Prefix", coded(query.get("prefix", ""))),
            ("MaxKeys", query.get("max-keys", str(_PAGE))),
        ]
        fields += [("Delimiter", coded(query["delimiter"]))] if query.get("delimiter") else []
        fields += [("EncodingType", "url")] if as_url else []
        fields.append(("IsTruncated", "true" if truncated else "false"))
        if v2:
            fields.append(("KeyCount", str(len(shown))))
            fields += [("StartAfter", coded(query["start-after"]))] if "start-after" in query else []
            if "continuation-token" in query:
                fields.append(("ContinuationToken", query["continuation-token"]))
            fields += [("NextContinuationToken", _token(shown[-1].name))] if truncated else []
        else:
            fields.append(("Marker", coded(query.get("marker", ""))))
            fields += [("NextMarker", coded(shown[-1].name))] if truncated else []
        fields += [("Contents", self._contents(detail, e, coded(e.name))) for e in shown if not e.is_prefix]
        fields += [("CommonPrefixes", [("Prefix", coded(e.name))]) for e in shown if e.is_prefix]
        return write_xml("ListBucketResult", fields)

    def _contents(self, detail: S3Detail, entry: Entry, name: str) -> list[tuple[str, str]]:
        bucket, fields = detail.call.bucket, dict(entry.fields)
        if etag := fields.get("ETag"):
            # Of a dataset the tag is veiled: an MD5 would let hidden columns be guessed.
            form = PLAIN if detail.names.of(bucket, entry.name).kind == "Model" else VIEWED
            quoted = f'"{etag.strip(chr(34))}"'
            fields["ETag"] = self._veil.shown(bucket=bucket, key=entry.name, etag=quoted, form=form)
        return [("Key", name), *((field, fields[field]) for field in _FIELDS if field in fields)]


def _read(body: bytes) -> ET.Element:
    try:
        return read_xml(body)
    except InvalidRequestError:
        raise UnavailableError("the upstream's list cannot be read", hint="Ask your operator.") from None


def _texts(element: ET.Element) -> dict[str, str]:
    return {local(child): child.text or "" for child in element}


def _read_page(body: bytes) -> _Page:
    root = _read(body)
    top = _texts(root)
    as_url = top.get("EncodingType") == "url"

    def decoded(text: str) -> str:
        return unquote_plus(text) if as_url else text

    entries: list[Entry] = []
    for child in root:
        fields = _texts(child)
        match local(child):
            case "Contents":
                kept = tuple((name, fields[name]) for name in _FIELDS if name in fields)
                entries.append(Entry(decoded(fields.get("Key", "")), kept))
            case "CommonPrefixes":
                entries.append(Entry(decoded(fields.get("Prefix", "")), (), is_prefix=True))
    return _Page(tuple(entries), top.get("IsTruncated") == "true", top.get("NextContinuationToken", ""))


def _start(query: dict[str, str]) -> str:
    if "continuation-token" in query:
        return _read_token(query["continuation-token"])
    return query.get("start-after") or query.get("marker", "")


def _is_past(entry: Entry, start: str) -> bool:
    """Return whether an entry comes after the start; a prefix the start lies in may hold keys that do."""
    if entry.name > start:
        return True
    return entry.is_prefix and entry.name != start and start.startswith(entry.name)


def _token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _read_token(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidRequestError(
            "the continuation token is not one of ours", hint="Start the list again."
        ) from None
