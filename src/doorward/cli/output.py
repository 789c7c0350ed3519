"""What every command shares: JSON or a table out, errors that teach, exit codes that mean something."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import IntEnum
from functools import wraps
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table

from doorward.core.errors import DoorwardError

P = ParamSpec("P")
R = TypeVar("R")


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    DENIED = 1
    USAGE = 2
    INVALID = 3
    TEST_FAILED = 4
    VIOLATED = 5
    UNKNOWN = 6
    AUDIT_BROKEN = 7
    UNREACHABLE = 8


_EXIT_OF = {
    "denied": Exit.DENIED,
    "not_found": Exit.DENIED,
    "conflict": Exit.DENIED,
    "unauthenticated": Exit.DENIED,
    "invalid_request": Exit.USAGE,
    "invalid_config": Exit.INVALID,
    "invalid_policy": Exit.INVALID,
    "audit_broken": Exit.AUDIT_BROKEN,
    "unavailable": Exit.UNREACHABLE,
    "audit_unavailable": Exit.UNREACHABLE,
}

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def emit_json(data: Any) -> None:
    """Print one JSON document and a newline."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n")


def say(text: str) -> None:
    """Print text for people at once and as it is: no markup, nothing that acts on a terminal."""
    sys.stdout.write("\n".join(printable(line) for line in text.split("\n")) + "\n")
    # `up` and `demo` go on for hours: whoever reads a pipe or a file must see it now.
    sys.stdout.flush()


def width() -> int:
    """Return how many columns a table may fill."""
    return Console().width


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    unwrapped: Collection[str] = (),
    header: bool = True,
) -> None:
    """Print a table for people; cell text is never read as markup.

    Cells are folded, never cut: an id or a name that ends in dots cannot be copied. The
    `unwrapped` columns take the room they need and the others share the rest.
    """
    headings = (Column(name, overflow="fold", no_wrap=name in unwrapped) for name in columns)
    grid = Table(*headings, box=None, pad_edge=False, header_style="bold", show_header=header)
    for row in rows:
        grid.add_row(*(_plain(cell) for cell in row))
    Console(highlight=False).print(grid)


def _plain(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text).replace("[", "\\[")


def printable(text: str) -> str:
    """Return text in which nothing can act on a terminal: controls, ANSI, bidi, line separators escaped."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def fail(error: DoorwardError) -> NoReturn:
    """Print what happened and what to do next on stderr, and exit with the error's code."""
    sys.stderr.write(f"doorward: {error}\n")
    raise typer.Exit(_EXIT_OF.get(error.code, Exit.DENIED))


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn a DoorwardError raised by a command into its message and exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except DoorwardError as error:
            fail(error)

    return run
