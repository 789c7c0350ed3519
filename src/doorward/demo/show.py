"""What the demo prints: a spinner on a terminal, plain lines elsewhere, one line per beat in any case."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PLAIN_WIDTH = 160


class Show:
    """Print the story to stdout; with `quiet` (JSON wanted) everything goes to stderr."""

    def __init__(self, *, quiet: bool) -> None:
        """Look at the terminal once."""
        stream = sys.stderr if quiet else sys.stdout
        # A pipe has no width: lines are written whole, and a table is not squeezed into eighty columns.
        width = None if stream.isatty() else _PLAIN_WIDTH
        self._console = Console(file=stream, highlight=False, soft_wrap=True, width=width)
        self._live = self._console.is_terminal

    def line(self, text: str = "", *, style: str = "") -> None:
        """Print one line."""
        self._console.print(_safe(text), style=style or None)

    def title(self, text: str) -> None:
        """Print a heading."""
        self.line()
        self.line(text, style="bold")

    @contextmanager
    def doing(self, text: str, *, plainly: bool = True) -> Iterator[None]:
        """Show that something is under way; off a terminal as a line of its own, if `plainly`."""
        if not self._live:
            if plainly:
                self.line(f"..    {text}")
            yield
            return
        with self._console.status(_safe(text)):
            yield

    def beat(self, number: int, title: str, lines: Iterable[str], *, held: bool) -> None:
        """Print the one line of a beat, and under it what the clients printed."""
        mark, style = ("ok", "green") if held else ("FAILED", "bold red")
        self._console.print(f"[{style}]{mark:<6}[/] {number:>2}  {_safe(title)}")
        for text in lines:
            self._console.print(f"            {_safe(text)}", style="dim")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print a table."""
        grid = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            grid.add_column(column, overflow="fold")
        for row in rows:
            grid.add_row(*(_safe(str(cell)) for cell in row))
        self._console.print(grid)


def _safe(text: str) -> str:
    """Return text in which nothing is markup and nothing can act on the terminal."""
    return escape("".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text))
