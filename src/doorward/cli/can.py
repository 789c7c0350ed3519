"""`doorward can PRINCIPAL ACTION RESOURCE`: ask the decision point one question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, call
from doorward.cli.output import Exit, JsonFlag, emit_json, guarded, say
from doorward.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from doorward.decisions.point import Standpoint


def register(app: typer.Typer) -> None:
    """Add `can`."""
    app.command("can")(guarded(can))


def can(  # noqa: PLR0913 -- the command's options
    principal: Annotated[str, typer.Argument(help="""User::"dana" (quote it for the shell).""")],
    action: Annotated[str, typer.Argument(help="view, invoke, read, export, ...")],
    resource: Annotated[str, typer.Argument(help="""Model::"llm/tiny" (quote it for the shell).""")],
    *,
    context: Annotated[str, typer.Option(help="JSON, merged over the neutral circumstances.")] = "{}",
    device: Annotated[str | None, typer.Option(help="A device, named and proven for the question.")] = None,
    zone: Annotated[str | None, typer.Option(help="The network zone the request comes from.")] = None,
    purpose: Annotated[str | None, typer.Option(help="The stated purpose.")] = None,
    mfa_age: Annotated[int | None, typer.Option(help="Seconds since a sign-in with MFA.")] = None,
    at: Annotated[str | None, typer.Option(help="The time to decide at, e.g. 2026-01-31T12:00:00Z.")] = None,
    at_least: Annotated[
        str | None, typer.Option(help="Decide on nothing older than this version, e.g. v42.")
    ] = None,
    why: Annotated[
        bool, typer.Option("--why", help="Say which policies decided and what would help.")
    ] = False,
    policies: Annotated[
        Path | None, typer.Option(help="A policy directory, with no process running.")
    ] = None,
    org: Annotated[Path | None, typer.Option(help="An org file, with no process running.")] = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonFlag = False,
) -> None:
    """Ask whether a principal may do something to a resource; exit 0 for yes, 1 for no."""
    question = {
        "principal": principal,
        "action": action,
        "resource": resource,
        "context": read_context(context),
        "device": device,
        "zone": zone,
        "purpose": purpose,
        "mfa_age": mfa_age,
        "at": at,
    }
    if policies is None and org is None:
        answer = call(data, "POST", "/api/v1/can", {**question, "why": True}, at_least=at_least)
    elif policies is None or org is None:
        raise InvalidRequestError(
            "without a running control plane both policies and people are needed",
            hint="Give --policies DIR and --org FILE together.",
        )
    elif at_least is not None:
        raise InvalidRequestError(
            "--at-least speaks of a running control plane",
            hint="Leave out --policies and --org, or --at-least.",
        )
    else:
        answer = _offline(question, policies, org)
    grounds = {name: answer.pop(name) for name in ("policies", "nearest", "because") if name in answer}
    if json:
        emit_json({**answer, **(grounds if why else {})})
    else:
        for line in _lines(question, answer, grounds if why else None):
            say(line)
    raise typer.Exit(Exit.OK if answer["decision"] == "allow" else Exit.DENIED)


def read_context(text: str) -> dict[str, Any]:
    """Return the JSON object of `--context`; raise InvalidRequestError."""
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError as reason:
        raise InvalidRequestError(
            f"--context is not JSON: {reason}", hint="""Write '{"risk": 10}'."""
        ) from reason
    if not isinstance(document, dict):
        raise InvalidRequestError("--context must be a JSON object", hint="""Write '{"risk": 10}'.""")
    return document


def _offline(question: dict[str, Any], policies: Path, org: Path) -> dict[str, Any]:
    from doorward.decisions.grounds import explained
    from doorward.decisions.question import Question

    standpoint = offline_standpoint(policies, org)
    decision, grounds = explained(msgspec.convert(question, Question), standpoint, datetime.now(UTC))
    return {**decision.to_json(), **grounds.to_json()}


def offline_standpoint(policies: Path, org: Path) -> Standpoint:
    """Stand on a policies directory and an org file, with no process running."""
    from doorward.cli.test import read_org
    from doorward.decisions.point import DecisionPoint
    from doorward.policies.workspace import Workspace

    point = DecisionPoint()
    bundle = Workspace(policies).load()
    point.publish(bundle)
    point.advance(read_org(org, bundle.schema))
    return point.pin()


def _lines(
    question: Mapping[str, Any], answer: Mapping[str, Any], grounds: Mapping[str, Any] | None
) -> Iterator[str]:
    """Yield the answer as a colleague would give it; with grounds, everything it rests on."""
    verdict = "allow" if answer["decision"] == "allow" else "DENY"
    yield f"{verdict}  {question['principal']} {question['action']} {question['resource']}"
    for obligation in answer["obligations"]:
        parts = ", ".join(f"{key} {_said(value)}" for key, value in obligation.items() if key != "type")
        yield f"  {obligation['type']}: {parts}" if parts else f"  {obligation['type']}"
    yield from (f"  {advice}" for advice in answer["advice"])
    if answer["would_allow"]:
        yield f"  To be let in: {', and '.join(change['say'] for change in answer['would_allow'])}."
    if grounds is None:
        return
    if grounds["because"]:
        yield f"  {grounds['because']}"
    yield from (f"  {_decided(policy)}" for policy in grounds["policies"])
    yield from (f"  {_near(policy, first=not n)}" for n, policy in enumerate(grounds["nearest"]))
    for change in answer["would_allow"]:
        yield f"  change: {change['change']}"
    yield from (f"  error: {error}" for error in answer["errors"])
    yield f"  bundle {answer['bundle']}, entities {answer['entities']}"


def _decided(policy: Mapping[str, Any]) -> str:
    does = "permits" if policy["effect"] == "permit" else "forbids"
    saw = ", ".join(f"{name} is {value}" for name, value in policy["saw"].items())
    return f"{policy['id']} {does} it{_described(policy)}" + (f" What it saw: {saw}." if saw else "")


def _near(policy: Mapping[str, Any], *, first: bool) -> str:
    if not policy["failed"]:
        return f"{policy['id']} permits it to others{_described(policy)} But {policy['missed']}."
    how = "comes nearest" if first else "comes near, too"
    return f"{policy['id']} {how}{_described(policy)} It does not hold, because {policy['missed']}."


def _described(policy: Mapping[str, Any]) -> str:
    doc = policy["doc"].rstrip(".")
    return f' ({policy["place"]}): "{doc}."' if doc else f" ({policy['place']})."


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
