"""`doorward conformance cedar PATH`: an outside corpus through both tiers of the engine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from doorward.cli.output import Exit, JsonFlag, emit_json, guarded, printable, say

_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add `conformance`."""
    noun = typer.Typer(no_args_is_help=True, help="Run an outside corpus through the engine.")
    noun.command("cedar")(guarded(cedar))
    noun.callback()(_group)
    app.add_typer(noun, name="conformance")


def _group() -> None:
    """Run an outside corpus through the engine."""


def cedar(
    path: Annotated[Path, typer.Argument(help="A folder or archive of Cedar's integration tests.")],
    *,
    json: JsonFlag = False,
) -> None:
    """Decide a corpus's requests in Cedar's own mode and validate its policies; exit 0 if all agree."""
    from doorward.cedar import corpus
    from doorward.core.errors import DoorwardError

    parts = (*corpus.TIERS, corpus.VALIDATION)
    passed, failed = Counter[str](), Counter[str]()
    wrong: list[corpus.Verdict] = []
    for case in corpus.cases(path):
        try:
            verdicts = list(corpus.run(case))
        except (DoorwardError, ValueError, KeyError) as reason:
            told = f"{type(reason).__name__}: {reason}"
            verdicts = [corpus.Verdict(part, case.name, told) for part in parts]
        for verdict in verdicts:
            (failed if verdict.wrong else passed)[verdict.part] += 1
        wrong += [verdict for verdict in verdicts if verdict.wrong]
    if json:
        emit_json(
            {
                "ok": not wrong,
                "parts": [{"part": p, "passed": passed[p], "failed": failed[p]} for p in parts],
                "wrong": wrong,
            }
        )
    else:
        for verdict in wrong[:_SHOWN]:
            say(printable(f"{verdict.part}: {verdict.case}: {verdict.wrong}"))
        for part in parts:
            say(f"{part}: {passed[part]} passed, {failed[part]} failed")
    if wrong:
        raise typer.Exit(Exit.DENIED)
