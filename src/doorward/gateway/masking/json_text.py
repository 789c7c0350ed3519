"""Mask fields of JSON text, token by token, whatever its spelling; what is not strict JSON is refused."""

from __future__ import annotations

import json
import re
from functools import lru_cache

import msgspec

from doorward.gateway.masking.masker import plain, refuse, utf8

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],:]|[^\s{}\[\],:"]++', re.DOTALL)
_STRICT = msgspec.json.Decoder(msgspec.Raw)
_MAX_DEPTH = 200


def check_json(text: bytes) -> None:
    """Raise MaskRefusedError unless `text` is one JSON value (RFC 8259) and nothing else."""
    try:
        _STRICT.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise refuse("a part of it is not JSON") from None


def mask_json(text: bytes, fields: frozenset[str], *, document: bool = False) -> tuple[bytes, int]:
    """Return one JSON value with the values of `fields` blanked, byte for byte, and how many there were.

    Strings become stars, numbers `0`, literals `null`, objects and arrays empty, filled up with spaces.
    `document` also refuses what names its columns in an array, apart from their values.
    """
    check_json(text)
    utf8(text)
    walk = _Walk(text, fields, document=document)
    walk.run()
    return walk.result(), walk.count


class _Walk:
    """Follow the tokens of valid JSON; know at each whether it is a key and whether it is to be blanked."""

    def __init__(self, text: bytes, fields: frozenset[str], *, document: bool) -> None:
        self.count = 0
        self._text = text
        self._fields = fields
        self._document = document
        self._out: list[bytes] = []
        self._copied = 0
        self._objects: list[bool] = []
        self._is_key = False
        self._blank = False
        self._hidden = 0
        self._hidden_from = 0

    def run(self) -> None:
        for match in _TOKEN.finditer(self._text):
            token = match.group()
            if token in (b"{", b"["):
                self._open(token, match.start())
            elif token in (b"}", b"]"):
                self._close(match.end())
            elif token == b",":
                self._is_key = bool(self._objects) and self._objects[-1]
            elif token != b":" and not self._hidden:
                self._scalar(token, match.start(), match.end())

    def result(self) -> bytes:
        self._out.append(self._text[self._copied :])
        return b"".join(self._out)

    def _open(self, token: bytes, start: int) -> None:
        self._objects.append(token == b"{")
        self._is_key = token == b"{"
        if len(self._objects) > _MAX_DEPTH:
            raise refuse("it is nested too deeply")
        if self._blank:
            self._blank = False
            self._hidden, self._hidden_from = len(self._objects), start + 1
        elif self._document and not self._hidden and token == b"[" and self._objects[-2:-1] == [False]:
            raise refuse("it holds rows without field names")

    def _close(self, end: int) -> None:
        if self._hidden == len(self._objects):
            self._replace(self._hidden_from, end - 1, b" " * (end - 1 - self._hidden_from))
            self._hidden = 0
        self._objects.pop()
        self._is_key = False

    def _scalar(self, token: bytes, start: int, end: int) -> None:
        if self._is_key:
            self._is_key = False
            self._blank = _key(token) in self._fields
        elif self._blank:
            self._blank = False
            self._replace(start, end, _blanked(token))
        elif self._document and self._objects and not self._objects[-1]:
            self._check_element(token)

    def _check_element(self, token: bytes) -> None:
        if token[:1] == b'"' and _key(token) in self._fields:
            raise refuse("it names a masked field apart from its values")

    def _replace(self, start: int, end: int, blank: bytes) -> None:
        self._out += (self._text[self._copied : start], blank)
        self._copied = end
        self.count += 1


@lru_cache(maxsize=4096)
def _key(token: bytes) -> str:
    return plain(_string(token))


def _string(token: bytes) -> str:
    return str(json.loads(token))


def _blanked(token: bytes) -> bytes:
    if token[:1] == b'"':
        return b'"' + b"*" * (len(token) - 2) + b'"'
    if token[:1] in b"tfn":
        return b"null".ljust(len(token))
    return b"0".ljust(len(token))
