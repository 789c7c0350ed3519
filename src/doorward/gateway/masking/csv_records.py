"""Find the cells of one CSV record, exactly (RFC 4180), and refuse what readers disagree about."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from doorward.gateway.masking.masker import refuse

Span = tuple[int, int]

_QUOTED = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')
_LATE_QUOTE = re.compile(rb'(?:[ \t\x0b\x0c]|\xc2\xa0)+"')
_QUOTE, _CR, _LF = b'"', b"\r", b"\n"


class CsvRecord(msgspec.Struct, frozen=True):
    """State one record: the spans of its cells (quotes excluded) and where the next record starts."""

    cells: tuple[Span, ...]
    end: int


@lru_cache(maxsize=16)
def _unquoted(delimiter: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"[^\r\n" + re.escape(delimiter) + rb"]*+")


def read_record(data: bytes, start: int, delimiter: bytes, *, final: bool) -> CsvRecord | None:
    """Return the record at `start`, or None if it may go on behind the end of `data`.

    `final` says that nothing follows `data`. Raise MaskRefusedError where a record has two readings:
    text beside a quoted cell, a quote after leading space, a backslash before a quote, a lone CR.
    """
    cells: list[Span] = []
    position = start
    while True:
        span, position = _cell(data, position, delimiter)
        if span is None:
            if final:
                raise refuse("a quoted cell in it never ends")
            return None
        cells.append(span)
        following = data[position : position + 1]
        if following == delimiter:
            position += 1
            continue
        if following == _CR and position + 1 == len(data) and not final:
            return None
        end = _record_end(data, position, final=final)
        if end is not None and b'\\"' in data[start:end]:
            raise refuse("a backslash stands before a quote in it, which readers take in two ways")
        return None if end is None else CsvRecord(tuple(cells), end)


def _cell(data: bytes, position: int, delimiter: bytes) -> tuple[Span | None, int]:
    if data[position : position + 1] == _QUOTE:
        match = _QUOTED.match(data, position)
        return (None, position) if match is None else ((position + 1, match.end() - 1), match.end())
    match = _unquoted(delimiter).match(data, position)
    end = position if match is None else match.end()
    if _LATE_QUOTE.match(data, position, end):
        raise refuse("a quote stands after a space in it, which readers take in two ways")
    return (position, end), end


def _record_end(data: bytes, position: int, *, final: bool) -> int | None:
    following = data[position : position + 2]
    if following[:1] == _LF:
        return position + 1
    if following == _CR + _LF:
        return position + 2
    if not following:
        return position if final else None
    if following[:1] == _CR:
        raise refuse("it holds a carriage return without a line feed, which readers take in two ways")
    raise refuse("text stands beside a quoted cell in it, which readers take in two ways")
