"""`doorward check DIR`: would these policies be admitted, and if not, what is wrong where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli.output import Exit, JsonFlag, emit_json, guarded, say

if TYPE_CHECKING:
    from doorward.core.errors import InvalidPolicyError
    from doorward.core.feed import Bundle


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
    notes = _notes(bundle)
    if json:
        emit_json(
            {
                "ok": True,
                "problems": [],
                "notes": notes,
                "policies": len(bundle.policies),
                "guardrails": len(bundle.guardrails),
                "bundle": bundle.digest,
            }
        )
        return
    for note in notes:
        say(f"note: {note['place']}: {note['message']}")
    say(
        f"{len(bundle.policies)} policies and {len(bundle.guardrails)} guardrails are good ({bundle.digest})."
    )


def _notes(bundle: Bundle) -> list[dict[str, str]]:
    """Say which obligations of permits no upstream kind keeps: what they permit is refused."""
    from doorward.cedar.annotations import obligations
    from doorward.core.obligation import Mask
    from doorward.gateway.obligations import KEPT_BY_FLOW

    kept = KEPT_BY_FLOW | {Mask}
    return [
        {
            "policy": policy.id,
            "place": policy.place,
            "message": f"policy `{policy.id}` asks for @{type(demanded).__struct_config__.tag}, which no"
            " upstream keeps yet: whatever only it permits is refused",
        }
        for policy in bundle.policies
        if policy.effect == "permit"
        for demanded in obligations(policy.annotations, policy.id)
        if type(demanded) not in kept
    ]


def _problems(error: InvalidPolicyError) -> list[Any]:
    from doorward.cedar.problems import RefusedPoliciesError

    if isinstance(error, RefusedPoliciesError):
        return list(error.problems)
    return [{"file": "", "line": 0, "column": 0, "message": error.message, "hint": error.hint, "snippet": ""}]
