"""`doorward key`: make, list, rotate and revoke API keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, call, every
from doorward.cli.output import JsonFlag, emit_json, guarded, say, table
from doorward.core.errors import InvalidRequestError

_BOUNDS = ("networks", "actions", "upstreams", "resources")


def register(app: typer.Typer) -> None:
    """Add `key` and its commands."""
    noun = typer.Typer(no_args_is_help=True, help="API keys: make, list, rotate, revoke.")
    for name, command in (
        ("create", create),
        ("list", list_keys),
        ("rotate", rotate),
        ("revoke", revoke),
    ):
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
    action: Annotated[
        list[str] | None, typer.Option(help="An action it may be used for, at most; repeat for more.")
    ] = None,
    upstream: Annotated[
        list[str] | None, typer.Option(help="An upstream it may be used at, at most; repeat for more.")
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(help='An asset it may be used for, at most: Dataset::"store/a"; repeat for more.'),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(help="Register this public key (PEM or JWK) of a service or agent; nothing is made."),
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
    bounds = {
        "device": device,
        "purpose": purpose,
        "expires": expires,
        "networks": network,
        "actions": action,
        "upstreams": upstream,
        "resources": resource,
        "public_key": None if public_key is None else _read(public_key),
    }
    body = {name: value for name, value in {**subjects, **bounds}.items() if value}
    made = call(data, "POST", "/api/v1/keys", body)
    _print(made, as_json=as_json)


def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key to replace, as `key list` shows it.")],
    *,
    overlap: Annotated[str, typer.Option(help="How long the old key works on: 24h, 7d.")] = "24h",
    expires: Annotated[
        str | None, typer.Option(help="How long the new one lives; else as long as the old one did.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonFlag = False,
) -> None:
    """Make a key in place of another, which works on for a while."""
    body = {"overlap": overlap, **({"expires": expires} if expires else {})}
    made = call(data, "POST", f"/api/v1/keys/{quote(key_id, safe='')}/rotate", body)
    _print(made, as_json=as_json)
    if not as_json:
        say(f"The old key {key_id} works for another {overlap}.")


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise InvalidRequestError(f"{file} cannot be read: {reason}") from reason


def _print(made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        shown = ("id", "key", "access_key_id", "secret_access_key")
        emit_json({name: made[name] for name in shown})
        return
    if made["key"] is None:
        say(f"The public key of {made['subject']} is registered as {made['id']}: sign assertions with it.")
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
        ("id", "for", "bound to", "expires", "last used"),
        [_row(key) for key in keys],
        unwrapped=("id", "expires", "last used"),
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
        ", ".join(filter(None, (key["device"], key["purpose"], *(b for kind in _BOUNDS for b in key[kind])))),
        (key["expires"] or "never")[:10],
        (key["last_used"] or "never")[:10],
    )
