"""Tell from the start of a CSV what separates its cells, what its columns are, and which to blank."""

from __future__ import annotations

import re

import msgspec

from doorward.gateway.masking.csv_records import CsvRecord, read_record
from doorward.gateway.masking.masker import MaskRefusedError, plain, refuse, utf8

BOM = b"\xef\xbb\xbf"
_DELIMITERS = (b",", b";", b"\t", b"|")
_SAMPLE_ROWS = 100
_HEADING = re.compile(r"[^\W\d][\w .\-/()#%]{0,63}")
_MANY_DIGITS = re.compile(r"\d{3}")
_FIGURE = re.compile(r"[+-]?[\d.,:/ TZ+%eE-]*\d[\d.,:/ TZ+%eE-]*")


class CsvDialect(msgspec.Struct, frozen=True):
    """State how to read the rows: cells per row, the columns to blank, and the bytes of BOM and header."""

    delimiter: bytes
    width: int
    columns: tuple[int, ...]
    header: int


def read_dialect(head: bytes, fields: frozenset[str], *, final: bool) -> CsvDialect:
    """Read the header; `fields` are plain names. Raise MaskRefusedError if columns are not certain."""
    start = len(BOM) if head.startswith(BOM) else 0
    if head[start:].lstrip()[:1] in {b"{", b"[", b"<"}:
        raise refuse("it is named like CSV but does not look like it")
    read = _readings(head, start, final=final)
    found = {d: _columns(names, fields) for d, (_, names) in read.items() if _columns(names, fields)}
    if len(set(found.values())) > 1 or len({len(read[d][1]) for d in found}) > 1:
        raise refuse("its header can be split into columns in more than one way")
    chosen = next(iter(found), None)
    if chosen is None:
        chosen = max(read, key=lambda d: len(read[d][1]))
    record, names = read[chosen]
    _check_names(names, fields)
    dialect = CsvDialect(chosen, len(names), found.get(chosen, ()), record.end)
    if not found and record.end > start:
        _check_is_header(head, dialect, names, final=final)
    return dialect


def _readings(head: bytes, start: int, *, final: bool) -> dict[bytes, tuple[CsvRecord, list[str]]]:
    """Read the first row with each separator that can have written it."""
    read: dict[bytes, tuple[CsvRecord, list[str]]] = {}
    problem: MaskRefusedError | None = None
    for delimiter in _DELIMITERS:
        try:
            read[delimiter] = _first(head, start, delimiter, final=final)
        except MaskRefusedError as error:
            problem = error
    if not read and problem is not None:
        raise problem
    return read


def _first(head: bytes, start: int, delimiter: bytes, *, final: bool) -> tuple[CsvRecord, list[str]]:
    record = read_record(head, start, delimiter, final=final)
    if record is None:
        raise refuse("its first row is too long to be a header")
    return record, _texts(head, record)


def _texts(data: bytes, record: CsvRecord) -> list[str]:
    return [utf8(data[a:b]).replace('""', '"') for a, b in record.cells]


def _columns(names: list[str], fields: frozenset[str]) -> tuple[int, ...]:
    return tuple(i for i, name in enumerate(names) if plain(name).strip("\"' ") in fields)


def _check_names(names: list[str], fields: frozenset[str]) -> None:
    # `Customer e-mail;phone` in one cell: a separator we do not know, or a name the policy forgot.
    for name in names:
        bare = plain(name).strip("\"' ")
        for field in fields - {bare}:
            if re.search(rf"(?<!\w){re.escape(field)}(?!\w)", bare):
                raise refuse(f"its column `{name[:80]}` may or may not be the masked `{field}`")


def _check_is_header(head: bytes, dialect: CsvDialect, names: list[str], *, final: bool) -> None:
    """Refuse unless the first row is a header for certain: names above at least one column of figures."""
    headings = [plain(name) for name in names]
    if len(set(headings)) != len(headings) or not all(map(_is_heading, headings)):
        raise refuse("its first row is not a header, so its columns have no names")
    rows = _rows(head, dialect, final=final)
    figures = [all(_FIGURE.fullmatch(row[i]) for row in rows) for i in range(dialect.width)] if rows else []
    if not any(figures):
        raise refuse("its first row names none of the masked columns and may not be a header")


def _is_heading(name: str) -> bool:
    return _HEADING.fullmatch(name) is not None and _MANY_DIGITS.search(name) is None


def _rows(head: bytes, dialect: CsvDialect, *, final: bool) -> list[list[str]]:
    rows: list[list[str]] = []
    position = dialect.header
    while position < len(head) and len(rows) < _SAMPLE_ROWS:
        record = read_record(head, position, dialect.delimiter, final=final)
        if record is None:
            break
        cells = _texts(head, record)
        position = record.end
        if cells == [""]:
            continue
        if len(cells) != dialect.width:
            raise refuse("its first row names none of the masked columns and its rows differ in length")
        rows.append(cells)
    return rows
