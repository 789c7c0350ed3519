"""Find where a chunked body ends, in the one strict form (RFC 9112 §7.1), and take its data out."""

from __future__ import annotations

import re

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;%b(?:=(?:%b|\"[\t !#-\[\]-~]*\"))?)*" % (_TOKEN, _TOKEN))
_TRAILER = re.compile(rb"(%b):[\t\x20-\x7e\x80-\xff]*" % _TOKEN)
_MAX_LINE = 256
_MAX_TRAILERS = 8 * 1024
# Framing may outweigh what it frames by this much: a megabyte in one-byte chunks is an attack on CPUs.
_MAX_OVERHEAD = 64 * 1024
# A trailer that would change how the message is read, or who sent it (RFC 9110 §6.5.1).
_NEVER_LATE = frozenset(
    {
        b"transfer-encoding", b"content-length", b"host", b"authorization", b"content-type", b"connection",
        b"content-encoding", b"content-range", b"trailer", b"te", b"upgrade", b"cookie", b"x-api-key",
        b"dpop",
    }
)  # fmt: skip


class ChunkError(ValueError):
    """The framing of a chunked body is not the one strict form."""


class ChunkScanner:
    """Take raw bytes, give data; trailers are checked and dropped."""

    __slots__ = ("_held", "_overhead", "_passed", "_remaining", "_trailers", "done")

    def __init__(self) -> None:
        """Wait for the first chunk."""
        self._held = b""
        # Bytes of the present chunk still to come, its closing CRLF counted; 0 between chunks.
        self._remaining = 0
        self._trailers = -1
        self._overhead = 0
        self._passed = 0
        self.done = False

    @property
    def passed(self) -> int:
        """Return how many bytes of data were taken out so far."""
        return self._passed

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the pieces of data in `data`, and what follows the body; raise ChunkError."""
        raw, position = self._held + data, 0
        self._held = b""
        pieces: list[bytes] = []
        while position < len(raw) and not self.done:
            if self._remaining:
                position = self._data(raw, position, pieces)
                continue
            end = raw.find(b"\r\n", position, position + _MAX_LINE)
            if end < 0:
                if len(raw) - position >= _MAX_LINE:
                    raise ChunkError
                self._held = raw[position:]
                break
            self._line(raw[position:end])
            position = end + 2
        return pieces, raw[position:] if self.done else b""

    def _data(self, raw: bytes, position: int, pieces: list[bytes]) -> int:
        body = min(self._remaining - 2, len(raw) - position)
        if body > 0:
            pieces.append(raw[position : position + body])
            self._passed += body
            self._remaining -= body
            position += body
        while 0 < self._remaining <= 2 and position < len(raw):  # noqa: PLR2004 -- CR, LF
            if raw[position] != b"\r\n"[2 - self._remaining]:
                raise ChunkError
            self._remaining -= 1
            position += 1
        return position

    def _line(self, line: bytes) -> None:
        if self._trailers >= 0:
            self._trailer(line)
            return
        found = _SIZE.fullmatch(line)
        if found is None:
            raise ChunkError
        self._overhead += len(line) + 4
        if self._overhead > _MAX_OVERHEAD + self._passed:
            raise ChunkError
        size = int(found[1], 16)
        if size:
            self._remaining = size + 2
        else:
            self._trailers = 0

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailers += len(line)
        found = _TRAILER.fullmatch(line)
        if found is None or found[1].lower() in _NEVER_LATE or self._trailers > _MAX_TRAILERS:
            raise ChunkError
