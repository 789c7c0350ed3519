"""Heads: two readers that must agree, and a writer that lets nothing slip in."""

from __future__ import annotations

import pytest

from doorward.core.errors import InvalidRequestError
from doorward.http1.heads import is_hopeless, lines, read_request

GET = b"GET /llm/x HTTP/1.1\r\nHost: gate\r\n"


def test_a_head_is_read_as_it_stands():
    head, _ = read_request(b"POST /a%20b?c=d HTTP/1.1\r\nHost: gate\r\nX-A:  b c \r\nX-Empty:\r\n\r\n")
    assert (head.method, head.target, head.version) == ("POST", b"/a%20b?c=d", (1, 1))
    assert [name for name, _ in head.headers] == [b"Host", b"X-A", b"X-Empty"]
    assert head.headers[1][1].strip() == b"b c"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /llm/x HTTP/1.1\nHost: gate\n\r\n\r\n",
        GET + b"X-A: a\r\n b\r\n\r\n",
        GET + b"X-A : a\r\n\r\n",
        GET + b" X-A: a\r\n\r\n",
        GET + b"X-A\r\n\r\n",
        GET + b"X-A: a\0\r\n\r\n",
        GET + b"X-A: a\rb\r\n\r\n",
        GET + b": a\r\n\r\n",
        GET + b"X-\xc3\xa9: a\r\n\r\n",
        b"GET  /llm/x HTTP/1.1\r\nHost: gate\r\n\r\n",
        b"GET /llm/x  HTTP/1.1\r\nHost: gate\r\n\r\n",
        b"GET /llm /x HTTP/1.1\r\nHost: gate\r\n\r\n",
        b"GET\t/llm/x\tHTTP/1.1\r\nHost: gate\r\n\r\n",
        b"GET /llm/x HTTP/1.1 \r\nHost: gate\r\n\r\n",
        b"GET /llm/x HTTP/1.10\r\nHost: gate\r\n\r\n",
        b"GET /llm/x http/1.1\r\nHost: gate\r\n\r\n",
        b"GET /llm/x\r\n\r\n",
        b"GET /llm/\xe9 HTTP/1.1\r\nHost: gate\r\n\r\n",
        b"G@T /llm/x HTTP/1.1\r\nHost: gate\r\n\r\n",
    ],
)
def test_what_has_no_reading_is_refused(data):
    with pytest.raises(InvalidRequestError):
        read_request(data)


@pytest.mark.parametrize(
    "part", [b"\x16\x03\x01\x02", b"GET / HTTP/1.1\nHost", b"GET / HTTP/1.1\r\nA: \0", b"a" * 40, b"{"]
)
def test_nobody_waits_for_the_rest_of_what_can_be_no_request(part):
    assert is_hopeless(part)


@pytest.mark.parametrize("size", range(1, len(GET) + 1))
def test_the_beginning_of_a_request_is_waited_for(size):
    assert not is_hopeless(GET[:size])


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-A", "a\r\nX-B: c"), ("X-A", "a\nb"), ("X-A", "a\rb"), ("X\r\nB", "c"), ("X-A", "\0")],
)
def test_no_header_ends_its_line_early(name, value):
    with pytest.raises(ValueError, match="break its line"):
        lines("HTTP/1.1 200 OK", [(name, value)])


def test_a_head_is_written_line_by_line():
    assert (
        lines("HTTP/1.1 200 OK", [("A", "b"), ("C", "é")])
        == "HTTP/1.1 200 OK\r\nA: b\r\nC: é\r\n\r\n".encode()
    )
