"""What S3 callers are shown: filtered lists, derived tags, native refusals, nothing of what is hidden."""

from __future__ import annotations

import base64
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidRequestError, UnavailableError
from doorward.core.identity import Caller
from doorward.core.model import EntityUid
from doorward.core.obligation import AnyObligation, Mask
from doorward.core.onetime import MemoryOneTime
from doorward.core.wire import Answer, Request, UpstreamRequest
from doorward.gateway.adapter import Ask, Permit, Refusal
from doorward.gateway.masking.masker import MaskRefusedError
from doorward.gateway.protocols.s3 import S3Adapter
from doorward.gateway.protocols.s3_list import Entry
from doorward.identity.sigv4 import verify
from doorward.identity.sigv4_signing import EMPTY_SHA256, S3Keys, Scope, sign, signature, signing_key
from doorward.settings import S3Credential, S3CredentialHolder, UpstreamSettings
from support.s3_requests import (
    DANA,
    HOST,
    KEY_ID,
    NOW,
    SECRET,
    FakeAnswer,
    FakeUpstream,
    Registry,
    bare,
    signed,
)

SETTINGS = UpstreamSettings(
    name="store",
    kind="s3",
    url="http://127.0.0.1:9000/base",
    credential=S3CredentialHolder(
        s3=S3Credential.model_construct(access_key_id="UP", secret_access_key="up-secret", region="x-1")
    ),
)
ADAPTER = S3Adapter(SETTINGS, etag_key=b"k" * 32, clock=ManualClock(NOW))
CSV = b"id,email\n1,a@b.c\n"
ETAG = f'"{hashlib.md5(CSV, usedforsecurity=False).hexdigest()}"'
MASK = Mask(("Email",))


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def parsed(document: bytes) -> ET.Element:
    return ET.fromstring(document)  # noqa: S314 -- our own answer


class Everything:
    def covering(self, name: str, kinds: tuple[str, ...]) -> EntityUid | None:
        del kinds
        return EntityUid.of(
            "Model" if name.startswith("store/models") else "Dataset", "/".join(name.split("/")[:2])
        )


@dataclass
class Door:
    """Carry one call out, allowed, with these obligations and this view of names."""

    upstream: FakeUpstream
    obligations: tuple[AnyObligation, ...] = ()
    sees: Callable[[EntityUid], bool] = lambda _: True
    foresees: Callable[[Ask], tuple[AnyObligation, ...] | None] | None = None
    outcome: dict[str, int] = field(default_factory=dict)

    async def call(self, request: Request, body: bytes = b"") -> tuple[Answer, bytes]:
        naming = ADAPTER.name(request, body, Everything())
        permit = Permit(
            request=request,
            body=body,
            naming=naming,
            caller=Caller(DANA, "k1", "sigv4"),
            obligations=self.obligations,
            sees=self.sees,
            outcome=self.outcome,
            foresees=self.foresees,
        )
        answer = await ADAPTER.forward(permit, self.upstream)
        whole = (
            answer.body
            if isinstance(answer.body, bytes)
            else b"".join([chunk async for chunk in answer.body])
        )
        return answer, whole


def store(
    data: bytes = CSV, *, content_type: str = "text/csv", **more: str
) -> Callable[[UpstreamRequest], FakeAnswer]:
    """Return an upstream with one object, which honours ranges."""
    etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'

    def answer(request: UpstreamRequest) -> FakeAnswer:
        headers = {
            "Content-Type": content_type,
            "ETag": etag,
            "Last-Modified": "Mon, 23 Nov 2026 10:00:00 GMT",
            "x-amz-version-id": "v1",
            "x-amz-checksum-crc32": "AAAA",
            "x-amz-meta-md5": "abc",
            "x-amz-meta-note": "hi",
            **more,
        }
        span = dict(request.headers).get("range")
        body, status = data, 200
        if span:
            first, last = span.removeprefix("bytes=").split("-")
            body, status = data[int(first) : int(last) + 1], 206
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(body) - 1}/{len(data)}"
        headers["Content-Length"] = str(len(body))
        return FakeAnswer(status, list(headers.items()), b"" if request.method == "HEAD" else body)

    return answer


def value(answer: Answer, name: str) -> str:
    return next((v for k, v in answer.headers if k.lower() == name), "")


