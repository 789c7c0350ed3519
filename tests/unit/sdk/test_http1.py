from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.sdk.http1 import MOST_BODY, Answer, WireError, request

SIZED = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{"decision": true}'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'9\r\n{"decisio\r\n9;x=y\r\nn": true}\r\n0\r\nTrailer: x\r\n\r\n'
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@given(st.sampled_from([SIZED, CHUNKED, INTERIM + SIZED]), st.lists(st.integers(1, 40), max_size=200))
def test_an_answer_reads_alike_however_it_is_cut(wire: bytes, sizes: list[int]) -> None:
    answer, at = Answer(), 0
    pieces = []
    for size in [*sizes, len(wire)]:
        pieces.append(wire[at : at + size])
        at += size
    whole = [answer.feed(piece) for piece in pieces if piece]
    assert whole[-1] is True
    assert True not in whole[:-1]
    assert (answer.status, answer.body, answer.reusable) == (200, b'{"decision": true}', True)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MOST_BODY + 1),
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ],
)
def test_an_answer_with_another_reading_is_an_error(wire: bytes) -> None:
    with pytest.raises(WireError):
        Answer().feed(wire)


@pytest.mark.parametrize("wire", [SIZED[:-1], CHUNKED[:-1], SIZED[:20], b"", INTERIM])
def test_a_cut_answer_is_an_error(wire: bytes) -> None:
    answer = Answer()
    if wire:
        assert not answer.feed(wire)
    with pytest.raises(WireError):
        answer.feed(b"")


@pytest.mark.parametrize(
    "wire",
    [
        SIZED + b"HTTP/1.1 200 OK\r\n",
        SIZED.replace(b"HTTP/1.1", b"HTTP/1.0"),
        SIZED.replace(b"Content-Type: application/json", b"Connection: Close"),
        CHUNKED + b"x",
    ],
)
def test_a_connection_that_is_not_exactly_at_the_end_is_not_used_again(wire: bytes) -> None:
    answer = Answer()
    assert answer.feed(wire)
    assert answer.body == b'{"decision": true}'
    assert not answer.reusable


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    answer = Answer()
    assert not answer.feed(b"HTTP/1.1 200 OK\r\n\r\n{}")
    assert answer.feed(b"")
    assert (answer.body, answer.reusable) == (b"{}", False)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "✓"])
def test_no_header_value_becomes_another_header(value: str) -> None:
    with pytest.raises(WireError):
        request("/x", "localhost", {"Authorization": value}, b"")
