"""`doorward audit`: see, search, verify and export what happened; works without a running process."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli import audit_rows
from doorward.cli.connection import DEFAULT_DATA, DataOption
from doorward.cli.output import Exit, JsonFlag, guarded, printable, say
from doorward.core.errors import UnavailableError

if TYPE_CHECKING:
    from doorward.audit.reader import AuditReader
    from doorward.audit.verify import Break, Report

AUDIT_DIRECTORY = "audit"
_POLL = 0.2

_Number = Annotated[int, typer.Option("-n", "--number", min=0, help="How many of the newest records.")]
_Principal = Annotated[str, typer.Option(help='A name (dana) or an entity (User::"dana").')]
_Since = Annotated[str, typer.Option(help="2026-11-23T08:00:00Z, 2026-11-23, or 15m, 2h, 7d ago.")]
_Until = Annotated[str, typer.Option(help="Like --since; records before it.")]
_Wide = Annotated[bool, typer.Option("--wide", help="Whole dates, names and request ids.")]
_Kind = Annotated[str, typer.Option(help="decision, outcome, admin or log.")]


def register(app: typer.Typer) -> None:
    """Add `audit` and its commands."""
    noun = typer.Typer(no_args_is_help=True, help="What happened: see, search, verify, export.")
    for name, command in (("tail", tail), ("search", search), ("verify", verify), ("export", export)):
        noun.command(name)(guarded(command))
    app.add_typer(noun, name="audit")


def tail(  # noqa: PLR0913 -- one option per choice
    *,
    data: DataOption = DEFAULT_DATA,
    number: _Number = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as records come.")] = False,
    kind: _Kind = "",
    wide: _Wide = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the newest records, oldest of them first."""
    from doorward.audit.follow import Follower
    from doorward.audit.query import Query

    query = Query(kind=kind)
    reader = _reader(data)
    follower = Follower(reader, query=query)
    shown = _show(reversed(reader.latest(number, query).records), as_json=as_json, wide=wide)
    try:
        while follow:
            shown |= _show(follower.poll(), as_json=as_json, wide=wide, header=not shown)
            time.sleep(_POLL)
    except KeyboardInterrupt:
        return


def search(  # noqa: PLR0913 -- one option per condition
    *,
    data: DataOption = DEFAULT_DATA,
    principal: _Principal = "",
    decision: Annotated[str, typer.Option(help="allow or deny.")] = "",
    action: Annotated[str, typer.Option(help="read, export, deploy, ...")] = "",
    resource: Annotated[str, typer.Option(help="A name (store/training) or an entity.")] = "",
    code: Annotated[str, typer.Option(help="denied, limit_exceeded, unauthenticated, ...")] = "",
    kind: _Kind = "",
    request: Annotated[str, typer.Option("--request", help="A Doorward-Request-Id.")] = "",
    since: _Since = "",
    until: _Until = "",
    text: Annotated[str, typer.Option(help="Text anywhere in the record.")] = "",
    number: _Number = 0,
    wide: _Wide = False,
    as_json: JsonFlag = False,
) -> None:
    """Find records that meet every condition given; with -n only the newest so many."""
    from doorward.audit.query import Query, moment

    now = _now()
    query = Query(
        principal=principal, decision=decision, action=action, resource=resource, code=code, kind=kind,
        request_id=request, since=moment(since, now), until=moment(until, now), text=text,
    )  # fmt: skip
    reader = _reader(data)
    found = reversed(reader.latest(number, query).records) if number else reader.records(query)
    _show(found, as_json=as_json, wide=wide)


def export(
    *,
    data: DataOption = DEFAULT_DATA,
    since: _Since = "",
    until: _Until = "",
    as_json: JsonFlag = False,  # noqa: ARG001 -- JSON lines are the only form
) -> None:
    """Print every record, one a line, as JSON in plain ASCII."""
    from doorward.audit.query import Query, moment

    now = _now()
    query = Query(since=moment(since, now), until=moment(until, now))
    _show(_reader(data).records(query), as_json=True)


def verify(
    *,
    data: DataOption = DEFAULT_DATA,
    key: Annotated[
        Path | None, typer.Option(help="Your own copy of the public key that signs checkpoints (PEM).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Prove that no record was changed, removed, reordered or cut; name the first one that was (exit 7)."""
    from doorward.audit.head import PUBLIC_KEY_NAME
    from doorward.audit.signature import checker
    from doorward.audit.verify import verify as run

    directory = data / AUDIT_DIRECTORY
    place = key or directory / PUBLIC_KEY_NAME
    pem = place.read_bytes() if key is not None or place.exists() else None
    report = run(directory, check_signature=None if pem is None else checker(pem, directory))
    _report(report, as_json=as_json, signed=pem is not None)
    if not report.intact:
        raise typer.Exit(Exit.AUDIT_BROKEN)


def _now() -> Any:
    from doorward.core.clock import SystemClock

    return SystemClock().now()


def _report(report: Report, *, as_json: bool, signed: bool) -> None:
    import msgspec

    if as_json:
        sys.stdout.write(
            json.dumps({"intact": report.intact, **msgspec.to_builtins(report)}, indent=2) + "\n"
        )
        return
    for each in report.writers:
        state = "BROKEN" if each.broken else "intact"
        say(printable(f"{each.writer:<10} {each.records:>9,} records  {state}"))
        for note in each.notes:
            say(printable(f"  note: {note}"))
    if report.covered:
        state = "signature checked" if signed else "signature NOT checked: no key, give one with --key"
        say(f"checkpoint of {printable(report.covered)}: {state}")
    for found in report.broken:
        say(printable(_sentence(found)))


def _sentence(found: Break) -> str:
    who = f"{found.writer}: " if found.writer else ""
    record = f"record {found.seq}" + (f" ({found.id})" if found.id else "") if found.seq else "the log"
    place = f" in {found.segment}" if found.segment else ""
    return f"BROKEN  {who}{record}{place} {_VERBS.get(found.what, found.what)}: {found.detail}"


_VERBS = {
    "changed": "was changed", "removed": "was removed", "reordered": "was reordered",
    "duplicated": "was duplicated", "cut": "was cut off", "added": "was added",
    "missing": "is missing", "unsigned": "is not signed by this key",
}  # fmt: skip


def _reader(data: Path) -> AuditReader:
    """Open the log; an empty answer must never mean that nobody looked in the right place."""
    from doorward.audit.reader import AuditReader

    directory = data / AUDIT_DIRECTORY
    if not directory.is_dir():
        raise UnavailableError(
            f"there is no log in {directory}",
            hint="Start Doorward with `doorward up`, or name its data directory with --data.",
        )
    return AuditReader(directory)


def _show(
    records: Iterable[Mapping[str, Any]], *, as_json: bool, wide: bool = False, header: bool = True
) -> bool:
    """Print records, return whether there were any; a reader that leaves (`| head`) is no error."""
    found = False
    try:
        if as_json:
            for record in records:
                found = True
                sys.stdout.write(json.dumps(record, sort_keys=True, ensure_ascii=True) + "\n")
        else:
            found = audit_rows.show(records, today=_now().date(), wide=wide, header=header)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
        raise typer.Exit(Exit.OK) from None
    return found
