"""Chunked bodies: one strict form, found wherever the bytes are cut (attack 24)."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.http1.chunked import ChunkError, ChunkScanner

REFUSED = {
    "hex prefix": b"0x2\r\nhi\r\n0\r\n\r\n",
    "plus": b"+2\r\nhi\r\n0\r\n\r\n",
    "minus": b"-2\r\nhi\r\n0\r\n\r\n",
    "underscore": b"0_2\r\nhi\r\n0\r\n\r\n",
    "space before": b" 2\r\nhi\r\n0\r\n\r\n",
    "space after": b"2 \r\nhi\r\n0\r\n\r\n",
    "tab after": b"2\t\r\nhi\r\n0\r\n\r\n",
    "too long": b"2\r\nhiX\r\n0\r\n\r\n",
    "too short": b"3\r\nhi\r\n0\r\n\r\n",
    "bare newline after size": b"2\nhi\r\n0\r\n\r\n",
    "bare newline after data": b"2\r\nhi\n0\r\n\r\n",
    "bare return": b"2\rhi\r\n0\r\n\r\n",
    "no size": b"\r\nhi\r\n0\r\n\r\n",
    "huge": b"fffffffffffffffff\r\nhi\r\n0\r\n\r\n",
    "nine digits": b"000000002\r\nhi\r\n0\r\n\r\n",
    "extension of nothing": b"2;\r\nhi\r\n0\r\n\r\n",
    "extension with control": b"2;\x00=1\r\nhi\r\n0\r\n\r\n",
    "extension with newline": b"2;\nx\r\nhi\r\n0\r\n\r\n",
    "endless extension": b"2;" + b"a" * 300 + b"\r\nhi\r\n0\r\n\r\n",
    "trailer length": b"0\r\nContent-Length: 3\r\n\r\n",
    "trailer coding": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer credential": b"0\r\nAuthorization: Bearer x\r\n\r\n",
    "trailer without name": b"0\r\n: x\r\n\r\n",
    "trailer folded": b"0\r\nA: x\r\n y\r\n\r\n",
    "trailers without end": b"0\r\n" + b"A: x\r\n" * 3000,
}


def scan(data, cut):
    scanner, found, rest = ChunkScanner(), [], b""
    for start in range(0, len(data), cut):
        if scanner.done:
            rest += data[start : start + cut]
            continue
        pieces, rest = scanner.feed(data[start : start + cut])
        found += pieces
    return b"".join(found), rest, scanner.done


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("cut", [1, 3, 10_000])
def test_what_is_not_the_one_form_is_refused(name, cut):
    with pytest.raises(ChunkError):
        scan(REFUSED[name], cut)


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7, 1000])
def test_data_and_what_follows_are_found_wherever_the_bytes_are_cut(cut):
    data = (
        b'5\r\nhello\r\nA;x=y;z="q r"\r\n0123456789\r\n0\r\nDate: now\r\nX-Sum: 1\r\n\r\nGET / HTTP/1.1\r\n'
    )
    assert scan(data, cut) == (b"hello0123456789", b"GET / HTTP/1.1\r\n", True)


def test_a_megabyte_in_one_byte_chunks_is_refused_early():
    scanner = ChunkScanner()
    with pytest.raises(ChunkError):
        scanner.feed(b"1\r\nx\r\n" * 1_000_000)
    assert scanner.passed < 100_000


def test_a_megabyte_in_ordinary_chunks_is_taken():
    scanner = ChunkScanner()
    for _ in range(1024):
        scanner.feed(b"400\r\n" + b"x" * 1024 + b"\r\n")
    scanner.feed(b"0\r\n\r\n")
    assert (scanner.passed, scanner.done) == (1024 * 1024, True)


class Count:
    def __init__(self):
        self.size, self.done = 0, False

    def on_body(self, data):
        self.size += len(data)

    def on_message_complete(self):
        self.done = True


@given(st.lists(st.sampled_from([*REFUSED.values(), b"1\r\nx\r\n", b"0\r\n\r\n", b"\r", b"\n", b"f", b";"])))
def test_whatever_is_taken_llhttp_takes_alike(parts):
    data = b"".join(parts)
    try:
        found, rest, done = scan(data, 1000)
    except ChunkError:
        return
    if not done:
        return
    count = Count()
    parser = httptools.HttpRequestParser(count)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    parser.feed_data(data[: len(data) - len(rest)])
    assert (count.size, count.done) == (len(found), done)
