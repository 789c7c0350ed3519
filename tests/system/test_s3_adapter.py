"""Stock boto3 against a real S3 store (rclone) behind the whole gateway, with real policies."""

from __future__ import annotations

import hashlib
import io
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError, IncompleteReadError

from support.s3_door import S3Door, opened, rclone, server_context

ORG = """
users:
  dana: { roles: [reader], purposes: [] }
  omar: { roles: [owner], purposes: [] }
  nina: { roles: [none], purposes: [] }
assets:
  Dataset::"store/training": { sensitivity: 1, environment: production, live: true, purposes: [] }
  Dataset::"store/training/secret": { sensitivity: 3, environment: production, live: true, purposes: [] }
  Dataset::"store/payroll": { sensitivity: 3, environment: production, live: true, purposes: [] }
  Model::"store/models": { sensitivity: 1, environment: production }
"""
POLICIES = """
@id("see") permit (principal, action == Doorward::Action::"view", resource) when { resource.sensitivity < 3 };
@id("owner") permit (principal in Doorward::Role::"owner", action, resource);
@id("masked") @mask("email,phone,card")
permit (
  principal in Doorward::Role::"reader", action == Doorward::Action::"read", resource is Doorward::Dataset
)
when { resource.sensitivity < 3 };
@id("weights") @limit("2/minute")
permit (
  principal in Doorward::Role::"reader", action == Doorward::Action::"export", resource is Doorward::Model
);
@id("create-only")
permit (
  principal in Doorward::Role::"reader", action == Doorward::Action::"create", resource is Doorward::Dataset
)
when { resource.sensitivity < 3 };
"""
CSV = "id,name,email,phone,amount\n" + "".join(
    f'{i},"Smith, Jane",jane{i}@example.com,+4179555{i:04d},{i}.50\n'
    if i % 7 == 0
    else f"{i},Omar Ali,omar{i}@example.com,+4179444{i:04d},{i}.25\n"
    for i in range(2000)
)