async def test_a_masked_read_shows_nothing_that_belongs_to_the_original_bytes() -> None:
    answer, body = await Door(FakeUpstream(store()), (MASK,)).call(
        bare(headers={"x-amz-checksum-mode": "ENABLED"})
    )
    assert (answer.status, body) == (200, b"id,email\n1,*****\n")
    shown = {name for name, _ in answer.headers}
    assert shown == {
        "content-type",
        "last-modified",
        "content-length",
        "etag",
        "accept-ranges",
        "x-amz-request-id",
    }
    assert ETAG not in str(answer.headers)
    assert value(answer, "content-length") == str(len(CSV))


async def test_an_unmasked_read_passes_the_bytes_and_their_headers() -> None:
    answer, body = await Door(FakeUpstream(store())).call(bare())
    assert body == CSV
    assert (
        value(answer, "etag"),
        value(answer, "x-amz-checksum-crc32"),
        value(answer, "x-amz-meta-note"),
    ) == (ETAG, "AAAA", "hi")


@pytest.mark.parametrize(
    ("foresees", "form"),
    [(None, "viewed"), (lambda _: None, "viewed"), (lambda _: (MASK,), "masked"), (lambda _: (), "plain")],
)
async def test_head_shows_the_etag_of_what_a_read_would_give(foresees: Any, form: str) -> None:
    door = Door(FakeUpstream(store()), foresees=foresees)
    answer, body = await door.call(bare("HEAD"))
    assert (answer.status, body, value(answer, "content-length")) == (200, b"", str(len(CSV)))
    tag = value(answer, "etag")
    assert (tag == ETAG) == (form == "plain")
    if form != "plain":
        assert not value(answer, "x-amz-checksum-crc32") + value(answer, "x-amz-meta-md5")
    obligations = (MASK,) if form == "masked" else ()
    read, _ = await Door(FakeUpstream(store()), obligations).call(bare(headers={"if-match": tag}))
    assert read.status == 200
    if form == "masked":
        assert value(read, "etag") == tag


async def test_a_tag_of_one_mask_is_not_that_of_another_nor_of_the_plain_bytes() -> None:
    tags = {
        value((await Door(FakeUpstream(store()), obligations).call(bare()))[0], "etag")
        for obligations in (
            (),
            (MASK,),
            (Mask(("phone", "email")),),
            (Mask(("email",)), Mask(("phone",))),
            (Mask(("id",)),),
        )
    }
    assert len(tags) == 4


async def test_a_tag_changes_with_the_object() -> None:
    tags = {
        value((await Door(FakeUpstream(store(data)), (MASK,)).call(bare()))[0], "etag")
        for data in (CSV, CSV + b"2,x\n")
    }
    assert len(tags) == 2


async def test_an_object_that_changes_between_two_requests_fails_cleanly() -> None:
    answers = [
        store()(UpstreamRequest(method="HEAD", target="", headers=[], body=None)),
        store(CSV[::-1])(UpstreamRequest(method="GET", target="", headers=[], body=None)),
    ]
    with pytest.raises(UnavailableError, match="changed"):
        await Door(FakeUpstream(answers), (MASK,)).call(bare())


async def test_an_upstream_without_etags_cannot_serve_masked_reads() -> None:
    with pytest.raises(UnavailableError, match="ETag"):
        await Door(FakeUpstream(store(ETag="")), (MASK,)).call(bare())


async def test_compressed_objects_are_denied() -> None:
    with pytest.raises(MaskRefusedError, match="compressed"):
        await Door(FakeUpstream(store(**{"Content-Encoding": "gzip"})), (MASK,)).call(bare())


async def test_conditions_on_dates() -> None:
    door = Door(FakeUpstream(store()), (MASK,))
    for headers, status in (
        ({"if-modified-since": "Mon, 23 Nov 2026 10:00:00 GMT"}, 304),
        ({"if-modified-since": "Mon, 23 Nov 2026 09:00:00 GMT"}, 200),
        ({"if-unmodified-since": "Mon, 23 Nov 2026 09:00:00 GMT"}, 412),
        ({"if-unmodified-since": "Mon, 23 Nov 2026 10:00:00 GMT"}, 200),
        ({"if-match": "*"}, 200),
        ({"if-none-match": "*"}, 304),
        ({"if-modified-since": "yesterday"}, 200),
    ):
        assert (await door.call(bare(headers=headers)))[0].status == status, headers


async def test_requests_to_the_upstream_are_signed_anew_and_carry_nothing_of_the_callers_credential() -> None:
    upstream = FakeUpstream(store())
    request = signed("GET", "/store/training/a%20b.csv")
    await Door(upstream).call(request)
    (sent,) = upstream.sent
    headers = dict(sent.headers)
    assert sent.target == "/training/a%20b.csv"
    assert "Credential=UP/20261123/x-1/s3/aws4_request" in headers["authorization"]
    assert headers["authorization"] != request.header("authorization")
    assert "up-secret" not in str(sent.headers)
    assert headers["x-amz-content-sha256"] == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("status", [301, 307, 403])
