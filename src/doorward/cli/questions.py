"""`doorward who-can ACTION RESOURCE` and `what-can PRINCIPAL`: questions with more than one answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from doorward.cli.can import offline_standpoint, read_context
from doorward.cli.connection import DEFAULT_DATA, DataOption, call
from doorward.cli.output import Exit, JsonFlag, emit_json, guarded, say
from doorward.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from doorward.decisions.inquiry import Circumstances
    from doorward.decisions.point import Standpoint

Context = Annotated[str, typer.Option(help="JSON: ask under these circumstances only.")]
Device = Annotated[str | None, typer.Option(help="A device, named and proven for the question.")]
Zone = Annotated[str | None, typer.Option(help="The network zone requests come from.")]
Purpose = Annotated[str | None, typer.Option(help="The stated purpose.")]
MfaAge = Annotated[int | None, typer.Option(help="Seconds since a sign-in with MFA.")]
At = Annotated[str | None, typer.Option(help="The time to decide at, e.g. 2026-01-31T12:00:00Z.")]
Policies = Annotated[Path | None, typer.Option(help="A policy directory, with no process running.")]
Org = Annotated[Path | None, typer.Option(help="An org file, with no process running.")]

Ask = Callable[["Circumstances", "Standpoint", datetime], dict[str, Any]]
_HEADINGS = {
    "always": "always",
    "only_if": "only if",
    "never": "never",
    "allowed": "allowed",
    "denied": "denied",
}


def register(app: typer.Typer) -> None:
    """Add `who-can` and `what-can`."""
    app.command("who-can")(guarded(who_can))
    app.command("what-can")(guarded(what_can))


def who_can(  # noqa: PLR0913 -- the command's options
    action: Annotated[str, typer.Argument(help="view, invoke, read, export, ...")],
    resource: Annotated[str, typer.Argument(help="""Model::"llm/tiny" (quote it for the shell).""")],
    *,
    context: Context = "{}",
    device: Device = None,
    zone: Zone = None,
    purpose: Purpose = None,
    mfa_age: MfaAge = None,
    at: At = None,
    policies: Policies = None,
    org: Org = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonFlag = False,
) -> None:
    """List who may do something to a resource: always, only if, never; exit 1 if nobody ever may."""
    given = _given(context, device=device, zone=zone, purpose=purpose, mfa_age=mfa_age, at=at)

    def ask(circumstances: Circumstances, standpoint: Standpoint, now: datetime) -> dict[str, Any]:
        from doorward.decisions import inquiry

        return inquiry.who_can(action, resource, circumstances, standpoint, now)

    named = {"action": action, "resource": resource}
    answer = _answer("/api/v1/who-can", named | given, given, ask=ask, policies=policies, org=org, data=data)
    _show(answer, lambda entry: str(entry["principal"]), json=json)


def what_can(  # noqa: PLR0913 -- the command's options
    principal: Annotated[str, typer.Argument(help="""User::"dana" (quote it for the shell).""")],
    *,
    context: Context = "{}",
    device: Device = None,
    zone: Zone = None,
    purpose: Purpose = None,
    mfa_age: MfaAge = None,
    at: At = None,
    policies: Policies = None,
    org: Org = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonFlag = False,
) -> None:
    """List what a principal may do to each registered resource; exit 1 if it never may do anything."""
    given = _given(context, device=device, zone=zone, purpose=purpose, mfa_age=mfa_age, at=at)

    def ask(circumstances: Circumstances, standpoint: Standpoint, now: datetime) -> dict[str, Any]:
        from doorward.decisions import inquiry

        return inquiry.what_can(principal, circumstances, standpoint, now)

    named = {"principal": principal}
    answer = _answer("/api/v1/what-can", named | given, given, ask=ask, policies=policies, org=org, data=data)
    _show(answer, lambda entry: f"{entry['action']} {entry['resource']}", json=json)


def _given(context: str, **options: str | int | None) -> dict[str, Any]:
    stated = {name: value for name, value in options.items() if value is not None}
    document = read_context(context)
    return {**stated, "context": document} if document else stated


def _answer(  # noqa: PLR0913 -- both ways to ask
    path: str,
    body: dict[str, Any],
    given: dict[str, Any],
    *,
    ask: Ask,
    policies: Path | None,
    org: Path | None,
    data: Path,
) -> dict[str, Any]:
    if policies is None and org is None:
        answer: dict[str, Any] = call(data, "POST", path, body)
        return answer
    if policies is None or org is None:
        raise InvalidRequestError(
            "without a running control plane both policies and people are needed",
            hint="Give --policies DIR and --org FILE together.",
        )
    from doorward.decisions.inquiry import Circumstances

    circumstances = msgspec.convert(given, Circumstances)
    return ask(circumstances, offline_standpoint(policies, org), datetime.now(UTC))


def _show(answer: dict[str, Any], name: Callable[[dict[str, Any]], str], *, json: bool) -> None:
    groups = {key: answer[key] for key in _HEADINGS if key in answer}
    if json:
        emit_json(answer)
    else:
        for key, entries in groups.items():
            say(f"{_HEADINGS[key]} ({len(entries)})")
            for entry in entries:
                say(f"  {name(entry)}" + (f": {entry['say']}" if entry.get("say") else ""))
        say(f"bundle {answer['bundle']}, entities {answer['entities']}")
    possible = any(entries for key, entries in groups.items() if key not in {"never", "denied"})
    raise typer.Exit(Exit.OK if possible else Exit.DENIED)
