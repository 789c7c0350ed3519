"""`doorward demo`: the story, on real systems."""

from __future__ import annotations

from typing import Annotated

import typer

from doorward.cli.output import Exit, JsonFlag, emit_json, guarded


def register(app: typer.Typer) -> None:
    """Add `demo`."""
    app.command("demo")(guarded(demo))


def demo(
    *,
    leave: Annotated[
        bool, typer.Option("--exit", help="End after the last beat; exit 0 only if all of them hold.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Play the story on a real LLM, MLflow and S3 store: show them open, close them, guard them."""
    from doorward.core.errors import UnavailableError
    from doorward.demo.run import play
    from doorward.demo.stage import NotHeldError

    try:
        beats = play(stay=not leave, quiet=as_json)
    except NotHeldError as reason:
        raise UnavailableError(f"the story could not begin: {reason}") from reason
    if as_json:
        emit_json(
            [{"number": b.number, "title": b.title, "ok": b.held, "lines": list(b.lines)} for b in beats]
        )
    if leave and not (beats and all(beat.held for beat in beats)):
        raise typer.Exit(Exit.DENIED)