async def test_an_upstream_that_refuses_or_redirects_is_unavailable(status: int) -> None:
    with pytest.raises(UnavailableError):
        await Door(FakeUpstream([FakeAnswer(status, [("Location", "http://evil/")], b"secret words")])).call(
            bare()
        )


async def test_a_body_that_is_not_the_signed_one_never_reaches_the_upstream() -> None:
    upstream = FakeUpstream([])
    headers = {"x-amz-content-sha256": hashlib.sha256(b"good").hexdigest()}
    with pytest.raises(InvalidRequestError):
        await Door(upstream).call(bare("PUT", headers=headers, body=(b"ev", b"il")))
    assert not upstream.sent


async def test_a_verified_body_is_sent_with_its_hash_and_only_listed_headers() -> None:
    upstream = FakeUpstream([FakeAnswer(200, [("ETag", '"1"')])])
    digest = hashlib.sha256(b"good").hexdigest()
    headers = {
        "x-amz-content-sha256": digest,
        "content-type": "text/csv",
        "x-amz-meta-a": "1",
        "cookie": "c",
        "content-encoding": "aws-chunked, gzip",
        "authorization": "Bearer x",
        "x-forwarded-for": "1.2.3.4",
    }
    headers.pop("content-encoding")
    answer, _ = await Door(upstream).call(bare("PUT", headers=headers, body=(b"go", b"od")))
    assert (answer.status, value(answer, "etag")) == (200, '"1"')
    sent = dict(upstream.sent[0].headers)
    assert (sent["x-amz-content-sha256"], sent["x-amz-meta-a"], sent["content-type"]) == (
        digest,
        "1",
        "text/csv",
    )
    assert not {"cookie", "x-forwarded-for"} & set(sent)
    assert upstream.sent[0].body == b"good"
    assert upstream.sent[0].content_length == 4


async def test_a_completed_upload_names_its_place_here() -> None:
    body = (
        b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;x&quot;</ETag></Part>"
        b"</CompleteMultipartUpload>"
    )
    result = (
        b"<CompleteMultipartUploadResult><Location>http://127.0.0.1:9000/training/a.csv</Location>"
        b"<ETag>x</ETag></CompleteMultipartUploadResult>"
    )
    request = bare("POST", "/store/training/a.csv?uploadId=u")
    answer, out = await Door(FakeUpstream([FakeAnswer(200, [], result)])).call(request, body)
    assert answer.status == 200
    assert b"9000" not in out
    assert b"<Location>http://gate.example:8640/store/training/a.csv</Location>" in out
    answer, out = await Door(
        FakeUpstream([FakeAnswer(200, [], b"<Error><Code>InternalError</Code></Error>")])
    ).call(request, body)
    assert answer.status == 500


def listing(keys: list[str], page: int) -> Callable[[UpstreamRequest], FakeAnswer]:
    """Return an upstream bucket that lists in pages of its own size, as S3 does."""

    def answer(request: UpstreamRequest) -> FakeAnswer:
        query = {k: v[0] for k, v in parse_qs(urlsplit(request.target).query, keep_blank_values=True).items()}
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = (
            base64.b64decode(query["continuation-token"]).decode()
            if "continuation-token" in query
            else query.get("start-after", "")
        )
        entries: dict[str, bool] = {}
        for key in sorted(keys):
            if not key.startswith(prefix):
                continue
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            name = prefix + head + cut if cut else key
            if key > after if not cut else name > after:
                entries[name] = bool(cut)
        names = list(entries)[:page]
        more = len(entries) > page
        token = (
            f"<NextContinuationToken>{base64.b64encode(names[-1].encode()).decode()}</NextContinuationToken>"
            if more
            else ""
        )
        lines = "".join(
            f"<CommonPrefixes><Prefix>{n}</Prefix></CommonPrefixes>"
            if entries[n]
            else f"<Contents><Key>{n}</Key><Size>1</Size><ETag>{md5(n.encode())}</ETag></Contents>"
            for n in names
        )
        truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        body = f"<ListBucketResult>{truncated}{token}{lines}</ListBucketResult>"
        return FakeAnswer(200, [], body.encode())

    return answer


