"""`doorward protect KIND URL`: put one open system behind the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doorward.cli.output import JsonFlag, emit_json, guarded, printable, say
from doorward.core.errors import UnavailableError


def register(app: typer.Typer) -> None:
    """Add `protect`."""
    app.command("protect")(guarded(protect))


def protect(  # noqa: PLR0913 -- one option per choice
    kind: Annotated[str, typer.Argument(help="openai, mlflow or s3.")],
    url: Annotated[str, typer.Argument(help="Where it listens now: http://127.0.0.1:8000 or unix:/path.")],
    *,
    name: Annotated[
        str | None, typer.Option(help="Its name: the first segment of its gateway path and asset names.")
    ] = None,
    environment: Annotated[
        str, typer.Option(help="development, training, testing or production.")
    ] = "production",
    config: Annotated[Path, typer.Option("--config", help="The configuration to extend.")] = Path(
        "doorward.toml"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Look whether a system is open, write what closes it, and say what is left to do."""
    from doorward.app import protect as protection
    from doorward.app.probe import Door, probe

    planned = protection.plan(
        kind,
        url,
        name=name or protection.DEFAULT_NAMES.get(kind, kind),
        config=config,
        environment=environment,
    )
    finding = probe(kind, url)
    if finding.door is Door.UNREACHABLE and not planned.done:
        raise UnavailableError(finding.detail, hint="Start it, or correct the URL; nothing was written.")
    written = planned.write()
    if as_json:
        emit_json(
            {
                "door": finding.door.value, "found": finding.detail,
                "written": [str(file) for file in written], "steps": list(planned.steps),
            }
        )  # fmt: skip
        return
    mark = {Door.OPEN: "OPEN  ", Door.CLOSED: "closed", Door.UNREACHABLE: "silent"}[finding.door]
    say(printable(f"{mark}  {finding.detail}"))
    for file in written:
        say(f"wrote   {file}")
    if not written:
        say(f"already protected: {config} and {planned.policy} stay as they are")
    say("")
    for number, step in enumerate(planned.steps, start=1):
        say(f"{number}. {step}")
