"""`doorward custodian`: the installation's own keys, and their rotation."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, call
from doorward.cli.output import JsonFlag, emit_json, guarded, table

_PATH = "/api/v1/custodian"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    custodian = typer.Typer(name="custodian", help="The installation's own keys.", no_args_is_help=True)
    custodian.command("list")(list_uses)
    custodian.command("rotate")(rotate)
    app.add_typer(custodian)


@guarded
def list_uses(*, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """List what keys are for, and which generation of each signs."""
    _print(call(data, "GET", _PATH), as_json=as_json)


@guarded
def rotate(
    use: Annotated[str, typer.Argument(help="What the key is for, as `custodian list` names it.")],
    *,
    distrust: Annotated[
        bool, typer.Option(help="End the earlier keys now: one of them may be in wrong hands.")
    ] = False,
    as_json: JsonFlag = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Start the next key of a use; what the earlier one signed counts until it would have ended."""
    state = call(data, "POST", f"{_PATH}/{use}/rotate", {"distrust": distrust})
    _print([state], as_json=as_json)


def _print(states: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        emit_json(states)
        return
    rows = [(s["use"], s["generation"], s["since"] or "the start") for s in states]
    table(("use", "generation", "since"), rows)