KEYS = st.lists(
    st.sampled_from(
        [f"{d}{n}" for d in ("", "a/", "a/b/", "c/", "h/", "hid/") for n in ("1", "2", "h", "hid", "z")]
    ),
    unique=True,
    max_size=20,
)


def hidden_from(uid: EntityUid) -> bool:
    return any(part.startswith("hid") for part in uid.id.split("/"))


@settings(max_examples=200, deadline=None)
@given(
    keys=KEYS,
    page=st.integers(1, 5),
    size=st.integers(1, 4),
    delimiter=st.sampled_from(["", "%2F"]),
    v2=st.booleans(),
)
async def test_a_filtered_list_is_that_of_a_store_without_the_hidden_names(
    keys: list[str],
    page: int,
    size: int,
    delimiter: str,
    v2: bool,  # noqa: FBT001 -- drawn by name
) -> None:
    async def pages(all_keys: list[str]) -> list[tuple[list[str], bool]]:
        found, marker = [], ""
        for _ in range(40):
            target = (
                f"/store/training?max-keys={size}&delimiter={delimiter}"
                + ("&list-type=2" if v2 else "")
                + marker
            )
            door = Door(FakeUpstream(listing(all_keys, page)), sees=lambda uid: not hidden_from(uid))
            root = parsed((await door.call(bare("GET", target)))[1])
            texts = {e.tag.rpartition("}")[2]: e.text or "" for e in root}
            assert "hid" not in ET.tostring(root).decode()
            names = sorted(
                e.text or "" for e in root.iter() if e.tag.endswith("}Key") or e.tag.endswith("}Prefix")
            )
            names = [n for n in names if n]
            if v2:
                assert texts["KeyCount"] == str(len(names))
            found.append((names, texts["IsTruncated"] == "true"))
            if texts["IsTruncated"] != "true":
                return found
            name = "NextContinuationToken" if v2 else "NextMarker"
            marker = f"&{'continuation-token' if v2 else 'marker'}={quote(texts[name], safe='')}"
        raise AssertionError("the list never ends")

    visible = [key for key in keys if not any(part.startswith("hid") for part in key.split("/"))]
    assert await pages(keys) == await pages(visible)


async def test_a_list_tells_no_digest_of_a_dataset_but_of_a_model() -> None:
    door = Door(FakeUpstream(listing(["a.csv"], 10)))
    digest = hashlib.md5(b"a.csv", usedforsecurity=False).hexdigest().encode()
    assert digest not in (await door.call(bare("GET", "/store/training")))[1]
    assert digest in (await door.call(bare("GET", "/store/models")))[1]


async def test_keys_that_no_request_can_name_are_not_listed() -> None:
    out = (
        await Door(FakeUpstream(listing(["a", "b//c", "../d", "e\\f"], 10))).call(
            bare("GET", "/store/training")
        )
    )[1]
    assert [e.text for e in parsed(out).iter() if e.tag.endswith("}Key")] == ["a"]


async def test_a_list_without_end_of_hidden_keys_is_an_error_not_a_marker() -> None:
    endless = listing([f"hid{i:04}" for i in range(200)], 1)
    with pytest.raises(UnavailableError):
        await Door(FakeUpstream(endless), sees=lambda _: False).call(bare("GET", "/store/training"))


async def test_a_forged_continuation_token_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        await Door(FakeUpstream(listing(["a"], 1))).call(
            bare("GET", "/store/training?list-type=2&continuation-token=%21")
        )


async def test_buckets_are_decided_by_name() -> None:
    body = b"<R><Buckets><Bucket><Name>a1</Name></Bucket><Bucket><Name>hid</Name></Bucket></Buckets></R>"
    door = Door(FakeUpstream([FakeAnswer(200, [], body)]), sees=lambda uid: not hidden_from(uid))
    out = (await door.call(bare("GET", "/store")))[1]
    assert b"a1" in out
    assert b"hid" not in out
    assert door.outcome == {"shown": 1, "hidden": 1}


@pytest.mark.parametrize(
    ("method", "target", "status", "said"),
    [
        ("GET", "/store/training/a.csv", 404, "NoSuchKey"),
        ("HEAD", "/store/training/a.csv", 404, ""),
        ("GET", "/store/training", 404, "NoSuchBucket"),
        ("PUT", "/store/training/a.csv", 404, "NoSuchBucket"),
        ("DELETE", "/store/training/a.csv", 204, ""),
        ("PUT", "/store/training/a.csv?partNumber=1&uploadId=u", 404, "NoSuchUpload"),
        ("HEAD", "/store/training", 404, ""),
    ],
)
def test_the_hidden_is_what_a_store_says_of_the_missing(
    method: str, target: str, status: int, said: str
) -> None:
    request = bare(method, target)
    answer = ADAPTER.not_found(request, ADAPTER.name(request, b"", Everything()), "01ID")
    assert isinstance(answer.body, bytes)
    assert answer.status == status
    assert said.encode() in answer.body
    assert bool(answer.body) == bool(said)


