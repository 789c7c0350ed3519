"""`doorward fmt DIR`: write every policy the one way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doorward.cli.output import Exit, JsonFlag, emit_json, guarded, say


def register(app: typer.Typer) -> None:
    """Add `fmt`."""
    app.command("fmt")(guarded(fmt))


def fmt(
    directory: Annotated[Path, typer.Argument(help="The policy directory.")],
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if a file would change.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Format the policy files and write short names in full; all of them or none."""
    from doorward.cedar.formatting import formatted
    from doorward.policies.workspace import Workspace

    workspace = Workspace(directory)
    schema = workspace.schema()
    sources = workspace.sources()
    written = {source.name: formatted(source, schema) for source in sources}
    changed = [source.name for source in sources if written[source.name] != source.text]
    if not check:
        for name in changed:
            Path(name).write_text(written[name], "utf-8", newline="")
    if json:
        emit_json({"changed": changed, "written": not check})
    else:
        for name in changed:
            say(f"{'would change' if check else 'formatted'} {name}")
        if not changed:
            say(f"{len(sources)} files are well formatted.")
    if check and changed:
        raise typer.Exit(Exit.DENIED)
