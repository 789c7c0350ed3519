"""`doorward admin link`: a one-time link into the console, for the operator of this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, call
from doorward.cli.output import JsonFlag, emit_json, guarded, say


def register(app: typer.Typer) -> None:
    """Add `admin link`."""
    admin = typer.Typer(help="Get into the console from this machine.", no_args_is_help=True)
    admin.command("link")(guarded(link))
    app.add_typer(admin, name="admin")


def link(
    *,
    session: Annotated[
        bool, typer.Option("--session", help="Open the console to look, without enrolling a passkey.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
    json: JsonFlag = False,
) -> None:
    """Print a link that works once, for 15 minutes: it enrols an admin's passkey."""
    answer = call(data, "POST", "/api/v1/admin/link", {"kind": "session" if session else "enrol"})
    if json:
        emit_json(answer)
        return
    what = "Opens the console to look" if session else "Enrols a passkey for the user admin"
    say(answer["url"])
    say(f"{what}; works once, for {answer['expires_in'] // 60} minutes. Keep it to yourself.")
