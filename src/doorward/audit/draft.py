"""A record frozen to bytes when it is handed over, with holes for what only its place in the log decides.

The usual record is encoded straight from its struct, once; one that holds text beyond ASCII, numbers
that are not whole or anything else unusual takes the long way (`canonical.plain`) to the same form.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import msgspec

from doorward.audit.canonical import canonical, plain
from doorward.core.errors import AuditUnavailableError
from doorward.core.record import DecisionRecord, OutcomeRecord, Record

_fast = msgspec.json.Encoder(order="sorted").encode
# Nobody outside this process ever sees these, so no value of a record can be taken for one.
_HASH, _PREV, _SEQ, _WRITER = (secrets.token_hex(16) for _ in range(4))
_HOLES = {"hash": _HASH, "prev": _PREV, "seq": _SEQ, "writer": _WRITER}
_HASH_HOLE = f'"hash":"{_HASH}",'.encode()
_PREV_HOLE, _SEQ_HOLE, _WRITER_HOLE = (f'"{hole}"'.encode() for hole in (_PREV, _SEQ, _WRITER))
_LONGEST_INTEGER = 2**63
# The parts of these records that nobody has brought into canonical form yet.
_LOOSE = {DecisionRecord: ("network", "session", "request"), OutcomeRecord: ("outcome",)}
_PRINTABLE = bytes(range(0x20, 0x7F))


class Draft:
    """One record as canonical bytes, cut where hash, predecessor, number and writer will stand."""

    __slots__ = ("_before", "_middle", "_numbered", "_rest", "_written", "id", "request_id")

    def __init__(self, record: Record) -> None:
        """Freeze `record` now: what its maker changes later is not what happened.

        Raises AuditUnavailableError for one that is nested too deeply to be written.
        """
        self.id, self.request_id = record.id, record.request_id
        data = _quick(record)
        if data is None:
            data = _at_length(record)
        self._before, _, data = data.partition(_HASH_HOLE)
        self._middle, _, data = data.partition(_PREV_HOLE)
        self._numbered, _, data = data.partition(_SEQ_HOLE)
        self._written, _, self._rest = data.partition(_WRITER_HOLE)

    def sealed(self, *, seq: int, writer: str, previous: str) -> tuple[bytes, str]:
        """Return the record's line and its hash, as `canonical.sealed` does for a document."""
        after = b'%b"%b"%b%d%b"%b"%b' % (
            self._middle, previous.encode(), self._numbered, seq, self._written, writer.encode(), self._rest,
        )  # fmt: skip
        digest = hashlib.sha256(bytes.fromhex(previous) + self._before + after).hexdigest()
        return b'%b"hash":"%b",%b\n' % (self._before, digest.encode(), after), digest


def _document(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__} | _HOLES


def _quick(record: Record) -> bytes | None:
    """Return the bytes of a usual record, None for any other."""
    loose = _LOOSE.get(type(record))
    if loose is None or not all(
        _is_usual(value) for part in loose for value in getattr(record, part).values()
    ):
        return None
    try:
        data: bytes = _fast(_document(record))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    return None if data.translate(None, _PRINTABLE) else data


def _is_usual(value: object) -> bool:
    kind = type(value)
    if kind is int:
        return -_LONGEST_INTEGER <= value < _LONGEST_INTEGER  # type: ignore[operator]  # an int
    if kind is list:
        return all(type(item) is str for item in value)  # type: ignore[attr-defined]  # a list
    return kind is str or kind is bool or value is None


def _at_length(record: Record) -> bytes:
    try:
        document: dict[str, Any] = plain(msgspec.to_builtins(record))
    except RecursionError as reason:
        raise AuditUnavailableError("the record is nested too deeply to be written") from reason
    return canonical(document | _HOLES)
