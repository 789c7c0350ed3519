"""Heads of messages: read by two readers that must agree, written by one that lets nothing slip in.

The first reader is a pattern of RFC 9112 in its narrowest form, the second is llhttp without any
leniency. What one of them refuses, or reads otherwise, has no reading.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import httptools

from doorward.core.errors import InvalidRequestError

_REQUEST = re.compile(
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} [!-~]+ HTTP/[0-9]\.[0-9]\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
)
_NO_TOKEN = re.compile(rb"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_MAX_METHOD = 32
_REASONS = {status.value: status.phrase for status in HTTPStatus}

Pairs = list[tuple[bytes, bytes]]


class RequestHead:
    """The head of one request as it stood on the wire; also what llhttp calls while it reads."""

    __slots__ = ("body", "complete", "ended", "headers", "method", "target", "version")

    def __init__(self) -> None:
        """Wait for the parser."""
        self.headers: Pairs = []
        self.target = b""
        self.method = ""
        self.version = (0, 0)
        self.body = 0
        self.complete = self.ended = False

    # Called by llhttp.

    def on_url(self, url: bytes) -> None:
        """Take the request target."""
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what follows a body are trailers, which nobody reads here."""
        if not self.complete:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Note the end of the head."""
        self.complete = True

    def on_body(self, data: bytes) -> None:
        """Count the body, to compare with the other reader."""
        self.body += len(data)

    def on_message_complete(self) -> None:
        """Note the end of the body, to compare with the other reader."""
        self.ended = True


def malformed() -> InvalidRequestError:
    """Return the error for bytes that are no request."""
    return InvalidRequestError("the request is not well-formed HTTP/1.1")


def read_request(data: bytes) -> tuple[RequestHead, httptools.HttpRequestParser]:
    """Read a whole head, its empty line included; raise InvalidRequestError unless both readers take it.

    The parser is returned in the state after the head, to read a chunked body with.
    """
    if _REQUEST.fullmatch(data) is None:
        raise malformed()
    head = RequestHead()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        raise malformed() from None
    # One line, one header: nothing was merged, folded or passed over.
    if not head.complete or len(head.headers) != data.count(b"\r\n") - 2:
        raise malformed()
    method, _, rest = data.partition(b" ")
    version = rest[rest.index(b" ") + 6 :]
    head.method = method.decode("ascii")
    head.version = (version[0] - 48, version[2] - 48)
    return head, parser


def is_hopeless(part: bytes) -> bool:
    """Return whether no continuation of these bytes is a request: then nobody has to wait for one."""
    method = part.partition(b" ")[0]
    return len(method) > _MAX_METHOD or _NO_TOKEN.search(method) is not None or _has_bare_end(part)


def _has_bare_end(part: bytes) -> bool:
    # A CR at the very end may still get its LF.
    whole = part.count(b"\r\n")
    returns = part.count(b"\r") - (1 if part.endswith(b"\r") else 0)
    return part.count(b"\n") != whole or returns != whole or b"\0" in part


def status_line(status: int) -> str:
    """Return the status line of an answer, without its line end."""
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"


def lines(first: str, headers: list[tuple[str, str]]) -> bytes:
    """Write a head; raise ValueError if a name or a value would end a line before its end."""
    text = "\r\n".join([first, *[f"{name}: {value}" for name, value in headers], "", ""])
    ends = len(headers) + 2
    if text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
        raise ValueError("a header would break its line")
    return text.encode("utf-8", "surrogateescape")
