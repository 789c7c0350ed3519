"""Mask the named fields of JSON lines as they stream, or of one bounded JSON document."""

from __future__ import annotations

import re

from doorward.gateway.masking.json_text import check_json, mask_json
from doorward.gateway.masking.masker import MAX_RECORD, refuse, utf8

_ODD_KEY = re.compile(rb'"[^"]*[\x80-\xff][^"]*"[ \t]*:')
MAX_DOCUMENT = 8 * 1024 * 1024


class JsonLinesMasker:
    """Blank fields at any depth, one object a line.

    INVARIANT: a line of valid JSON without a backslash has quotes only around strings, so if its keys are
    ASCII a masked key can be found by its text; every other line goes through the exact walk.
    """

    def __init__(self, fields: frozenset[str]) -> None:
        """Mask these fields; the names are plain ones."""
        self.redactions = 0
        self._fields = fields
        self._pending = b""
        names = b"|".join(re.escape(f.encode()) for f in sorted(fields) if f.isascii())
        self._field = re.compile(
            rb'("[ ]*(?:' + (names or rb"(?!)") + rb')[ ]*"[ \t]*:[ \t]*)'
            rb'(?:"([^"]*)"|([-+.0-9eE]+|true|false|null)|([\[{]))',
            re.IGNORECASE,
        )

    def feed(self, data: bytes) -> bytes:
        """Return the masked lines that `data` completes."""
        data = self._pending + data
        end = data.rfind(b"\n") + 1
        self._pending = data[end:]
        if len(self._pending) > MAX_RECORD:
            raise refuse("one of its lines is too long")
        return self._lines(data[:end])

    def finish(self) -> bytes:
        """Return the last line, which may lack its line end."""
        rest, self._pending = self._pending, b""
        return self._lines(rest)

    def _lines(self, block: bytes) -> bytes:
        utf8(block)
        return b"".join([self._line(line) for line in block.splitlines(keepends=True)])

    def _line(self, line: bytes) -> bytes:
        text = line.strip(b" \t\r\n")
        if not text:
            return line
        if text[:1] != b"{":
            raise refuse("one of its lines is not an object with named fields")
        if b"\\" not in line and (line.isascii() or not _ODD_KEY.search(line)):
            check_json(line)
            masked, nested = self._by_text(line)
            if not nested:
                return masked
        masked, count = mask_json(line, self._fields)
        self.redactions += count
        return masked

    def _by_text(self, line: bytes) -> tuple[bytes, bool]:
        nested = False
        count = 0

        def blank(match: re.Match[bytes]) -> bytes:
            nonlocal nested, count
            key, string, scalar, opening = match.groups()
            count += 1
            if string is not None:
                return bytes(key) + b'"' + b"*" * len(string) + b'"'
            if opening is not None:
                nested = True
                return bytes(match.group())
            return bytes(key) + (b"null" if scalar[:1] in b"tfnTFN" else b"0").ljust(len(scalar))

        masked = self._field.sub(blank, line)
        if not nested:
            self.redactions += count
        return masked, nested


class JsonDocumentMasker:
    """Blank fields of one JSON document, which is read whole and bounded."""

    def __init__(self, fields: frozenset[str]) -> None:
        """Mask these fields; the names are plain ones."""
        self.redactions = 0
        self._fields = fields
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bytes:
        """Keep the input; nothing comes out before the end."""
        self._size += len(data)
        if self._size > MAX_DOCUMENT:
            raise refuse(f"it is one JSON document of more than {MAX_DOCUMENT >> 20} MiB")
        self._parts.append(data)
        return b""

    def finish(self) -> bytes:
        """Return the whole document, masked."""
        text = b"".join(self._parts)
        if not text.strip():
            return text
        masked, self.redactions = mask_json(text, self._fields, document=True)
        return masked