@pytest.mark.parametrize(
    "body",
    [b"<Error><Code>NoSuchKey</Code><Resource>upstream's words</Resource></Error>", b"", b"<html>not found"],
)
async def test_a_key_the_upstream_does_not_have_looks_like_a_hidden_one(body: bytes) -> None:
    request = bare("GET", "/store/training/a.csv")
    answer, out = await Door(FakeUpstream([FakeAnswer(404, [("X-Own", "1")], body)])).call(request)
    hidden = ADAPTER.not_found(request, ADAPTER.name(request, b"", Everything()), request.id)
    assert (answer.status, sorted(answer.headers), out) == (
        hidden.status,
        sorted(hidden.headers),
        hidden.body,
    )


def test_refusals_are_s3_errors_with_the_sentence() -> None:
    refusal = Refusal(
        status=429,
        code="limit_exceeded",
        title="Limit",
        detail='Try <again> & "wait".',
        request_id="01ID",
        retry_after=7,
    )
    answer = ADAPTER.refuse(bare(), refusal)
    assert isinstance(answer.body, bytes)
    root = parsed(answer.body)
    assert [(e.tag, e.text) for e in root] == [
        ("Code", "SlowDown"),
        ("Message", 'Try <again> & "wait".'),
        ("RequestId", "01ID"),
    ]
    assert (answer.status, value(answer, "retry-after")) == (429, "7")
    assert ADAPTER.refuse(bare("HEAD"), refusal).body == b""


def test_entries_sort_by_name() -> None:
    assert min(Entry("b"), Entry("a/", (), is_prefix=True), Entry("a")).name == "a"


def streamed(body: bytes, *, false: bool = False) -> Request:
    """Return a PUT whose chunks are signed with the caller's key."""
    kind, path = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "/store/training/a.csv"
    keys, scope = S3Keys(KEY_ID, SECRET), Scope("20261123", "us-east-1")
    lengths = [("x-amz-decoded-content-length", str(len(body)))]
    headers = sign(
        method="PUT", host=HOST, path=path, query=(), headers=lengths, payload=kind, keys=keys, now=NOW
    )
    previous, out = dict(headers)["authorization"].rpartition("=")[2], b""
    for chunk in (body, b""):
        parts = ("AWS4-HMAC-SHA256-PAYLOAD", "20261123T120000Z", str(scope), previous)
        text = "\n".join((*parts, EMPTY_SHA256, hashlib.sha256(chunk).hexdigest()))
        previous = signature(signing_key(SECRET, scope), text)
        out += f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk + (b"\r\n" if chunk else b"")
    if false:
        out = out.replace(body, body[::-1])
    sent = [("host", HOST), ("content-encoding", "aws-chunked"), *headers]
    return bare("PUT", path, headers=sent, body=(out + b"\r\n",))


async def test_signed_chunks_are_verified_with_the_callers_key_and_sent_plain() -> None:
    adapter = S3Adapter(SETTINGS, registry=Registry, clock=ManualClock(NOW))
    upstream = FakeUpstream(lambda _: FakeAnswer(200, [("ETag", '"1"')]))
    request = streamed(b"hello world")
    naming = adapter.name(request, b"", Everything())
    await verify(request, Registry, ManualClock(NOW), one_time=MemoryOneTime(ManualClock(NOW)))

    def permit(of: Request) -> Permit:
        return Permit(
            request=of,
            body=b"",
            naming=naming,
            caller=Caller(DANA, "k1", "sigv4"),
            obligations=(),
            sees=lambda _: True,
            outcome={},
        )

    assert (await adapter.forward(permit(request), upstream)).status == 200
    assert (upstream.sent[0].body, upstream.sent[0].content_length) == (b"hello world", 11)
    assert "content-encoding" not in dict(upstream.sent[0].headers)
    assert dict(upstream.sent[0].headers)["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    with pytest.raises(InvalidRequestError, match="does not verify"):
        await adapter.forward(permit(streamed(b"hello world", false=True)), upstream)
    with pytest.raises(InvalidRequestError, match="signed chunks"):
        await ADAPTER.forward(permit(request), upstream)
