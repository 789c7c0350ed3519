"""S3's XML is read in bounded time, whatever it holds."""

from __future__ import annotations

import time

import pytest

from doorward.core.errors import InvalidRequestError
from doorward.gateway.protocols.s3_xml import read_xml
from doorward.gateway.refusal import of_error


def test_a_document_of_nothing_but_tags_is_refused_before_it_is_built() -> None:
    started = time.monotonic()
    with pytest.raises(InvalidRequestError, match="too many elements"):
        read_xml(b"<Delete>" + b"<a/>" * 1_000_000 + b"</Delete>")
    assert time.monotonic() - started < 0.5


def test_ten_thousand_parts_are_read() -> None:
    part = "<Part><PartNumber>1</PartNumber><ETag>x</ETag><ChecksumCRC32>y</ChecksumCRC32></Part>"
    text = f"<CompleteMultipartUpload>{part * 10_000}</CompleteMultipartUpload>"
    assert len(read_xml(text.encode())) == 10_000


@pytest.mark.parametrize("body", [b"", b"<a>", b"<!DOCTYPE a><a/>", b"\xff", b"<a>" * 3])
def test_broken_xml_is_the_callers_mistake(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as broken:
        read_xml(body)
    assert of_error(broken.value, "r1").status == 400
