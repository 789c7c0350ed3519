"""Find and show one entity of a list that the management API gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from doorward.cli.connection import call
from doorward.cli.output import emit_json, table


def found(data: Path, path: str, name: str) -> dict[str, Any]:
    """Return the one entity of a name; raise NotFoundError, or InvalidRequestError if several have it."""
    entity: dict[str, Any] = call(data, "GET", f"{path}/{quote(name, safe='/')}")
    return entity


def show(entity: dict[str, Any], *, as_json: bool) -> None:
    """Print one entity: JSON for programs, one fact a line for people."""
    if as_json:
        emit_json(entity)
        return
    table(("fact", "value"), [(fact, _said(value)) for fact, value in entity.items()])


def _said(value: Any) -> str:
    match value:
        case None:
            return ""
        case list():
            return ", ".join(_said(item) for item in value)
        case dict():
            return ", ".join(f"{key}={_said(item)}" for key, item in value.items())
    return str(value)
