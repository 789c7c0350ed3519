"""`doorward assets`: what is governed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, call, every
from doorward.cli.output import JsonFlag, emit_json, guarded, table
from doorward.cli.records import found, show

_PATH = "/api/v1/assets"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    assets = typer.Typer(
        name="assets", help="Models, datasets, endpoints and tools.", invoke_without_command=True
    )
    assets.callback()(_default)
    assets.command("list")(list_assets)
    assets.command("show")(show_asset)
    assets.command("lower")(lower_asset)
    assets.command("raise")(raise_asset)
    app.add_typer(assets)


@guarded
def _default(context: typer.Context, *, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    if context.invoked_subcommand is None:
        _print(every(data, _PATH), as_json=as_json)


@guarded
def list_assets(*, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """List the registered assets."""
    _print(every(data, _PATH), as_json=as_json)


@guarded
def show_asset(name: str, *, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """Show everything known of one: store/training, or Dataset::"store/training"."""
    show(found(data, _PATH, name), as_json=as_json)


@guarded
def lower_asset(
    name: str,
    *,
    reason: Annotated[str, typer.Option(help="Why it may be less sensitive than what covers it.")],
    as_json: JsonFlag = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Let an asset be less sensitive than what covers it, on record with the reason."""
    uid = found(data, _PATH, name)["uid"]
    show(call(data, "POST", f"{_PATH}/lower", {"asset": uid, "reason": reason}), as_json=as_json)


@guarded
def raise_asset(name: str, *, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """End a lowering: the asset is again at least as sensitive as what covers it."""
    uid = found(data, _PATH, name)["uid"]
    show(call(data, "POST", f"{_PATH}/raise", {"asset": uid}), as_json=as_json)


def _print(assets: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        emit_json(assets)
        return
    rows = [
        (
            a["kind"],
            a["name"],
            a.get("owner"),
            a["sensitivity"],
            a["environment"],
            ", ".join(a["projects"]),
            ", ".join(a.get("purposes", ())),
        )
        for a in assets
    ]
    table(("kind", "name", "owner", "sensitivity", "environment", "projects", "purposes"), rows)
