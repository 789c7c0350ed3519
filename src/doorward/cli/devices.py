"""`doorward devices`: list devices, issue and revoke the certificates that prove them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, call, every
from doorward.cli.output import JsonFlag, emit_json, guarded, say, table
from doorward.core.errors import ConflictError, InvalidRequestError

_CERTIFICATE_FILE, _KEY_FILE = 0o644, 0o600


def register(app: typer.Typer) -> None:
    """Add `devices` and its commands."""
    noun = typer.Typer(help="Devices: list, state their posture, enrol, revoke.", invoke_without_command=True)
    noun.callback()(guarded(_default))
    commands = (("list", list_devices), ("set", set_posture), ("enrol", enrol), ("revoke", revoke))
    for name, command in commands:
        noun.command(name)(guarded(command))
    app.add_typer(noun, name="devices")


def _default(context: typer.Context, *, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    if context.invoked_subcommand is None:
        list_devices(data=data, as_json=as_json)


def list_devices(*, data: DataOption = DEFAULT_DATA, as_json: JsonFlag = False) -> None:
    """List the devices, their posture and their certificates."""
    devices = every(data, "/api/v1/devices")
    if as_json:
        emit_json(devices)
        return
    columns = ("name", "owner", "managed", "compliant", "active", "certificates until")
    table(columns, [_row(device) for device in devices])


def set_posture(  # noqa: PLR0913 -- one per option
    name: Annotated[str, typer.Argument(metavar="NAME", help="The device.")],
    *,
    managed: Annotated[bool | None, typer.Option("--managed/--unmanaged")] = None,
    compliant: Annotated[bool | None, typer.Option("--compliant/--not-compliant")] = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive")] = None,
    platform: Annotated[str | None, typer.Option(help="Such as linux or macos.")] = None,
    max_age: Annotated[
        int | None, typer.Option(help="Seconds this counts; afterwards neither managed nor compliant.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonFlag = False,
) -> None:
    """State a device's posture; it is managed and compliant only if every source says so."""
    given = {"managed": managed, "compliant": compliant, "active": active, "platform": platform}
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise InvalidRequestError(
            "nothing is stated", hint="Say --compliant or --not-compliant, for instance."
        )
    device = call(data, "PATCH", f"/api/v1/devices/{quote(name, safe='')}", body | {"max_age": max_age})
    if as_json:
        emit_json(device)
        return
    said = ", ".join(word if device[word] else f"not {word}" for word in ("managed", "compliant", "active"))
    say(f"{device['name']} is {said}.")
    for source, one in device["sources"].items():
        aged = " (out of date)" if one["stale"] else ""
        say(f"  {source:<16} {', '.join(f'{k}={v}' for k, v in one['states'].items())}{aged}")


def enrol(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The device, as org.yaml names it.")],
    *,
    csr: Annotated[
        Path | None, typer.Option(help="A signing request (PEM), so that the key never leaves the device.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write the files.")] = Path(),
    data: DataOption = DEFAULT_DATA,
    as_json: JsonFlag = False,
) -> None:
    """Issue a client certificate (90 days) that proves the device on each request."""
    stem = quote(name, safe="").lstrip(".")
    files = {"certificate": out / f"{stem}.crt", "key": out / f"{stem}.key", "ca": out / "ca.pem"}
    if csr is not None:
        del files["key"]
    _refuse_overwriting(file for what, file in files.items() if what != "ca")
    body = {} if csr is None else {"csr": _read(csr)}
    issued = call(data, "POST", f"/api/v1/devices/{quote(name, safe='')}/certificate", body)
    out.mkdir(parents=True, exist_ok=True)
    for what, file in files.items():
        _write(file, issued[what], _KEY_FILE if what == "key" else _CERTIFICATE_FILE)
    if as_json:
        paths = {what: str(file) for what, file in files.items()}
        emit_json(
            {"device": name, **paths, "fingerprint": issued["fingerprint"], "expires": issued["expires"]}
        )
        return
    say(f"{name} can prove itself until {issued['expires'][:10]}.")
    for what, file in files.items():
        say(f"  {what:<12} {file}")


def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The device.")],
    *,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonFlag = False,
) -> None:
    """Revoke every certificate of a device at once."""
    revoked = call(data, "DELETE", f"/api/v1/devices/{quote(name, safe='')}/certificate")
    if as_json:
        emit_json(revoked)
        return
    say(f"{len(revoked['revoked'])} certificate(s) of {name} are revoked.")


def _refuse_overwriting(files: Any) -> None:
    for file in files:
        if file.exists():
            raise ConflictError(f"{file} is there already", hint="Move it away, or choose another --out.")


def _read(csr: Path) -> str:
    try:
        return csr.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as reason:
        raise InvalidRequestError(f"{csr} cannot be read as a signing request: {reason}") from reason


def _write(file: Path, content: str, mode: int) -> None:
    """Write a file with its final mode from the start; a key is never readable by others."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(content)
    draft.replace(file)


def _row(device: dict[str, Any]) -> tuple[object, ...]:
    until = ", ".join(held["expires"][:10] for held in device["certificates"])
    return (device["name"], device["owner"], device["managed"], device["compliant"], device["active"], until)
