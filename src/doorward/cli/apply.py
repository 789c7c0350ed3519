"""`doorward apply`: people and assets as code, the plan first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, call
from doorward.cli.output import JsonFlag, emit_json, guarded, say
from doorward.core.errors import InvalidConfigError, InvalidRequestError

_SIGNS = {"add": "+", "change": "~", "remove": "-"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("apply")(apply)


@guarded
def apply(  # noqa: PLR0913 -- the command's options
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The org.yaml to apply; - reads standard input.")
    ] = None,
    pack: Annotated[
        str | None, typer.Option("--pack", help="A ready-made pack: its policies and its people.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what the file does not name.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would change and stop.")] = False,
    as_json: JsonFlag = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Make people and assets what a file says: show the plan, then apply it whole or not at all."""
    if (file is None) == (pack is None):
        raise InvalidRequestError(
            "give either a file or a pack", hint="doorward apply -f org.yaml, or --pack authzen."
        )
    if file is None:
        _apply_pack(str(pack), plan=plan, as_json=as_json, data=data)
        return
    body = {"org": _text(file), "source": str(file), "prune": prune}
    planned = call(data, "POST", "/api/v1/apply", {**body, "plan": True})
    if not as_json:
        _show(planned["plan"])
        for warning in planned["warnings"]:
            say(f"! {warning}")
    answer = planned
    if planned["plan"] and not plan:
        answer = call(data, "POST", "/api/v1/apply", {**body, "plan": False})
    if as_json:
        emit_json(answer)
    elif answer["applied"]:
        say(f"Applied. The directory is at version {answer['version']}.")
    elif not planned["plan"]:
        say(f"Nothing to change. The directory is at version {answer['version']}.")


def _apply_pack(pack: str, *, plan: bool, as_json: bool, data: Path) -> None:
    answer = call(data, "POST", f"/api/v1/packs/{quote(pack, safe='')}", {"plan": plan})
    if as_json:
        emit_json(answer)
        return
    for name in answer["files"]:
        say(f"+ {name}")
    _show(answer["plan"])
    if answer["applied"]:
        say(f"Applied. The policies are {answer['bundle']}, the directory is at version {answer['version']}.")
    elif not plan:
        say("Nothing to change.")


def _text(file: Path) -> str:
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise InvalidConfigError(
            f"{file} cannot be read: {error.strerror}", hint="Name an org.yaml with -f."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidConfigError(f"{file} is not UTF-8 text", hint="Save it as UTF-8.") from error


def _show(items: list[dict[str, Any]]) -> None:
    for item in items:
        say(f'{_SIGNS[item["op"]]} {item["kind"]}::"{item["name"]}"')
        for fact, (before, after) in sorted(item["changes"].items()):
            arrow = _said(after) if before is None else f"{_said(before)} -> {_said(after)}"
            say(f"    {fact}: {arrow}")


def _said(value: Any) -> str:
    if value is None:
        return "(none)"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