def masked(text: str) -> str:
    rows = []
    for row in text.splitlines(keepends=True):
        cells = row.rstrip("\n").rsplit(",", 3)
        if cells[1] != "email":
            cells[1], cells[2] = "*" * len(cells[1]), "*" * len(cells[2])
        rows.append(",".join(cells) + "\n")
    return "".join(rows)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    for name, text in {
        "training/people.csv": CSV,
        "training/dir/a b+c;ü~.csv": CSV,
        "training/dir/events.jsonl": '{"id":1,"email":"a@b.c"}\n',
        "training/secret/board.csv": CSV,
        "training/readme.pdf": "%PDF-1.4 jane1@example.com",
        "payroll/all.csv": CSV,
        "models/w1.bin": "weights-1",
        "models/w2.bin": "weights-2",
        "models/w3.bin": "weights-3",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(scope="module")
def door(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Door]:
    log = tmp_path_factory.mktemp("log") / "rclone.log"
    with rclone(root, log) as url, opened(S3Door(url, ORG, POLICIES)) as door:
        yield door


def code(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def get(client: Any, key: str = "people.csv", bucket: str = "training", **more: Any) -> bytes:
    return bytes(client.get_object(Bucket=bucket, Key=key, **more)["Body"].read())


def test_an_owner_gets_the_bytes_as_they_are(door: S3Door) -> None:
    assert get(door.client("omar")) == CSV.encode()


def test_a_reader_gets_every_masked_column_blanked_and_nothing_else_changed(door: S3Door) -> None:
    answer = door.client("dana").get_object(Bucket="training", Key="people.csv")
    assert answer["Body"].read().decode() == masked(CSV)
    assert answer["ContentLength"] == len(CSV)
    assert hashlib.md5(CSV.encode(), usedforsecurity=False).hexdigest() not in str(answer)
    assert not [name for name in answer if name.startswith("Checksum")]
    assert (
        door.log.outcome(answer["ResponseMetadata"]["HTTPHeaders"]["doorward-request-id"])["redactions"]
        == 4000
    )


def test_keys_with_spaces_plus_semicolon_and_umlauts_arrive(door: S3Door) -> None:
    assert get(door.client("omar"), "dir/a b+c;ü~.csv") == CSV.encode()
    assert get(door.client("dana"), "dir/a b+c;ü~.csv").decode() == masked(CSV)


def test_json_lines_are_masked(door: S3Door) -> None:
    assert get(door.client("dana"), "dir/events.jsonl") == b'{"id":1,"email":"*****"}\n'


def test_what_cannot_be_masked_is_denied_with_the_reason(door: S3Door) -> None:
    with pytest.raises(ClientError) as error:
        get(door.client("dana"), "readme.pdf")
    assert code(error) == (403, "AccessDenied")
    assert "must be masked for you" in error.value.response["Error"]["Message"]


@pytest.mark.parametrize("span", ["0-9", "100-2000", "40000-", "-17", "5000-5000", "60000-61000"])
def test_a_range_of_a_masked_object_is_that_range_of_the_masked_bytes(door: S3Door, span: str) -> None:
    whole = masked(CSV).encode()
    answer = door.client("dana").get_object(Bucket="training", Key="people.csv", Range=f"bytes={span}")
    first, _, last = span.partition("-")
    expected = whole[-int(last) :] if not first else whole[int(first) : int(last) + 1 if last else None]
    assert answer["Body"].read() == expected
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert answer["ContentRange"].endswith(f"/{len(whole)}")


def test_a_range_behind_the_end_is_416(door: S3Door) -> None:
    with pytest.raises(ClientError) as error:
        get(door.client("dana"), Range="bytes=99999999-")
    assert code(error) == (416, "InvalidRange")


def test_etags_of_a_masked_object_work_and_are_not_the_originals(door: S3Door) -> None:
    dana, omar = door.client("dana"), door.client("omar")
    seen = dana.head_object(Bucket="training", Key="people.csv")["ETag"]
    read = dana.get_object(Bucket="training", Key="people.csv")["ETag"]
    original = omar.get_object(Bucket="training", Key="people.csv")["ETag"]
    assert seen == read != original
    assert get(dana, IfMatch=read).decode() == masked(CSV)
    for tag, expected in ((original, 412), ('"0"', 412)):
        with pytest.raises(ClientError) as error:
            get(dana, IfMatch=tag)
        assert code(error)[0] == expected
    with pytest.raises(ClientError) as error:
        get(dana, IfNoneMatch=read)
    assert code(error)[0] == 304
    assert get(omar, IfMatch=original) == CSV.encode()
    with pytest.raises(ClientError):
        get(omar, IfMatch=read)


def test_if_range_with_an_old_etag_gets_the_whole_object(door: S3Door) -> None:
    dana = door.client("dana")
    dana.meta.events.register(
        "before-sign.s3.GetObject", lambda request, **_: request.headers.add_header("If-Range", '"old"')
    )
    answer = dana.get_object(Bucket="training", Key="people.csv", Range="bytes=0-9")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_a_list_shows_no_hidden_key_and_no_content_hash(door: S3Door) -> None:
    dana = door.client("dana")
    listed = dana.list_objects_v2(Bucket="training")
    assert [entry["Key"] for entry in listed["Contents"]] == [
        "dir/a b+c;ü~.csv",
        "dir/events.jsonl",
        "people.csv",
        "readme.pdf",
    ]
    assert listed["KeyCount"] == 4
    assert hashlib.md5(CSV.encode(), usedforsecurity=False).hexdigest() not in str(listed)
    top = dana.list_objects_v2(Bucket="training", Delimiter="/")
    assert [prefix["Prefix"] for prefix in top["CommonPrefixes"]] == ["dir/"]
    assert [
        prefix["Prefix"]
        for prefix in door.client("omar").list_objects(Bucket="training", Delimiter="/")["CommonPrefixes"]
    ] == ["dir/", "secret/"]


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
@pytest.mark.parametrize("delimiter", ["", "/"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_of_a_filtered_list_are_full_and_whole(
    door: S3Door, operation: str, delimiter: str, size: int
) -> None:
    pages = list(
        door.client("dana")
        .get_paginator(operation)
        .paginate(Bucket="training", Delimiter=delimiter, PaginationConfig={"PageSize": size})
    )
    names = [e["Key"] for page in pages for e in page.get("Contents", [])]
    names += [e["Prefix"] for page in pages for e in page.get("CommonPrefixes", [])]
    everything = {
        "": ["dir/a b+c;ü~.csv", "dir/events.jsonl", "people.csv", "readme.pdf"],
        "/": ["dir/", "people.csv", "readme.pdf"],
    }
    assert sorted(names) == everything[delimiter]
    assert all(
        len(page.get("Contents", [])) + len(page.get("CommonPrefixes", [])) == size for page in pages[:-1]
    )


def test_buckets_are_filtered(door: S3Door) -> None:
    assert [b["Name"] for b in door.client("dana").list_buckets()["Buckets"]] == ["models", "training"]
    assert [b["Name"] for b in door.client("omar").list_buckets()["Buckets"]] == [
        "models",
        "payroll",
        "training",
    ]


def raw(client: Any, operation: str, **arguments: Any) -> tuple[Any, ...]:
    """Return everything an error says but what is drawn anew for each request."""
    with pytest.raises(ClientError) as error:
        getattr(client, operation)(**arguments)
    response = error.value.response
    headers = response["ResponseMetadata"]["HTTPHeaders"]
    own = {"date", "doorward-request-id", "x-amz-request-id", "content-length"}
    return (
        response["ResponseMetadata"]["HTTPStatusCode"],
        response["Error"]["Code"],
        response["Error"].get("Message"),
        sorted((name, value) for name, value in headers.items() if name not in own),
    )


@pytest.mark.parametrize("operation", ["get_object", "head_object"])
def test_a_hidden_key_is_missing_in_every_detail(door: S3Door, operation: str) -> None:
    dana = door.client("dana")
    hidden = raw(dana, operation, Bucket="training", Key="secret/board.csv")
    assert hidden == raw(dana, operation, Bucket="training", Key="nothing-there.csv")
    assert hidden == raw(dana, operation, Bucket="training", Key="secret/nothing.csv")
    assert hidden == raw(door.client("omar"), operation, Bucket="training", Key="nothing-there.csv")
    assert hidden[0] == 404


def test_a_hidden_bucket_is_missing(door: S3Door) -> None:
    dana = door.client("dana")
    assert raw(dana, "list_objects_v2", Bucket="payroll") == raw(
        dana, "list_objects_v2", Bucket="no-such-bucket"
    )
    assert raw(dana, "head_bucket", Bucket="payroll") == raw(dana, "head_bucket", Bucket="no-such-bucket")
    assert raw(dana, "list_objects_v2", Bucket="payroll")[1] == "NoSuchBucket"


def test_deleting_a_hidden_key_looks_like_deleting_a_missing_one_and_deletes_nothing(
    door: S3Door, root: Path
) -> None:
    dana = door.client("dana")
    hidden, missing = (
        raw(dana, "delete_object", Bucket="training", Key=key) for key in ("secret/board.csv", "nothing.csv")
    )
    assert hidden == missing
    assert (root / "training/secret/board.csv").exists()
    with pytest.raises(ClientError) as error:
        dana.delete_object(Bucket="training", Key="people.csv")
    assert code(error) == (403, "AccessDenied")


def test_put_get_copy_delete_round_trip(door: S3Door, root: Path) -> None:
    omar = door.client("omar")
    omar.put_object(
        Bucket="training", Key="tmp/x y.csv", Body=CSV.encode(), ContentType="text/csv", Metadata={"m": "1"}
    )
    assert (root / "training/tmp/x y.csv").read_text() == CSV
    omar.copy_object(
        Bucket="training", Key="tmp/z+.csv", CopySource={"Bucket": "training", "Key": "tmp/x y.csv"}
    )
    assert get(omar, "tmp/z+.csv") == CSV.encode()
    assert omar.head_object(Bucket="training", Key="tmp/z+.csv")["ContentLength"] == len(CSV)
    deleted = omar.delete_objects(
        Bucket="training", Delete={"Objects": [{"Key": "tmp/x y.csv"}, {"Key": "tmp/z+.csv"}]}
    )
    assert {entry["Key"] for entry in deleted["Deleted"]} == {"tmp/x y.csv", "tmp/z+.csv"}
    assert not list((root / "training").glob("tmp/*.csv"))
    record = [r for r in door.log.of("decision") if len(r.checks) > 1][-1]
    assert [check.action for check in record.checks] == ["delete", "delete"]


def test_multipart_upload_and_download(door: S3Door, root: Path) -> None:
    omar, data = door.client("omar"), bytes(range(256)) * 4 * 1024 * 20
    transfer = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    omar.upload_fileobj(io.BytesIO(data), "models", "big.bin", Config=transfer)
    assert (root / "models/big.bin").read_bytes() == data
    into = io.BytesIO()
    omar.download_fileobj("models", "big.bin", into, Config=transfer)
    assert into.getvalue() == data
    omar.copy(
        {"Bucket": "models", "Key": "big.bin"},
        "models",
        "big2.bin",
        Config=TransferConfig(multipart_threshold=50 << 20),
    )
    assert (root / "models/big2.bin").read_bytes() == data
    omar.delete_objects(Bucket="models", Delete={"Objects": [{"Key": "big.bin"}, {"Key": "big2.bin"}]})


def test_parts_can_be_listed_and_aborted(door: S3Door) -> None:
    omar = door.client("omar")
    upload = omar.create_multipart_upload(Bucket="models", Key="p.bin")["UploadId"]
    omar.upload_part(Bucket="models", Key="p.bin", UploadId=upload, PartNumber=1, Body=b"x" * 10)
    assert len(omar.list_parts(Bucket="models", Key="p.bin", UploadId=upload)["Parts"]) == 1
    omar.abort_multipart_upload(Bucket="models", Key="p.bin", UploadId=upload)


def test_create_is_not_modify(door: S3Door, root: Path) -> None:
    dana = door.client("dana")
    dana.put_object(Bucket="training", Key="new.csv", Body=b"id,email\n1,a@b.c\n")
    with pytest.raises(ClientError) as error:
        dana.put_object(Bucket="training", Key="new.csv", Body=b"changed")
    assert code(error) == (403, "AccessDenied")
    assert (root / "training/new.csv").read_bytes() == b"id,email\n1,a@b.c\n"
    assert door.log.of("decision")[-1].action == "modify"
    (root / "training/new.csv").unlink()


def test_a_masked_object_cannot_be_copied_out(door: S3Door, root: Path) -> None:
    dana = door.client("dana")
    with pytest.raises(ClientError) as error:
        dana.copy_object(
            Bucket="training", Key="mine.csv", CopySource={"Bucket": "training", "Key": "people.csv"}
        )
    assert code(error) == (403, "AccessDenied")
    upload = dana.create_multipart_upload(Bucket="training", Key="mine.csv")["UploadId"]
    with pytest.raises(ClientError) as error:
        dana.upload_part_copy(
            Bucket="training", Key="mine.csv", UploadId=upload, PartNumber=1, CopySource="training/people.csv"
        )
    assert code(error) == (403, "AccessDenied")
    assert not (root / "training/mine.csv").exists()


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 -- our own door
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_presigned_url_reads_and_one_of_a_masked_object_does_not(door: S3Door) -> None:
    arguments = {"Params": {"Bucket": "training", "Key": "people.csv"}, "ExpiresIn": 60}
    assert fetch(door.client("omar").generate_presigned_url("get_object", **arguments)) == (200, CSV.encode())
    status, body = fetch(door.client("dana").generate_presigned_url("get_object", **arguments))
    assert status == 403
    assert b"@example.com" not in body


def test_a_presigned_url_for_longer_than_a_quarter_of_an_hour_or_changed_is_refused(door: S3Door) -> None:
    omar = door.client("omar")
    arguments = {"Bucket": "training", "Key": "people.csv"}
    status, body = fetch(omar.generate_presigned_url("get_object", Params=arguments, ExpiresIn=3600))
    assert status == 401
    assert b"15 minutes" in body
    url = omar.generate_presigned_url("get_object", Params=arguments, ExpiresIn=60)
    assert fetch(url.replace("people.csv", "secret/board.csv"))[0] == 401
    assert fetch(url + "&x=1")[0] == 401


def test_exports_stop_at_their_limit_with_the_sentence_and_within_seconds(door: S3Door) -> None:
    dana = door.client("dana", retries={"mode": "standard", "total_max_attempts": 2})
    assert get(dana, "w1.bin", "models") == b"weights-1"
    assert get(dana, "w2.bin", "models") == b"weights-2"
    with pytest.raises(ClientError) as error:
        get(dana, "w3.bin", "models")
    assert code(error) == (429, "SlowDown")
    assert "limit of policy `weights`" in error.value.response["Error"]["Message"]
    assert int(error.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) > 0


def test_a_wrong_secret_is_refused_with_a_sentence(door: S3Door) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=door.url,
        region_name="us-east-1",
        aws_access_key_id="DWOMAR",
        aws_secret_access_key="guess",
    )
    with pytest.raises(ClientError) as error:
        client.list_buckets()
    assert code(error)[0] == 401
    assert "signature" in error.value.response["Error"]["Message"]


def test_subresources_are_denied(door: S3Door) -> None:
    omar = door.client("omar")
    for operation in (
        "get_bucket_acl",
        "get_bucket_policy",
        "get_bucket_cors",
        "get_bucket_versioning",
        "get_bucket_tagging",
        "list_object_versions",
        "list_multipart_uploads",
        "get_bucket_website",
        "delete_bucket",
        "delete_bucket_policy",
    ):
        with pytest.raises(ClientError) as error:
            getattr(omar, operation)(Bucket="training")
        assert code(error) == (403, "AccessDenied"), operation
    for operation, more in (
        ("get_object_acl", {}),
        ("get_object_tagging", {}),
        ("get_object_torrent", {}),
        ("get_object_attributes", {"ObjectAttributes": ["ETag"]}),
        ("put_object_acl", {"ACL": "public-read"}),
        ("restore_object", {"RestoreRequest": {}}),
    ):
        with pytest.raises(ClientError) as error:
            getattr(omar, operation)(Bucket="training", Key="people.csv", **more)
        assert code(error) == (403, "AccessDenied"), operation
    with pytest.raises(ClientError) as error:
        omar.put_object(Bucket="training", Key="open.csv", Body=b"x", ACL="public-read")
    assert code(error) == (403, "AccessDenied")


def test_an_object_that_turns_unmaskable_far_inside_is_cut_before_the_odd_row(
    door: S3Door, root: Path
) -> None:
    path = root / "training/late.csv"
    path.write_bytes(CSV.encode() * 20 + b"1,x\xff,leak@example.com,1,2\n" + b"1,x,late@example.com,1,2\n")
    with pytest.raises((HTTPClientError, IncompleteReadError, EndpointConnectionError, ClientError, OSError)):
        get(door.client("dana"), "late.csv")
    path.unlink()


def test_a_50_mb_masked_csv_downloads_whole_in_parallel_ranges(
    door: S3Door, root: Path, tmp_path: Path
) -> None:
    copies = 50_000_000 // len(CSV) + 1
    header, rows = CSV.split("\n", 1)
    (root / "training/large.csv").write_text(f"{header}\n" + rows * copies)
    dana = door.client("dana")
    dana.download_file(
        "training", "large.csv", str(tmp_path / "large.csv"), Config=TransferConfig(max_concurrency=10)
    )
    header, rows = masked(CSV).split("\n", 1)
    assert (tmp_path / "large.csv").read_bytes() == f"{header}\n{rows * copies}".encode()
    (root / "training/large.csv").unlink()


def test_a_default_client_shows_the_limit_and_does_not_retry_for_minutes(door: S3Door) -> None:
    settings = {"retries": {}}
    dana = door.client("dana", **settings)
    begun = time.monotonic()
    with pytest.raises(ClientError) as error:  # noqa: PT012 -- the limit is reached within three
        for _ in range(3):
            get(dana, "w1.bin", "models")
    assert code(error) == (429, "SlowDown")
    assert time.monotonic() - begun < 30


@pytest.fixture(scope="module")
def tls_door(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Door]:
    folder = tmp_path_factory.mktemp("tls")
    with (
        rclone(root, folder / "rclone.log") as url,
        opened(S3Door(url, ORG, POLICIES, tls=server_context(folder))) as door,
    ):
        yield door


def test_over_tls_boto3_sends_trailing_checksums_and_they_are_verified(tls_door: S3Door, root: Path) -> None:
    omar, data = tls_door.client("omar"), bytes(range(256)) * 4096 * 12
    sent: list[str] = []
    omar.meta.events.register(
        "before-send.s3", lambda request, **_: sent.append(str(request.headers.get("X-Amz-Content-SHA256")))
    )
    omar.put_object(Bucket="models", Key="tls/small.bin", Body=io.BytesIO(b"small"))
    transfer = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    omar.upload_fileobj(io.BytesIO(data), "models", "tls/big.bin", Config=transfer)
    assert (root / "models/tls/small.bin").read_bytes() == b"small"
    assert (root / "models/tls/big.bin").read_bytes() == data
    assert "STREAMING-UNSIGNED-PAYLOAD-TRAILER" in str(sent)
    assert get(omar, "tls/small.bin", "models") == b"small"
    assert get(tls_door.client("dana")).decode() == masked(CSV)
    omar.delete_objects(
        Bucket="models", Delete={"Objects": [{"Key": "tls/small.bin"}, {"Key": "tls/big.bin"}]}
    )


def test_a_false_trailing_checksum_stores_nothing(tls_door: S3Door, root: Path) -> None:
    omar = tls_door.client("omar")
    with pytest.raises(ClientError) as error:
        omar.put_object(Bucket="models", Key="tls/false.bin", Body=b"x" * 100, ChecksumCRC32="AAAAAA==")
    assert code(error)[0] in {400, 502, 503}
    assert not (root / "models/tls/false.bin").exists()


def test_a_write_sent_twice_is_carried_out_once(door: S3Door, root: Path) -> None:
    omar = door.client("omar")
    kept: list[urllib.request.Request] = []

    def keep(request: Any, **_: Any) -> None:
        headers = {k: v.decode() if isinstance(v, bytes) else v for k, v in request.headers.items()}
        headers.pop("Expect", None)
        kept.append(urllib.request.Request(request.url, headers=headers, method="DELETE"))  # noqa: S310 -- our own door

    omar.put_object(Bucket="training", Key="twice.csv", Body=b"id\n")
    omar.meta.events.register("before-send.s3.DeleteObject", keep)
    omar.delete_object(Bucket="training", Key="twice.csv")
    (root / "training/twice.csv").write_text("id\n")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(kept[0], timeout=10)  # noqa: S310 -- our own door
    assert error.value.code == 401
    assert b"carried out already" in error.value.read()
    (root / "training/twice.csv").unlink()


def test_two_equal_writes_within_a_second_are_both_carried_out(door: S3Door) -> None:
    omar = door.client("omar")
    for _ in range(5):
        omar.put_object(Bucket="training", Key="same.csv", Body=b"id\n")
        omar.delete_object(Bucket="training", Key="same.csv")
