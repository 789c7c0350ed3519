from __future__ import annotations

import pytest

from doorward.core.errors import InvalidRequestError
from doorward.core.wire import NoBody, Peer
from doorward.gateway.canonical import Head, opaque_after, read

HOST = (b"Host", b"gate.example:8640")


def reading(target="/llm/v1/models", *headers, method="GET", version=(1, 1), host=HOST):
    fields = (*((host,) if host else ()), *headers)
    head = Head(method=method, target=target, version=version, headers=fields)
    return read(head, id="r1", peer=Peer(ip="127.0.0.1"), body=NoBody(), opaque={"store": 2})


def test_a_plain_request_is_read_as_it_stands():
    request = reading("/llm/v1/models/a%20b?x=1&y=a%2Bb&z", (b"Accept", b" */* "))
    assert request.path == "/llm/v1/models/a b"
    assert request.raw_path == "/llm/v1/models/a%20b"
    assert request.query == (("x", "1"), ("y", "a+b"), ("z", ""))
    assert request.raw_query == "x=1&y=a%2Bb&z"
    assert request.headers == (("host", "gate.example:8640"), ("accept", "*/*"))
    assert request.host == "gate.example:8640"


@pytest.mark.parametrize(
    "path",
    [
        "/llm/%2e%2e/x", "/llm/%2E%2E/x", "/llm/.%2e/x", "/llm/../x", "/llm/./x", "/llm/..", "/llm/.", "/..",
        "/llm/%252e%252e/x", "/llm/a%2fb", "/llm/a%2Fb", "/llm/a%5cb", "/llm/a\\b", "/llm//x", "//llm/x",
        "//",
        "/llm/;x=1", "/llm/a;b=1/c", "/llm/a%3bb", "/llm/a%00b", "/llm/%0d%0aX:y", "/llm/a%1fb", "/llm/a%7fb",
        "/llm/%c2%85", "/llm/%e2%80%a8", "/llm/%zz", "/llm/%", "/llm/%4", "/llm/%c0%ae%c0%ae/x",
        "/llm/%e0%80%af",
        "/llm/%ff", "/llm/%ed%a0%80", "/llm/\u00e9", "/llm/%ef%bc%8e%ef%bc%8e/x", "/llm/%ef%bc%8fadmin",
        "/llm/%e2%80%a5/x", "/llm/a#b", "/llm/a%25b", "http://evil/a", "@evil/a", "*", "evil:443", "",
        "llm/x",
        "/llm/a b", "/llm/<x>", '/llm/"x"', "/llm/%20..%20/x", "/llm/..%20/x",
    ],
)  # fmt: skip
def test_a_path_with_two_readings_is_refused(path):
    with pytest.raises(InvalidRequestError):
        reading(path)


@pytest.mark.parametrize(
    "query", ["a=%zz", "a=%00", "a=%0d%0ab", "a=1;b=2", "a=%ff", "a=\u00e9", "_method=DELETE", "a#b"]
)
def test_a_query_with_two_readings_is_refused(query):
    with pytest.raises(InvalidRequestError):
        reading(f"/llm/x?{query}")


