"""HTTP/1.1 as far as a client of one endpoint needs it, without I/O: threads and event loops share it.

Strict: an answer with two readings is an error (WireError), and an error is a denial. A connection is
used again only if its last answer ended exactly where its length said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MOST_BODY = 8 * 1024 * 1024
_MOST_HEAD = 64 * 1024
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,7})(?:;[^\r\n]*)?")
_NO_BODY = frozenset({204, 304})
_INTERIM = 200


class WireError(OSError):
    """What came back is not one whole HTTP answer."""


def request(path: str, authority: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a POST; raise WireError for a header value that would end the header."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {authority}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise WireError("a header holds a line break")
    try:
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    except UnicodeEncodeError as reason:
        raise WireError("a header holds what no header can") from reason


class Answer:
    """Read one answer from the bytes as they come: `feed` until it returns True."""

    def __init__(self) -> None:
        """Expect the status line."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.begun = False
        self.reusable = False
        self._buffer = bytearray()
        self._length: int | None = None
        self._chunked = False
        self._minor = 1

    def feed(self, data: bytes) -> bool:
        """Take what was received (empty: the other side closed); return whether the answer is whole."""
        self.begun = self.begun or bool(data)
        self._buffer += data
        if not self.status and not self._head():
            if not data:
                raise WireError("the connection closed before the answer")
            return False
        return self._rest(closed=not data)

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MOST_HEAD:
                raise WireError("the answer's headers are too long")
            return False
        first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        found = _STATUS.fullmatch(first)
        if found is None:
            raise WireError("the answer is not HTTP/1.1")
        status, self._minor = int(found[2]), int(found[1])
        if status < _INTERIM:
            if status == 101:  # noqa: PLR2004 -- Switching Protocols: we asked for none
                raise WireError("the answer changes the protocol")
            return self._head()
        self._read_headers(lines)
        self.status = status
        return True

    def _read_headers(self, lines: list[bytes]) -> None:
        for line in lines:
            found = _HEADER.fullmatch(line)
            if found is None:
                raise WireError("the answer has a header that is none")
            name, value = found[1].decode("ascii").lower(), found[2].decode("latin-1")
            if name in self.headers and name in {"content-length", "transfer-encoding"}:
                raise WireError(f"the answer says {name} twice")
            self.headers[name] = value
        length, coding = self.headers.get("content-length"), self.headers.get("transfer-encoding")
        if length is not None and coding is not None:
            raise WireError("the answer's length has two readings")
        if coding is not None and coding.lower() != "chunked":
            raise WireError("the answer's coding is not known")
        if length is not None:
            if not length.isascii() or not length.isdecimal() or len(length) > 9:  # noqa: PLR2004 -- 8 MiB at most
                raise WireError("the answer's length is no number")
            self._length = int(length)
        self._chunked = coding is not None

    def _rest(self, *, closed: bool) -> bool:
        if self.status in _NO_BODY:
            self._length, self._chunked = 0, False
        if self._chunked:
            whole = self._chunks()
        elif self._length is not None:
            whole = self._sized()
        else:
            whole = closed
            self.body = bytes(self._buffer) if closed else b""
        if len(self._buffer) > MOST_BODY or len(self.body) > MOST_BODY or (self._length or 0) > MOST_BODY:
            raise WireError("the answer is too large")
        if closed and not whole:
            raise WireError("the connection closed in the middle of the answer")
        if whole:
            self.reusable = self._may_be_reused(closed=closed)
        return whole

    def _sized(self) -> bool:
        length = self._length or 0
        if len(self._buffer) < length:
            return False
        self.body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return True

    def _chunks(self) -> bool:
        """Take whole chunks off the buffer; a trailer after the last one is read and dropped."""
        while True:
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return False
            found = _CHUNK.fullmatch(bytes(self._buffer[:end]))
            if found is None:
                raise WireError("the answer has a chunk that is none")
            size = int(found[1], 16)
            if size == 0:
                return self._trailer(end)
            after = end + 2 + size
            if len(self._buffer) < after + 2:
                return False
            if self._buffer[after : after + 2] != b"\r\n":
                raise WireError("the answer has a chunk of another length than it says")
            self.body += bytes(self._buffer[end + 2 : after])
            del self._buffer[: after + 2]
            if len(self.body) > MOST_BODY:
                raise WireError("the answer is too large")

    def _trailer(self, end: int) -> bool:
        if self._buffer[end : end + 4] == b"\r\n\r\n":
            del self._buffer[: end + 4]
            return True
        last = self._buffer.find(b"\r\n\r\n", end)
        if last >= 0:
            del self._buffer[: last + 4]
        return last >= 0

    def _may_be_reused(self, *, closed: bool) -> bool:
        """Return whether the connection is exactly at the end of this answer and stays open."""
        kept = "close" not in self.headers.get("connection", "").lower() and self._minor == 1
        sized = self._chunked or self._length is not None
        return kept and sized and not closed and not self._buffer
