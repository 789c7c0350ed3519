"""What to look for in the log: every condition that is set must hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from doorward.core.clock import rfc3339
from doorward.core.errors import InvalidRequestError
from doorward.core.model import EntityUid

_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """State conditions on a record; empty ones hold. Times are RFC 3339 as records carry them.

    `principal` and `resource` are a name (`dana`) or an entity (`User::"dana"`); `text` is looked
    for, without regard to case, in everything the record says.
    """

    principal: str = ""
    decision: str = ""
    action: str = ""
    resource: str = ""
    code: str = ""
    kind: str = ""
    request_id: str = ""
    since: str = ""
    until: str = ""
    text: str = ""

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Return whether a record meets every condition."""
        exact = ("decision", "code", "kind", "request_id")
        return (
            all(getattr(self, name) in {"", record.get(name)} for name in exact)
            and (not self.since or record["time"] >= self.since)
            and (not self.until or record["time"] < self.until)
            and _names(record, "principal", self.principal)
            and _names(record, "action", self.action)
            and _names(record, "resource", self.resource)
            and (not self.text or self.text.casefold() in _said(record))
        )

    def rules_out(self, line: bytes) -> bool:
        """Return whether a raw line cannot match, without reading it as JSON."""
        return bool(self.request_id) and self.request_id.encode("ascii", "replace") not in line


def moment(text: str, now: datetime) -> str:
    """Read a time: RFC 3339, a date, or how long ago (`15m`, `2h`, `7d`); raise InvalidRequestError."""
    if not text:
        return ""
    if ago := _AGO.fullmatch(text):
        return rfc3339((now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).astimezone(UTC))
    try:
        given = datetime.fromisoformat(text)
    except ValueError as reason:
        raise InvalidRequestError(
            f"`{text}` is not a time", hint="Write 2026-11-23T08:00:00Z, 2026-11-23, or 15m, 2h, 7d ago."
        ) from reason
    return rfc3339((given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC))


def _names(record: Mapping[str, Any], field: str, wanted: str) -> bool:
    if not wanted:
        return True
    values = [record.get(field), *(check.get(field) for check in record.get("checks", ()))]
    if field == "principal":
        values += record.get("actor", ())
    return any(isinstance(value, str) and _is(value, wanted) for value in values)


def _is(value: str, wanted: str) -> bool:
    if value == wanted:
        return True
    try:
        uid = EntityUid.parse(value)
    except InvalidRequestError:
        return False
    return wanted in {uid.id, str(uid), uid.cedar}


def _said(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False).casefold()
