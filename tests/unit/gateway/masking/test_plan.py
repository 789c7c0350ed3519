"""What an object says it is, and what it is: unclear means no."""

from __future__ import annotations

import gzip

import pytest

from doorward.gateway.masking.plan import Labels, MaskRefusedError, plan_mask

FIELDS = frozenset({"email"})
CSV, LINES, DOCUMENT = b"id,email\n1,a@b\n", b'{"email":"a"}\n{"email":"b"}\n', b'{"email": "a"}'


def kind(key: str, content_type: str = "", content_encoding: str = "", head: bytes = CSV) -> str:
    return plan_mask(Labels(key, content_type, content_encoding), fields=FIELDS, head=head, final=True).kind


@pytest.mark.parametrize(
    ("key", "content_type", "head", "expected"),
    [
        ("a.csv", "", CSV, "csv"),
        ("d/a.CSV", "text/csv; charset=UTF-8", CSV, "csv"),
        ("part-0", "text/csv", CSV, "csv"),
        ("a.csv", "binary/octet-stream", CSV, "csv"),
        ("a.txt", "text/csv", CSV, "csv"),
        ("a.tsv", "text/tab-separated-values", CSV, "csv"),
        ("a.jsonl", "", LINES, "lines"),
        ("a.ndjson", "application/json", LINES, "lines"),
        ("a.json", "", LINES, "lines"),
        ("a.json", "application/json", DOCUMENT, "document"),
        ("part-0", "application/x-ndjson", LINES, "lines"),
    ],
)
def test_kinds_are_told_by_name_type_and_content(
    key: str, content_type: str, head: bytes, expected: str
) -> None:
    assert kind(key, content_type, head=head) == expected


@pytest.mark.parametrize(
    ("key", "content_type", "content_encoding"),
    [
        ("a.parquet", "", ""),
        ("a", "", ""),
        ("a.txt", "text/plain", ""),
        ("a.csv.gz", "", ""),
        ("a.csv", "application/json", ""),
        ("a.json", "text/csv", ""),
        ("a.csv", "", "gzip"),
        ("a.csv", "", "zstd"),
        ("a.csv", "", "identity, br"),
        ("a.csv", "text/csv; charset=utf-16", ""),
        ("a.csv", "text/csv; CHARSET=latin1", ""),
        ("a.csv", "text/html", ""),
        ("a.xlsx", "text/csv", ""),
        ("a.csv.zst", "text/csv", ""),
        ("csv", "", ""),
        ("a.csv/data", "", ""),
    ],
)
def test_what_is_not_clearly_text_is_refused(key: str, content_type: str, content_encoding: str) -> None:
    with pytest.raises(MaskRefusedError):
        kind(key, content_type, content_encoding)


@pytest.mark.parametrize(
    "head",
    [
        gzip.compress(CSV, mtime=0),
        b"PAR1" + b"x" * 20,
        b"PK\x03\x04zip",
        b"\x28\xb5\x2f\xfdzstd",
        b"\xff\xfei\x00d\x00",
        b"id,email\n1,\xe4\n",
    ],
)
def test_content_that_belies_the_name_is_refused(head: bytes) -> None:
    with pytest.raises(MaskRefusedError):
        kind("a.csv", "text/csv", head=head)
