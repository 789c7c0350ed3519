"""`doorward doctor`: find holes before someone else does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doorward.cli.output import Exit, JsonFlag, emit_json, guarded, say


def register(app: typer.Typer) -> None:
    """Add `doctor`."""
    app.command("doctor")(guarded(doctor))


def doctor(
    config: Annotated[Path | None, typer.Option("--config", help="The configuration file.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The data directory.")] = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Find open doors and wrong settings; exit 1 if there is a hole."""
    from doorward import settings as configuration
    from doorward.app.doctor import Severity, examine

    marks = {Severity.OK: "ok    ", Severity.ADVICE: "advice", Severity.HOLE: "HOLE  "}
    checks = []
    for check in examine(configuration.load(config, data=data)):
        checks.append(check)
        if not as_json:
            say(f"{marks[check.severity]}  {check.name}: {check.found}")
            if check.mend:
                say(f"        -> {check.mend}")
    if as_json:
        emit_json(
            [{"name": c.name, "severity": c.severity.value, "found": c.found, "mend": c.mend} for c in checks]
        )
    if any(check.severity is Severity.HOLE for check in checks):
        raise typer.Exit(Exit.DENIED)
