"""`doorward check DIR`: would these policies be admitted, and if not, what is wrong where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli.output import Exit, JsonFlag, emit_json, guarded, say

if TYPE_CHECKING:
    from doorward.core.errors import InvalidPolicyError


def register(app: typer.Typer) -> None:
    """Add `check`."""
    app.command("check")(guarded(check))


def check(
    directory: Annotated[Path, typer.Argument(help="The policy directory.")],
    *,
    json: JsonFlag = False,
) -> None:
    """Admit the policies of a directory, or say every error with its place and fix."""
    from doorward.core.errors import InvalidPolicyError
    from doorward.policies.workspace import Workspace

    try:
        bundle = Workspace(directory).load()
    except InvalidPolicyError as error:
        if not json:
            raise
        emit_json({"ok": False, "problems": _problems(error)})
        raise typer.Exit(Exit.INVALID) from error
    if json:
        emit_json(
            {
                "ok": True,
                "problems": [],
                "policies": len(bundle.policies),
                "guardrails": len(bundle.guardrails),
                "bundle": bundle.digest,
            }
        )
        return
    say(
        f"{len(bundle.policies)} policies and {len(bundle.guardrails)} guardrails are good ({bundle.digest})."
    )


def _problems(error: InvalidPolicyError) -> list[Any]:
    from doorward.cedar.problems import RefusedPoliciesError

    if isinstance(error, RefusedPoliciesError):
        return list(error.problems)
    return [{"file": "", "line": 0, "column": 0, "message": error.message, "hint": error.hint, "snippet": ""}]
