"""Raw requests that servers are known to read differently (attacks 22 to 31), and plain ones beside them."""

from __future__ import annotations

GET = b"GET /llm/x HTTP/1.1\r\nHost: gate\r\n"
POST = b"POST /llm/x HTTP/1.1\r\nHost: gate\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
_END = b"0\r\n\r\n"


def _target(target: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nHost: gate\r\n\r\n"


def _host(value: bytes) -> bytes:
    return b"GET /llm/x HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"


def _length(line: bytes, body: bytes = b"hello") -> bytes:
    return POST + line + b"\r\n\r\n" + body


def _coding(line: bytes) -> bytes:
    return POST + line + b"\r\n\r\n5\r\nhello\r\n" + _END


PLAIN = {
    "get": GET + b"\r\n",
    "get with query": _target(b"/llm/x?a=b&c=%20d"),
    "get with space": _target(b"/llm/a%20b"),
    "post": POST + b"Content-Length: 5\r\n\r\nhello",
    "post of nothing": POST + b"Content-Length: 0\r\n\r\n",
    "post in chunks": CHUNKED + b"\r\n5\r\nhello\r\n" + _END,
    "post in two chunks": CHUNKED + b"\r\n5\r\nhello\r\n3;a=b\r\nyou\r\n" + _END,
    "post with trailer": CHUNKED + b"Trailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    "post with space after length": POST + b"Content-Length: 5 \r\n\r\nhello",
    "expect": POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    "close": GET + b"Connection: close\r\n\r\n",
    "old": b"GET /llm/x HTTP/1.0\r\nHost: gate\r\n\r\n",
    "two in a row": (GET + b"\r\n") * 2,
    "many headers": GET + b"".join(b"X-%d: v%d\r\n" % (n, n) for n in range(20)) + b"\r\n",
}

AMBIGUOUS = {
    # 22: both lengths, and codings in disguise
    "both lengths": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + _END,
    "both lengths turned": CHUNKED + b"Content-Length: 4\r\n\r\n" + _END,
    "coding x": _coding(b"Transfer-Encoding: xchunked"),
    "coding after identity": _coding(b"Transfer-Encoding: identity, chunked"),
    "coding before identity": _coding(b"Transfer-Encoding: chunked, identity"),
    "coding identity": _coding(b"Transfer-Encoding: identity"),
    "coding twice": _coding(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    "coding twice differently": _coding(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    "coding in a list twice": _coding(b"Transfer-Encoding: chunked, chunked"),
    "coding quoted": _coding(b'Transfer-Encoding: "chunked"'),
    "coding with parameter": _coding(b"Transfer-Encoding: chunked;a=b"),
    "coding with vertical tab": _coding(b"Transfer-Encoding: \x0bchunked"),
    "coding with form feed": _coding(b"Transfer-Encoding: chunked\x0c"),
    "coding with space before colon": _coding(b"Transfer-Encoding : chunked"),
    "coding with tab before colon": _coding(b"Transfer-Encoding\t: chunked"),
    "coding folded": _coding(b"Transfer-Encoding:\r\n chunked"),
    "coding after bare return": _coding(b"X-A: b\rTransfer-Encoding: chunked"),
    "coding after bare newline": _coding(b"X-A: b\nTransfer-Encoding: chunked"),
    "coding with underscore": POST + b"Transfer_Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n" + _END,
    "coding on 1.0": b"POST /llm/x HTTP/1.0\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n" + _END,
    "coding empty": _coding(b"Transfer-Encoding:"),
    # 23: lengths
    "two lengths": _length(b"Content-Length: 4\r\nContent-Length: 5"),
    "two equal lengths": _length(b"Content-Length: 5\r\nContent-Length: 5"),
    "length list": _length(b"Content-Length: 5, 5"),
    "length list of two": _length(b"Content-Length: 5, 4"),
    "length plus": _length(b"Content-Length: +5"),
    "length minus": _length(b"Content-Length: -5"),
    "length hex": _length(b"Content-Length: 0x5"),
    "length underscore": _length(b"Content-Length: 1_0", b"a" * 10),
    "length dot": _length(b"Content-Length: 5.0"),
    "length exponent": _length(b"Content-Length: 5e0"),
    "length empty": _length(b"Content-Length:"),
    "length huge": _length(b"Content-Length: 99999999999999999999999"),
    "length with inner space": _length(b"Content-Length: 1 0", b"a" * 10),
    "length quoted": _length(b'Content-Length: "5"'),
    "length fullwidth": _length("Content-Length: \uff15".encode()),
    "length space before colon": _length(b"Content-Length : 5"),
    "length folded": _length(b"Content-Length:\r\n 5"),
    # 24: chunks
    "chunk hex prefix": CHUNKED + b"\r\n0x5\r\nhello\r\n" + _END,
    "chunk plus": CHUNKED + b"\r\n+5\r\nhello\r\n" + _END,
    "chunk minus": CHUNKED + b"\r\n-5\r\nhello\r\n" + _END,
    "chunk underscore": CHUNKED + b"\r\n0_5\r\nhello\r\n" + _END,
    "chunk space before": CHUNKED + b"\r\n 5\r\nhello\r\n" + _END,
    "chunk space after": CHUNKED + b"\r\n5 \r\nhello\r\n" + _END,
    "chunk too long": CHUNKED + b"\r\n5\r\nhelloX\r\n" + _END,
    "chunk too short": CHUNKED + b"\r\n6\r\nhello\r\n" + _END,
    "chunk bare newlines": CHUNKED + b"\r\n5\nhello\n0\n\n",
    "chunk extension newline": CHUNKED + b"\r\n5;\nxx\r\nhello\r\n" + _END,
    "chunk extension nul": CHUNKED + b"\r\n5;\x00=1\r\nhello\r\n" + _END,
    "chunk without size": CHUNKED + b"\r\n\r\nhello\r\n" + _END,
    "chunk huge": CHUNKED + b"\r\nfffffffffffffffff\r\nhello\r\n" + _END,
    "chunk wrapping round": CHUNKED + b"\r\n10000000000000005\r\nhello\r\n" + _END,
    "trailer length": CHUNKED + b"\r\n5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "trailer host": CHUNKED + b"\r\n5\r\nhello\r\n0\r\nHost: other\r\n\r\n",
    "trailer credential": CHUNKED + b"\r\n5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
    # 25: paths
    "dots": _target(b"/llm/../store/x"),
    "dots at the end": _target(b"/llm/x/.."),
    "one dot": _target(b"/llm/./x"),
    "encoded dots": _target(b"/llm/%2e%2e/store/x"),
    "half encoded dots": _target(b"/llm/.%2E/store/x"),
    "dots encoded twice": _target(b"/llm/%252e%252e/store/x"),
    "encoded slash": _target(b"/llm%2fx"),
    "encoded backslash": _target(b"/llm/%5cx"),
    "backslash": _target(b"/llm\\x"),
    "two slashes": _target(b"//llm/x"),
    "two slashes inside": _target(b"/llm//x"),
    "parameters": _target(b"/llm/x;y=1"),
    "parameters and dots": _target(b"/llm/..;/store"),
    "encoded nul": _target(b"/llm/x%00"),
    "overlong": _target(b"/llm/%c0%ae%c0%ae/store"),
    "bad escape": _target(b"/llm/%zz"),
    "half an escape": _target(b"/llm/%2"),
    "fullwidth dots": _target(b"/llm/%ef%bc%8e%ef%bc%8e/store"),
    "high bytes": _target(b"/llm/\xe9"),
    "fragment": _target(b"/llm/x#y"),
    "encoded upstream": _target(b"/%6clm/x"),
    # 26: Host
    "two hosts": GET + b"Host: other\r\n\r\n",
    "two equal hosts": GET + b"Host: gate\r\n\r\n",
    "no host": b"GET /llm/x HTTP/1.1\r\n\r\n",
    "host with path": _host(b"x/health?y="),
    "host with fragment": _host(b"gate#@evil"),
    "host with user": _host(b"user@gate"),
    "host with space": _host(b"gate evil"),
    "host with bad port": _host(b"gate:80a"),
    "host list": _host(b"gate, evil"),
    # 27: forms and methods
    "absolute form": _target(b"http://evil/llm/x"),
    "userinfo form": _target(b"@evil/llm"),
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: gate\r\n\r\n",
    "connect": b"CONNECT evil:443 HTTP/1.1\r\nHost: gate\r\n\r\n",
    "trace": b"TRACE /llm/x HTTP/1.1\r\nHost: gate\r\n\r\n",
    "lower-case method": b"get /llm/x HTTP/1.1\r\nHost: gate\r\n\r\n",
    "two spaces": b"GET  /llm/x HTTP/1.1\r\nHost: gate\r\n\r\n",
    "tab for space": b"GET\t/llm/x\tHTTP/1.1\r\nHost: gate\r\n\r\n",
    "version 0.9": b"GET /llm/x\r\n\r\n",
    "version 1.2": b"GET /llm/x HTTP/1.2\r\nHost: gate\r\n\r\n",
    "version 2": b"GET /llm/x HTTP/2.0\r\nHost: gate\r\n\r\n",
    # 28 to 31: headers
    "bare newlines": b"GET /llm/x HTTP/1.1\nHost: gate\n\n",
    "folded header": GET + b"X-A: a\r\n b\r\n\r\n",
    "folded first header": b"GET /llm/x HTTP/1.1\r\n Host: gate\r\n\r\n",
    "nul in value": GET + b"X-A: a\0b\r\n\r\n",
    "bare return in value": GET + b"X-A: a\rb\r\n\r\n",
    "space in name": GET + b"X A: a\r\n\r\n",
    "empty name": GET + b": a\r\n\r\n",
    "no colon": GET + b"X-A\r\n\r\n",
    "two authorizations": GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "hop for host": GET + b"Connection: close, Host\r\n\r\n",
    "hop for length": POST + b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
    "override": POST + b"X-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n\r\n",
    "websocket": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "h2c": GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n",
    "http2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "expectation unknown": POST + b"Expect: 200-ok\r\nContent-Length: 5\r\n\r\nhello",
}