@pytest.mark.parametrize(
    "headers",
    [
        [HOST], [(b"host", b"other")],
        [(b"Authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
        [(b"Content-Length", b"1"), (b"Content-Length", b"2")], [(b"Content-Length", b"1"),
        (b"Content-Length", b"1")],
        [(b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")],
        *[[(b"Content-Length", value)] for value in (b"+5", b"0x5", b"1_0", b"-1", b"", b"5,5", b"9" * 19,
        b"\xb2")],
        *[[(b"Transfer-Encoding", value)]
          for value in (b"identity", b"xchunked", b"chunked, identity", b"gzip, chunked", b"chunked,", b"")],
        [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")],
        [(b"Content-Type", b"text/plain"), (b"Content-Type", b"application/json")],
        [(b"Doorward-Purpose", b"a"), (b"Doorward-Purpose", b"b")],
        [(b"X-HTTP-Method-Override", b"DELETE")], [(b"X-Method-Override", b"PUT")], [(b"X-HTTP-Method",
        b"PUT")],
        [(b"Upgrade", b"websocket")], [(b"Upgrade", b"h2c")], [(b"Expect", b"200-maybe")],
        [(b"Connection", b"close, Authorization")], [(b"Connection", b"Content-Length")],
        [(b"X-Y", b"a\0b")], [(b"X-Y", b"a\rb")], [(b"X-Y", b"a\nb")], [(b"X Y", b"a")], [(b"X-Y:", b"a")],
        [(b"X-Y", b"\xff")],
    ],
)  # fmt: skip
def test_headers_with_two_readings_are_refused(headers):
    with pytest.raises(InvalidRequestError):
        reading("/llm/x", *headers)


@pytest.mark.parametrize(
    "host",
    [
        b"x/health?y=",
        b"a@b",
        b"#@x",
        b"",
        b"a b",
        b"a,b",
        b"gate:port",
        b"gate:123456",
        b"-",
        b"[zz]",
        b"a\\b",
    ],
)
def test_a_host_that_is_no_host_is_refused(host):
    with pytest.raises(InvalidRequestError):
        reading(host=(b"Host", host))


def test_a_missing_host_is_refused():
    with pytest.raises(InvalidRequestError):
        reading(host=None)


@pytest.mark.parametrize("host", [b"127.0.0.1:8640", b"localhost", b"[::1]:8640", b"gate.example"])
def test_plain_hosts_are_read(host):
    assert reading(host=(b"Host", host)).host == host.decode()


@pytest.mark.parametrize("method", ["get", "TRACE", "CONNECT", "PROPFIND", "GET ", "", "Post"])
def test_odd_methods_are_refused(method):
    with pytest.raises(InvalidRequestError):
        reading(method=method)


def test_http_1_0_may_not_be_chunked():
    with pytest.raises(InvalidRequestError):
        reading("/llm/x", (b"Transfer-Encoding", b"chunked"), version=(1, 0))


def test_two_lines_of_an_ordinary_header_are_both_kept():
    request = reading("/llm/x", (b"Accept", b"a"), (b"Accept", b"b"))
    assert [value for name, value in request.headers if name == "accept"] == ["a", "b"]


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ("a%20b.csv", "a b.csv"), ("a%2Bb", "a+b"), ("a%3Bb", "a;b"), ("2026/11/x.csv", "2026/11/x.csv"),
        ("%C3%A9.csv", "é.csv"), ("e%CC%81.csv", "e\u0301.csv"), ("a%25b", "a%b"), ("a%252e", "a%2e"),
        ("(a)'!*", "(a)'!*"), ("%28a%29", "(a)"), ("x=1,y:2@z&$", "x=1,y:2@z&$"), ("dir/", "dir/"), ("...",
        "..."),
    ],
)  # fmt: skip
def test_an_object_key_is_decoded_once_and_forwarded_as_received(raw, key):
    request = reading(f"/store/bucket/{raw}")
    assert request.path == f"/store/bucket/{key}"
    assert request.raw_path == f"/store/bucket/{raw}"


@pytest.mark.parametrize(
    "raw",
    [
        "a/../b", "..", ".", "a/./b", "%2e%2e/b", "a/%2E%2E", "a%2Fb", "a%2fb", "a//b", "/a", "a+b", "a;b",
        "%41",
        "a%2bb", "%2E", "a%7Eb", "a%00", "a%0A", "a%5Cb", "a\\b", "%ff", "%zz", "%C0%AE",
        "%EF%BC%8E%EF%BC%8E/a",
        "%E2%80%A5", "%20../x",
    ],
)  # fmt: skip
def test_an_object_key_with_two_spellings_is_refused(raw):
    with pytest.raises(InvalidRequestError):
        reading(f"/store/bucket/{raw}")


def test_only_the_key_is_opaque_not_the_bucket():
    with pytest.raises(InvalidRequestError):
        reading("/store/buck%25et/a")


def test_opaque_spans_belong_to_object_stores_only():
    assert opaque_after("s3") == 2
    assert opaque_after("openai") is None


@pytest.mark.parametrize("target", ["/%6clm/v1/models", "/ll%6D/v1/models", "/%73tore/b/k"])
def test_the_upstreams_name_is_found_as_it_stands(target):
    # It is cut off before the rest is sent on: another spelling of it would be sent on whole.
    with pytest.raises(InvalidRequestError, match="upstream's name"):
        reading(target)
