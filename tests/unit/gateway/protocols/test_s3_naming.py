"""Every S3 call is named, or it is no route: attack catalogue row 54."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from doorward.core.errors import InvalidRequestError
from doorward.core.model import EntityUid
from doorward.core.obligation import Limit, Mask
from doorward.core.wire import Request
from doorward.gateway.adapter import BodyNeed, Naming, UnknownRouteError
from doorward.gateway.protocols.s3 import S3Adapter
from doorward.settings import UpstreamSettings
from support.s3_requests import FakeAnswer, FakeUpstream, bare


class Declared:
    """Know some assets; the longest name that covers wins."""

    def __init__(self, *names: str) -> None:
        self.uids = [EntityUid.parse(name) for name in names]

    def covering(self, name: str, kinds: tuple[str, ...]) -> EntityUid | None:
        above = [u for u in self.uids if u.kind in kinds and (name == u.id or name.startswith(u.id + "/"))]
        return max(above, key=lambda uid: len(uid.id), default=None)


ASSETS = Declared(
    'Dataset::"store/training"',
    'Model::"store/models"',
    'Dataset::"store/models/eval"',
    'Dataset::"store/mixed"',
)
ADAPTER = S3Adapter(
    UpstreamSettings(
        name="store", kind="s3", url="http://127.0.0.1:9", weights_prefixes=("mixed/weights/", "training")
    )
)


def named(request: Request, body: bytes = b"") -> Naming:
    return ADAPTER.name(request, body, ASSETS)


def asks(method: str, target: str, body: bytes = b"", **headers: str) -> list[str]:
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    request = bare(method, target, headers=pairs, body=(body,))
    return [f"{ask.action} {ask.resource}" for ask in named(request, body).asks]


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/store/mixed/d/a.csv", ['read Dataset::"store/mixed/d/a.csv"']),
        (
            "GET",
            "/store/mixed/d/a%20b%2B%3B~%C3%BC.csv?x-id=GetObject",
            ['read Dataset::"store/mixed/d/a b+;~ü.csv"'],
        ),
        ("GET", "/store/models/m.bin", ['export Model::"store/models/m.bin"']),
        ("GET", "/store/models/eval/a.csv", ['read Dataset::"store/models/eval/a.csv"']),
        ("GET", "/store/models/evaluation.csv", ['export Model::"store/models/evaluation.csv"']),
        ("GET", "/store/mixed/weights/a.bin", ['export Model::"store/mixed/weights/a.bin"']),
        ("GET", "/store/mixed/weights-2/a.bin", ['read Dataset::"store/mixed/weights-2/a.bin"']),
        ("GET", "/store/training/a.csv", ['read Dataset::"store/training/a.csv"']),
        ("GET", "/store/elsewhere/a.csv", ['read Dataset::"store/elsewhere/a.csv"']),
        ("HEAD", "/store/mixed/a.csv", ['view Dataset::"store/mixed/a.csv"']),
        ("HEAD", "/store/models", ['view Model::"store/models"']),
        ("GET", "/store/models/?location", ['view Model::"store/models"']),
        ("GET", "/store/mixed", ['view Dataset::"store/mixed"']),
        ("GET", "/store/mixed?list-type=2&prefix=a%2Fb%2Fc", ['view Dataset::"store/mixed/a/b"']),
        (
            "GET",
            "/store/mixed?prefix=weights%2F&delimiter=%2F&marker=x",
            ['view Model::"store/mixed/weights"'],
        ),
        ("GET", "/store", []),
        ("GET", "/store/", []),
        ("PUT", "/store/mixed/a.csv", ['create Dataset::"store/mixed/a.csv"']),
        ("PUT", "/store/mixed/a.csv?partNumber=2&uploadId=u1", ['create Dataset::"store/mixed/a.csv"']),
        ("POST", "/store/mixed/a.csv?uploads", ['create Dataset::"store/mixed/a.csv"']),
        ("POST", "/store/mixed/a.csv?uploads=", ['create Dataset::"store/mixed/a.csv"']),
        ("GET", "/store/mixed/a.csv?uploadId=u1", ['create Dataset::"store/mixed/a.csv"']),
        ("DELETE", "/store/mixed/a.csv?uploadId=u1", ['create Dataset::"store/mixed/a.csv"']),
        ("DELETE", "/store/mixed/a.csv", ['delete Dataset::"store/mixed/a.csv"']),
    ],
)
def test_calls_map_to_action_and_asset(method: str, target: str, expected: list[str]) -> None:
    assert asks(method, target) == expected


def test_a_copy_reads_its_source_and_creates_its_target() -> None:
    assert asks("PUT", "/store/mixed/b.csv", x_amz_copy_source="/models/m%201.bin") == [
        'export Model::"store/models/m 1.bin"',
        'create Dataset::"store/mixed/b.csv"',
    ]
    assert asks("PUT", "/store/mixed/b.csv?partNumber=1&uploadId=u", x_amz_copy_source="training/a.csv") == [
        'read Dataset::"store/training/a.csv"',
        'create Dataset::"store/mixed/b.csv"',
    ]


def test_a_deletion_names_every_key_and_is_written_anew() -> None:
    body = (
        b'<?xml version="1.0"?><Delete xmlns="urn:x"><Object><Key>a.csv</Key></Object>'
        b"<Object><Key>b &amp; c</Key></Object><Quiet>true</Quiet></Delete>"
    )
    naming = named(bare("POST", "/store/mixed?delete"), body)
    assert [str(ask.resource) for ask in naming.asks] == [
        'Dataset::"store/mixed/a.csv"',
        'Dataset::"store/mixed/b & c"',
    ]
    assert {ask.action for ask in naming.asks} == {"delete"}
    detail: Any = naming.detail
    assert b"<Object><Key>b &amp; c</Key></Object><Quiet>true</Quiet>" in detail.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<Delete></Delete>",
        b"<Delete><Object><Key></Key></Object></Delete>",
        b"<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
        b"<Delete><Object><Key>a</Key><VersionId>1</VersionId></Object></Delete>",
        b"<Delete><Object><Key>../a</Key></Object></Delete>",
        b"<Delete><Object><Key>a<b/></Key></Object></Delete>",
        b"<Delete><Other><Key>a</Key></Other></Delete>",
        b'<!DOCTYPE d [<!ENTITY e "x">]><Delete><Object><Key>&e;</Key></Object></Delete>',
        b"<Delete><!-- c --><Object><Key>a</Key></Object></Delete>",
        "<Delete><Object><Key>a</Key></Object></Delete>".encode("utf-16"),
        b'<?xml version="1.0" encoding="utf-7"?><Delete><Object><Key>+AGE-</Key></Object><x/></Delete>',
        b"<Delete>" + b"<Object><Key>a</Key></Object>" * 1001 + b"</Delete>",
        b"<Create><Object><Key>a</Key></Object></Create>",
        b"<Delete>",
        b"x" * (5 * 1024 * 1024),
    ],
)
def test_a_deletion_with_two_readings_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        named(bare("POST", "/store/mixed?delete"), body)


@pytest.mark.parametrize(
    "target",
    [
        "?acl",
        "?policy",
        "?cors",
        "?website",
        "?versioning",
        "?versions",
        "?tagging",
        "?lifecycle",
        "?logging",
        "?notification",
        "?replication",
        "?encryption",
        "?uploads",
        "?object-lock",
        "?publicAccessBlock",
        "?ownershipControls",
        "?analytics",
        "?list-type=2&versions",
        "?Prefix=a",
        "?prefix=a&x-unknown=1",
        "?list-type=2&marker=a",
        "?location&acl",
        "/a.csv?acl",
        "/a.csv?tagging",
        "/a.csv?torrent",
        "/a.csv?attributes",
        "/a.csv?legal-hold",
        "/a.csv?retention",
        "/a.csv?select&select-type=2",
        "/a.csv?restore",
        "/a.csv?versionId=1",
        "/a.csv?partNumber=1",
        "/a.csv?response-content-type=text%2Fcsv",
        "/a.csv?response-content-disposition=x",
        "/a.csv?renameObject",
        "/a.csv?append",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
def test_every_other_subresource_is_no_route(method: str, target: str) -> None:
    if (method, target) == ("GET", "?prefix=a"):
        return
    with pytest.raises((UnknownRouteError, InvalidRequestError)):
        asks(method, f"/store/mixed{target}")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/store/mixed"),
        ("POST", "/store/mixed/a.csv"),
        ("PUT", "/store/mixed"),
        ("DELETE", "/store/mixed"),
        ("PUT", "/store"),
        ("POST", "/store"),
        ("DELETE", "/store"),
        ("HEAD", "/store"),
        ("OPTIONS", "/store/mixed/a"),
        ("PATCH", "/store/mixed/a"),
    ],
)
def test_bucket_writes_forms_and_odd_methods_are_no_route(method: str, target: str) -> None:
    with pytest.raises(UnknownRouteError):
        asks(method, target)


@pytest.mark.parametrize(
    "header",
    [
        "x-amz-acl",
        "x-amz-grant-read",
        "x-amz-grant-full-control",
        "x-amz-tagging",
        "x-amz-tagging-directive",
        "x-amz-website-redirect-location",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-bypass-governance-retention",
        "x-amz-object-lock-mode",
        "x-amz-rename-source",
        "x-amz-write-offset-bytes",
        "x-amz-request-payer",
        "x-amz-mfa",
        "x-amz-anything-new",
    ],
)
def test_a_header_that_changes_what_a_write_means_is_no_route(header: str) -> None:
    with pytest.raises(UnknownRouteError):
        named(bare("PUT", "/store/mixed/a.csv", headers={header: "1"}))


@pytest.mark.parametrize(
    "target",
    [
        "/store/mixed/../payroll/a",
        "/store/mixed/%2e%2e/payroll/a",
        "/store/mixed/./a",
        "/store/mixed//a",
        "/store/mixed/a//b",
        "/store//a",
        "/store/mixed/a%2F..%2Fb",
        "/store/mixed/a%2fb",
        "/store/mixed/a%00b",
        "/store/mixed/a%0ab",
        "/store/mixed/a%5Cb",
        "/store/mixed/a//",
        "/store/mixed/%EF%BC%8E%EF%BC%8E/b",
        "/store/mixed/a%EF%BC%8Fb",
        "/store/mixed/%E2%80%9Ba",
        "/store/mixed/%FF",
        "/store/mixed/" + "a" * 1025,
        "/store/mi%2Fxed/a",
        "/store/mi..xed/a",
        "/store/m/a",
        "/store/mixed/%20..%20/a",
        "/store/mixed?prefix=..%2F",
        "/store/mixed?prefix=a%2F%2Fb",
        "/store/mixed?delimiter=-",
        "/store/mixed?max-keys=-1",
        "/store/mixed?list-type=1",
        "/store/mixed?prefix=a&prefix=b",
        "/store/mixed?encoding-type=x",
        "/store/mixed/a?uploadId=%0A",
    ],
)
def test_a_name_with_two_readings_is_refused(target: str) -> None:
    with pytest.raises(InvalidRequestError):
        asks("GET", target)


@pytest.mark.parametrize(
    "source",
    [
        "training/a.csv?versionId=1",
        "arn:aws:s3:::training/a.csv",
        "training",
        "training/",
        "training/../payroll/a",
        "training//a",
        "training/a+b",
        "%2F%2Ftraining/a",
        "training/a%00",
    ],
)
def test_a_copy_source_with_two_readings_is_refused(source: str) -> None:
    with pytest.raises((InvalidRequestError, UnknownRouteError)):
        asks("PUT", "/store/mixed/b", x_amz_copy_source=source)


def test_a_copy_source_beside_something_that_is_no_copy_is_refused() -> None:
    for method, target in (
        ("GET", "/store/mixed/a"),
        ("DELETE", "/store/mixed/a"),
        ("POST", "/store/mixed/a?uploads"),
    ):
        with pytest.raises(UnknownRouteError):
            asks(method, target, x_amz_copy_source="training/a.csv")


def test_masks_are_kept_for_reads_of_datasets_and_for_what_shows_no_bytes() -> None:
    def keeps(method: str, target: str, **headers: str) -> frozenset[type]:
        return ADAPTER.keeps(
            named(bare(method, target, headers={k.replace("_", "-"): v for k, v in headers.items()}))
        )

    both, limit = frozenset({Limit, Mask}), frozenset({Limit})
    assert (
        keeps("GET", "/store/mixed/a.csv")
        == keeps("HEAD", "/store/mixed/a.csv")
        == keeps("GET", "/store/mixed")
        == both
    )
    assert (
        keeps("GET", "/store/models/a.bin")
        == keeps("PUT", "/store/mixed/a.csv")
        == keeps("DELETE", "/store/mixed/a.csv")
        == limit
    )
    assert keeps("PUT", "/store/mixed/b", x_amz_copy_source="training/a.csv") == limit
    assert keeps("GET", "/store/mixed/a.csv?X-Amz-Signature=0&X-Amz-Date=1") == limit


def test_objects_stream_in_and_documents_are_read_whole() -> None:
    assert ADAPTER.body_need(bare("PUT")) is BodyNeed.STREAM
    assert ADAPTER.body_need(bare("POST")) is BodyNeed.WHOLE
    assert {ADAPTER.body_need(bare(m)) for m in ("GET", "HEAD", "DELETE")} == {BodyNeed.NONE}


@pytest.mark.parametrize(
    "headers", [{"content-length": "3"}, {"transfer-encoding": "chunked"}, {"x-amz-content-sha256": "0" * 64}]
)
def test_a_body_where_none_belongs_is_refused(headers: dict[str, str]) -> None:
    for method in ("GET", "DELETE", "HEAD"):
        with pytest.raises(InvalidRequestError):
            named(bare(method, "/store/mixed/a", headers=headers))


def test_a_document_that_is_not_the_signed_one_is_refused() -> None:
    body = b"<Delete><Object><Key>a</Key></Object></Delete>"
    good = {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
    assert named(bare("POST", "/store/mixed?delete", headers=good), body)
    for bad in (
        {"x-amz-content-sha256": hashlib.sha256(b"").hexdigest()},
        {"content-md5": "AAAA"},
        {"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"},
    ):
        with pytest.raises(InvalidRequestError):
            named(bare("POST", "/store/mixed?delete", headers=bad), body)


@pytest.mark.parametrize(("status", "expected"), [(200, "modify"), (404, "create")])
async def test_a_write_over_an_object_is_a_modification(status: int, expected: str) -> None:
    upstream = FakeUpstream([FakeAnswer(status)])
    request = bare("PUT", "/store/mixed/a%20b.csv")
    naming = await ADAPTER.refine(request, named(request), upstream)
    assert [ask.action for ask in naming.asks] == [expected]
    assert [(sent.method, sent.target) for sent in upstream.sent] == [("HEAD", "/mixed/a%20b.csv")]


async def test_a_read_asks_the_upstream_nothing_before_it_is_decided() -> None:
    upstream = FakeUpstream([])
    request = bare("GET", "/store/mixed/a.csv")
    assert await ADAPTER.refine(request, named(request), upstream) == named(request) or not upstream.sent
    assert not upstream.sent
