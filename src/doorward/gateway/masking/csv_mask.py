"""Mask the named columns of CSV: fast where no quote stands, exact everywhere."""

from __future__ import annotations

import re

from doorward.gateway.masking.csv_dialect import CsvDialect
from doorward.gateway.masking.csv_records import read_record
from doorward.gateway.masking.masker import MAX_RECORD, refuse, utf8

_STARS = b"*" * 4096


def _stars(length: int) -> bytes:
    return _STARS[:length] if length <= len(_STARS) else b"*" * length


def _regular(dialect: CsvDialect) -> re.Pattern[bytes]:
    """Return a pattern of a whole row with the right number of cells and no odd quote; columns are groups.

    It matches only rows that `read_record` reads with the same cells; any other row is left to it.
    """
    inside, bare = rb'[^"]*+(?:""[^"]*+)*+', rb'[^"\r\n' + re.escape(dialect.delimiter) + rb"]*+"
    other = rb'(?:"' + inside + rb'"|' + bare + rb")"
    blanked = rb'(?:"(' + inside + rb')"|(' + bare + rb"))"
    cells = [blanked if i in dialect.columns else other for i in range(dialect.width)]
    return re.compile(re.escape(dialect.delimiter).join(cells) + rb"\r?\n")


class CsvMasker:
    """Blank cells of the dialect's columns; a row with more or fewer cells than the header is blanked whole.

    INVARIANT: `feed` gives out whole records only, so any offset it reached is a record's start.
    """

    def __init__(self, dialect: CsvDialect, *, offset: int = 0) -> None:
        """Start at `offset`, which is 0 or the start of a record below the header."""
        self.redactions = 0
        self._dialect = dialect
        self._skip = dialect.header if offset == 0 else 0
        self._pending = b""
        self._row = _regular(dialect)
        self._groups = range(1, self._row.groups + 1)

    def feed(self, data: bytes) -> bytes:
        """Return the masked records that `data` completes."""
        return self._advance(data, final=False)

    def finish(self) -> bytes:
        """Return the last record, which may lack its line end."""
        return self._advance(b"", final=True)

    def _advance(self, data: bytes, *, final: bool) -> bytes:
        data = self._pending + data
        out: list[bytes] = []
        if self._skip:
            if len(data) < self._skip and not final:
                self._pending = data
                return b""
            out.append(data[: self._skip])
            data, self._skip = data[self._skip :], 0
        done = self._records(data, out, final=final)
        self._pending = data[done:]
        if len(self._pending) > MAX_RECORD:
            raise refuse("one of its rows is too long")
        utf8(data[:done])
        return b"".join(out)

    def _records(self, data: bytes, out: list[bytes], *, final: bool) -> int:
        """Mask records into `out`; return how far `data` is done."""
        position = 0
        odd = b'\\"' in data
        while position < len(data):
            quote = data.find(b'"', position)
            plain_end = data.rfind(b"\n", position, quote if quote >= 0 else len(data)) + 1
            if plain_end > position:
                out.append(self._plain_rows(data[position:plain_end]))
                position = plain_end
                continue
            end = None if odd else self._regular_row(data, position, out)
            end = end or self._exact_row(data, position, out, final=final)
            if end is None:
                break
            position = end
        return position

    def _plain_rows(self, block: bytes) -> bytes:
        """Mask rows without any quote; each ends with LF, or each with CRLF."""
        returns = block.count(b"\r")
        if not returns:
            return self._split_rows(block, b"\n")
        if returns == block.count(b"\r\n") == block.count(b"\n"):
            return self._split_rows(block, b"\r\n")
        out: list[bytes] = []
        position = 0
        while position < len(block):
            end = self._exact_row(block, position, out, final=True)
            position = len(block) if end is None else end
        return b"".join(out)

    def _split_rows(self, block: bytes, line_end: bytes) -> bytes:
        delimiter, width, columns = self._dialect.delimiter, self._dialect.width, self._dialect.columns
        rows = block.split(line_end)
        rows.pop()
        masked: list[bytes] = []
        append, join, stars, longest = masked.append, delimiter.join, _STARS, len(_STARS)
        for row in rows:
            cells = row.split(delimiter)
            if len(cells) == width:
                for i in columns:
                    size = len(cells[i])
                    cells[i] = stars[:size] if size <= longest else b"*" * size
                append(join(cells))
            elif row:
                self.redactions += len(cells)
                append(join([_stars(len(cell)) for cell in cells]))
            else:
                append(row)
        self.redactions += len(columns) * len(rows)
        masked.append(b"")
        return line_end.join(masked)

    def _regular_row(self, data: bytes, start: int, out: list[bytes]) -> int | None:
        row = self._row.match(data, start)
        if row is None:
            return None
        position = start
        for group in self._groups:
            a, b = row.span(group)
            if a >= 0:
                out += (data[position:a], _stars(b - a))
                position = b
        self.redactions += len(self._dialect.columns)
        out.append(data[position : row.end()])
        return row.end()

    def _exact_row(self, data: bytes, start: int, out: list[bytes], *, final: bool) -> int | None:
        record = read_record(data, start, self._dialect.delimiter, final=final)
        if record is None:
            return None
        cells = record.cells
        blank_line = len(cells) == 1 and cells[0] == (start, start)
        if len(cells) == self._dialect.width:
            cells = tuple(cells[i] for i in self._dialect.columns)
        position = start
        for a, b in () if blank_line else cells:
            out += (data[position:a], _stars(b - a))
            position = b
            self.redactions += 1
        out.append(data[position : record.end])
        return record.end
