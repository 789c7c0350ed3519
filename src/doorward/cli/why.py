"""`doorward why REQUEST_ID`: what was decided about one request, on what grounds, and what became of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from doorward.cli.audit import AUDIT_DIRECTORY
from doorward.cli.connection import DEFAULT_DATA, DataOption
from doorward.cli.output import Exit, JsonFlag, guarded, printable, say
from doorward.core.errors import InvalidRequestError


def register(app: typer.Typer) -> None:
    """Add `why`."""
    app.command("why")(guarded(why))


def why(
    request_id: Annotated[str, typer.Argument(help="The Doorward-Request-Id of an answer.")],
    *,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonFlag = False,
) -> None:
    """Show why a request was allowed (exit 0) or denied (exit 1)."""
    from doorward.audit.reader import AuditReader, joined

    story = joined(AuditReader(data / AUDIT_DIRECTORY).request(request_id))
    if story is None:
        raise InvalidRequestError(
            f"no request `{printable(request_id)}` is on record in {data / AUDIT_DIRECTORY}",
            hint="The id is in the answer's Doorward-Request-Id header and in `doorward audit tail --wide`.",
        )
    if as_json:
        sys.stdout.write(json.dumps(story, indent=2, sort_keys=True) + "\n")
    else:
        for line in _lines(story):
            say(printable(line))
    if story.get("decision") != "allow":
        raise typer.Exit(Exit.DENIED)


def _lines(story: Mapping[str, Any]) -> Iterator[str]:
    who, verdict = story.get("principal") or "nobody", str(story.get("decision", "?")).upper()
    yield f"{verdict}  {who} {story.get('action', '')} {story.get('resource', '')}"
    yield f"  when        {story['time']}  request {story['request_id']}"
    for check in story.get("checks", ()):
        policies = ", ".join(check.get("determining", ())) or "no policy permits it"
        yield f"  check       {check['action']} {check['resource']}: {check['decision']} ({policies})"
    if story.get("code") not in {None, "", "allowed"}:
        yield f"  code        {story['code']}  {story.get('detail', '')}".rstrip()
    for label in ("determining", "errors", "advice"):
        for item in story.get(label, ()):
            yield f"  {label:<11} {item}"
    for item in story.get("would_allow", ()):
        yield f"  would let in {item.get('say', '')}  [{item.get('change', '')}]"
    for label in ("device", "purpose", "bundle", "entities"):
        if story.get(label):
            yield f"  {label:<11} {story[label]}"
    for item in story.get("obligations", ()):
        yield f"  must        {json.dumps(item, sort_keys=True)}"
    if story.get("outcome"):
        yield f"  outcome     {json.dumps(story['outcome'], sort_keys=True)}"
