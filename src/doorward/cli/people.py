"""`doorward people`: who is known."""

from __future__ import annotations

from typing import Any

import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, every
from doorward.cli.output import JsonFlag, emit_json, guarded, table
from doorward.cli.records import found, show

_PATH = "/api/v1/people"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    people = typer.Typer(name="people", help="Users, services and agents.", invoke_without_command=True)
    people.callback()(_default)
    people.command("list")(list_people)
    people.command("show")(show_person)
    app.add_typer(people)


@guarded
def _default(context: typer.Context, *, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    if context.invoked_subcommand is None:
        _print(every(data, _PATH), as_json=as_json)


@guarded
def list_people(*, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """List users, services and agents."""
    _print(every(data, _PATH), as_json=as_json)


@guarded
def show_person(name: str, *, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """Show everything known of one: dana, or User::"dana"."""
    show(found(data, _PATH, name), as_json=as_json)


def _print(people: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        emit_json(people)
        return
    rows = [
        (
            p["kind"],
            p["name"],
            "yes" if p["active"] else "no",
            ", ".join(p["roles"]),
            ", ".join(p["projects"]),
            ", ".join(p["purposes"]),
            p.get("owner"),
        )
        for p in people
    ]
    table(("kind", "name", "active", "roles", "projects", "purposes", "owner"), rows)
