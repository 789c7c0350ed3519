"""Where the body of a request ends: found by length, or by two readers of chunks that must agree."""

from __future__ import annotations

import httptools

from doorward.http1.chunked import ChunkError, ChunkScanner
from doorward.http1.heads import RequestHead

_MAX_LENGTH = 18


class Framing:
    """Cut the body of one request out of what a connection brings."""

    __slots__ = (
        "_head",
        "_parser",
        "_remaining",
        "_scanner",
        "closes",
        "done",
        "expects",
        "length",
        "unreadable",
    )

    def __init__(self, head: RequestHead, parser: httptools.HttpRequestParser) -> None:
        """Read how the body is framed; `parser` stands at the end of the head.

        A head in which this is ambiguous is refused before anybody reads the body (`gateway.canonical`).
        """
        self._head, self._parser = head, parser
        self._scanner: ChunkScanner | None = None
        self.length: int | None = 0
        self.expects = self.closes = self.unreadable = False
        for name, value in head.headers:
            match name.lower():
                case b"content-length":
                    # White space around a value is none of it (RFC 9110 §5.5), as for every other reader.
                    self.length = _length(value.strip(b" \t"))
                case b"transfer-encoding":
                    self._scanner = ChunkScanner()
                case b"expect":
                    self.expects = True
                case b"connection" if b"close" in value.lower():
                    self.closes = True
        if head.version == (1, 0):
            self.expects, self.closes = False, True
        if self._scanner is not None:
            self.length = None
        elif self.length is None:
            # No length that means anything: refused by its head, and nothing after it is looked at.
            self.closes = self.unreadable = True
        self._remaining = self.length or 0
        self.done = self.length == 0

    def take(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the pieces of the body in `data` and what follows it; raise ChunkError for bad framing."""
        if self._scanner is not None:
            return self._chunked(self._scanner, data)
        if self.unreadable:
            return [], b""
        rest = b""
        if len(data) > self._remaining:
            data, rest = data[: self._remaining], data[self._remaining :]
        self._remaining -= len(data)
        self.done = not self._remaining
        return [data], rest

    def _chunked(self, scanner: ChunkScanner, data: bytes) -> tuple[list[bytes], bytes]:
        pieces, rest = scanner.feed(data)
        try:
            self._parser.feed_data(data[: len(data) - len(rest)] if rest else data)
        except httptools.HttpParserError:
            raise ChunkError from None
        self.done = scanner.done
        if self.done != self._head.ended or (self.done and self._head.body != scanner.passed):
            raise ChunkError
        return pieces, rest


def _length(value: bytes) -> int | None:
    return int(value) if value.isdigit() and len(value) <= _MAX_LENGTH else None
