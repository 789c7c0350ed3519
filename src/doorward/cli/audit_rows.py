"""Records as rows for people: short enough for 80 columns, with full names and ids where there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from doorward.cli.output import table, width

# From here on a whole request id fits beside the rest.
_ROOMY = 130
_COLUMNS = ("time UTC", "verdict", "who", "action", "what", "why")
_PLAIN = frozenset({"User", "Model", "Dataset", "Endpoint", "Tool"})
_UNWRAPPED = ("time UTC", "verdict", "action", "request")


def show(records: Iterable[Mapping[str, Any]], *, today: date, wide: bool, header: bool) -> bool:
    """Print records as a table; return whether there were any."""
    wide = wide or width() >= _ROOMY
    rows = [_wide(record) if wide else _short(record, today) for record in records]
    if rows:
        columns = (*_COLUMNS, "request") if wide else _COLUMNS
        table(columns, rows, unwrapped=_UNWRAPPED, header=header)
    return bool(rows)


def _short(record: Mapping[str, Any], today: date) -> tuple[str, ...]:
    day, _, time = str(record["time"]).partition("T")
    return (
        time[:8] if day == today.isoformat() else f"{day[5:]} {time[:5]}",
        _verdict(record), _name(str(record.get("principal", ""))), str(record.get("action", "")),
        _name(str(record.get("resource", ""))), _why(record),
    )  # fmt: skip


def _wide(record: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(record["time"])[:19].replace("T", " "), _verdict(record), str(record.get("principal", "")),
        str(record.get("action", "")), str(record.get("resource", "")), _why(record),
        str(record["request_id"]),
    )  # fmt: skip


def _verdict(record: Mapping[str, Any]) -> str:
    match record.get("decision"):
        case "deny":
            return "DENY"
        case str(decision) if decision:
            return decision
    if record["kind"] == "outcome":
        return f"  {record.get('outcome', {}).get('status', '')}"
    return str(record.get("event") or record["kind"])


def _name(entity: str) -> str:
    """Shorten `User::"dana"` to `dana`; only kinds that the name does not make plain stay in front."""
    kind, separator, quoted = entity.partition("::")
    if not separator:
        return entity
    name = quoted.removeprefix('"').removesuffix('"')
    return name if kind in _PLAIN else f"{kind} {name}"


def _why(record: Mapping[str, Any]) -> str:
    if record["kind"] == "outcome":
        facts = record.get("outcome", {})
        ended = facts.get("ended", "complete")
        said = [f"{facts.get('bytes', 0)} bytes in {facts.get('ms', 0)} ms"]
        return ", ".join(said if ended == "complete" else [*said, str(ended)])
    code, reasons = str(record.get("code") or ""), tuple(record.get("determining") or ())
    if record.get("decision") == "deny" and code != "denied":
        return code or str(record.get("detail", ""))
    return ", ".join(map(str, reasons)) or _without_policy(record, code)


def _without_policy(record: Mapping[str, Any], code: str) -> str:
    if code == "denied" and record.get("checks"):
        return "no policy permits it"
    return "" if code == "allowed" else code or str(record.get("detail", ""))
