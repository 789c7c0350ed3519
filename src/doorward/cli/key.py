"""`doorward key`: make, list and revoke API keys."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, call, every
from doorward.cli.output import JsonFlag, emit_json, guarded, say, table
from doorward.core.errors import InvalidRequestError


def register(app: typer.Typer) -> None:
    """Add `key` and its commands."""
    noun = typer.Typer(no_args_is_help=True, help="API keys: make, list, revoke.")
    for name, command in (("create", create), ("list", list_keys), ("revoke", revoke)):
        noun.command(name)(guarded(command))
    app.add_typer(noun, name="key")


def create(  # noqa: PLR0913 -- one option per bound of a key
    *,
    user: Annotated[str | None, typer.Option(help="Whom the key is for: dana.")] = None,
    service: Annotated[str | None, typer.Option(help="The service the key is for.")] = None,
    agent: Annotated[str | None, typer.Option(help="The AI agent the key is for.")] = None,
    device: Annotated[
        str | None, typer.Option(help="The device it belongs to; the key names it, it does not prove it.")
    ] = None,
    purpose: Annotated[str | None, typer.Option(help="The one purpose it may be used for.")] = None,
    expires: Annotated[str | None, typer.Option(help="How long it lives: 90d, 12h, 30m.")] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="A network it may be used from (CIDR); repeat for more.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonFlag = False,
) -> None:
    """Make a key and print its secrets, this once."""
    subjects = {"user": user, "service": service, "agent": agent}
    if sum(name is not None for name in subjects.values()) != 1:
        raise InvalidRequestError(
            "a key is for exactly one of --user, --service and --agent", hint="For example: --user dana"
        )
    bounds = {"device": device, "purpose": purpose, "expires": expires, "networks": network}
    body = {name: value for name, value in {**subjects, **bounds}.items() if value}
    made = call(data, "POST", "/api/v1/keys", body)
    if as_json:
        shown = ("id", "key", "access_key_id", "secret_access_key")
        emit_json({name: made[name] for name in shown})
        return
    say(f"A key for {made['subject']}. It is shown this once; only its hash is kept.")
    say("")
    say(f"  key                {made['key']}")
    say(f"  access key id      {made['access_key_id']}")
    say(f"  secret access key  {made['secret_access_key']}")
    say("")
    say(f"Revoke it with `doorward key revoke {made['id']}`.")


def list_keys(
    *,
    user: Annotated[str | None, typer.Option(help="Only the keys of this user.")] = None,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonFlag = False,
) -> None:
    """List the keys that are not revoked."""
    keys = every(data, "/api/v1/keys")
    if user is not None:
        keys = [key for key in keys if key["subject"] in {f'User::"{user}"', user}]
    if as_json:
        emit_json(keys)
        return
    table(
        ("id", "for", "bound to", "expires"),
        [_row(key) for key in keys],
        unwrapped=("id", "expires"),
    )


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `key list` shows it.")],
    *,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonFlag = False,
) -> None:
    """Revoke a key at once; streams that use it end within a second."""
    revoked = call(data, "DELETE", f"/api/v1/keys/{quote(key_id, safe='')}")
    if as_json:
        emit_json(revoked)
        return
    say(f"{key_id} is revoked.")


def _row(key: dict[str, Any]) -> tuple[object, ...]:
    return (
        key["id"],
        key["subject"],
        ", ".join(filter(None, (key["device"], key["purpose"], *key["networks"]))),
        (key["expires"] or "never")[:10],
    )
