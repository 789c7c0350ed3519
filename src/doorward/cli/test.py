"""`doorward test DIR`: do the policies do what their tests say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, call
from doorward.cli.output import Exit, JsonFlag, emit_json, guarded, say
from doorward.core.errors import DoorwardError, InvalidConfigError

if TYPE_CHECKING:
    from doorward.core.decision import Decision
    from doorward.core.feed import Bundle
    from doorward.decisions.point import DecisionPoint
    from doorward.directory.snapshot import Snapshot
    from doorward.policies.cases import Outcome

OrgOption = Annotated[
    Path | None, typer.Option("--org", help="People and assets; else the file's own, else the running ones.")
]


def register(app: typer.Typer) -> None:
    """Add `test`."""
    app.command("test")(guarded(run_tests))


def run_tests(
    directory: Annotated[Path, typer.Argument(help="The policy directory.")],
    *,
    org: OrgOption = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonFlag = False,
) -> None:
    """Run every `*_test.yaml` of a directory against its policies."""
    from doorward.policies import cases
    from doorward.policies.workspace import Workspace

    workspace = Workspace(directory)
    found = [case for file in workspace.tests() for case in cases.read(file)]
    if not found:
        raise InvalidConfigError(
            f"{directory} holds no tests", hint="Write them into a file that ends with _test.yaml."
        )
    ask = _ask(workspace.load(), org, data)
    outcomes = [*cases.run(found, ask)]
    if json:
        emit_json(outcomes_json(outcomes))
    else:
        _print(outcomes)
    if not all(outcome.passed for outcome in outcomes):
        raise typer.Exit(Exit.TEST_FAILED)


def _ask(
    bundle: Bundle, org: Path | None, data: Path
) -> Callable[[Mapping[str, Any], Snapshot | None], Decision]:
    """Return the decision point as the runner asks it: on the case's entities, the file's, or the running."""
    from doorward.decisions.point import DecisionPoint
    from doorward.decisions.question import Question, answer

    points: dict[int, DecisionPoint] = {}
    shared: list[Snapshot] = []
    now = datetime.now(UTC)

    def ask(request: Mapping[str, Any], entities: Snapshot | None) -> Decision:
        if entities is None:
            if not shared:
                shared.append(_shared(org, data, bundle.schema))
            entities = shared[0]
        point = points.get(id(entities))
        if point is None:
            point = points[id(entities)] = DecisionPoint()
            point.publish(bundle)
            point.advance(entities)
        try:
            question = msgspec.convert(dict(request), Question)
        except msgspec.ValidationError as reason:
            raise InvalidConfigError(f"a test's request cannot be read: {reason}") from reason
        return answer(question, point.pin(), now, explain=False)

    def placed(request: Mapping[str, Any], entities: Snapshot | None) -> Decision:
        try:
            return ask(request, entities)
        except DoorwardError as error:
            if error.code != "invalid_request":
                raise
            raise InvalidConfigError(f"{_brief(request)}: {error.message}", hint=error.hint) from error

    return placed


def _brief(request: Mapping[str, Any]) -> str:
    return f"test request {request['principal']} {request['action']} {request['resource']}"


def _shared(org: Path | None, data: Path, schema: str) -> Snapshot:
    from doorward.core.feed import Known
    from doorward.directory.snapshot import Snapshot

    if org is not None:
        return read_org(org, schema)
    return Snapshot.of(msgspec.convert(call(data, "GET", "/api/v1/can/world"), Known))


def read_org(org: Path, schema: str) -> Snapshot:
    """Return what an org file states, alone; raise InvalidConfigError, also where it breaks the schema."""
    from doorward.directory.fitting import Fitting
    from doorward.directory.org import offline_snapshot, parse
    from doorward.directory.schema_attributes import vocabulary_of

    try:
        text = org.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise InvalidConfigError(
            f"{org} cannot be read as text", hint="Name a file like the one of `doorward init`."
        ) from reason
    stated = parse(text, str(org), vocabulary=vocabulary_of(schema))
    snapshot = offline_snapshot(stated)
    Fitting(schema).require(snapshot, snapshot.stated, stated.places)
    return snapshot


def outcomes_json(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the results for programs."""
    return {
        "passed": sum(outcome.passed for outcome in outcomes),
        "failed": sum(not outcome.passed for outcome in outcomes),
        "tests": [
            {"name": o.name, "place": o.place, "passed": o.passed, "failures": o.failures} for o in outcomes
        ],
    }


def _print(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        if not outcome.passed:
            say(f"FAILED {outcome.place} {outcome.name}")
            for failure in outcome.failures:
                say(f"  {failure}")
    passed = sum(outcome.passed for outcome in outcomes)
    say(f"{passed} of {len(outcomes)} policy tests passed.")
