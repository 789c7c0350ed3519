"""Tell by name, declared type and first bytes how an object is masked; what stays unclear is refused."""

from __future__ import annotations

import msgspec

from doorward.gateway.masking.csv_dialect import BOM, CsvDialect, read_dialect
from doorward.gateway.masking.csv_mask import CsvMasker
from doorward.gateway.masking.json_mask import JsonDocumentMasker, JsonLinesMasker
from doorward.gateway.masking.masker import HEAD_BYTES, Masker, MaskRefusedError, refuse, utf8

__all__ = ["HEAD_BYTES", "Labels", "MaskPlan", "MaskRefusedError", "Masker", "plan_mask"]

_BY_ENDING = {
    "csv": "csv", "tsv": "csv", "tab": "csv", "psv": "csv",
    "jsonl": "lines", "ndjson": "lines", "json": "json", "txt": "any",
}  # fmt: skip
_BY_TYPE = {
    "text/csv": "csv", "application/csv": "csv", "text/tab-separated-values": "csv",
    "application/x-ndjson": "lines", "application/ndjson": "lines", "application/jsonl": "lines",
    "application/jsonlines": "lines", "application/x-jsonlines": "lines",
    "application/json": "json", "text/json": "json",
    "text/plain": "any", "application/octet-stream": "any", "binary/octet-stream": "any", "": "any",
}  # fmt: skip
_BINARY = (
    b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"PK\x03\x04", b"BZh9", b"\xfd7zXZ", b"\xff\xfe", b"\xfe\xff",
    b"Obj\x01", b"ARROW1", b"%PDF-", b"\x89HDF", b"\x93NUMPY",
)  # fmt: skip


class Labels(msgspec.Struct, frozen=True):
    """State what an object says of itself: its key and the upstream's headers."""

    key: str
    content_type: str
    content_encoding: str


class MaskPlan(msgspec.Struct, frozen=True):
    """State how one object is masked; good for every later read of the same bytes."""

    kind: str
    fields: frozenset[str]
    dialect: CsvDialect | None = None

    @property
    def resumable(self) -> bool:
        """Return whether masking can start at any record instead of at byte 0."""
        return self.kind != "document"

    def masker(self, offset: int) -> Masker:
        """Return a masker that takes up at `offset`: 0 or the start of a record."""
        if self.dialect is not None:
            return CsvMasker(self.dialect, offset=offset)
        return JsonLinesMasker(self.fields) if self.kind == "lines" else JsonDocumentMasker(self.fields)


def plan_mask(labels: Labels, *, fields: frozenset[str], head: bytes, final: bool) -> MaskPlan:
    """Return the plan for an object; `head` is its first HEAD_BYTES, or all of it if `final`.

    `fields` are plain names. Raise MaskRefusedError for compressed, binary, unknown or contradicting kinds.
    """
    kind = _declared(labels)
    if head.startswith(_BINARY) or b"\0" in head:
        raise refuse("it holds binary data")
    utf8(head if final else head[: head.rfind(b"\n") + 1])
    if kind == "csv":
        return MaskPlan("csv", fields, read_dialect(head, fields, final=final))
    if head.startswith(BOM):
        raise refuse("it is JSON behind a byte order mark")
    if kind == "lines":
        return MaskPlan("lines", fields)
    return MaskPlan("lines" if _is_lines(head) else "document", fields)


def _declared(labels: Labels) -> str:
    if labels.content_encoding.strip().lower() not in {"", "identity", "aws-chunked"}:
        raise refuse("it is compressed")
    media, _, parameters = labels.content_type.partition(";")
    charset = [
        p.split("=", 1)[1].strip(" \"'").lower()
        for p in parameters.split(";")
        if "charset" in p.lower() and "=" in p
    ]
    if any(name not in {"utf-8", "utf8", "us-ascii", "ascii"} for name in charset):
        raise refuse("its text is not UTF-8")
    name = labels.key.rsplit("/", 1)[-1]
    ending = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    by_name = _BY_ENDING.get(ending, "any" if not ending else None)
    by_type = _BY_TYPE.get(media.strip().lower())
    if by_name is None or by_type is None:
        raise refuse("it is neither CSV nor JSON")
    kinds = {by_name, by_type} - {"any"}
    if kinds == {"json", "lines"}:
        kinds = {"lines"}
    if len(kinds) != 1:
        raise refuse("its name and type do not say whether it is CSV or JSON")
    return kinds.pop()


def _is_lines(head: bytes) -> bool:
    """Return whether the first line is a whole object and something follows it."""
    line, end, rest = head.lstrip().partition(b"\n")
    if not end or not rest.strip():
        return False
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return line.startswith(b"{")
