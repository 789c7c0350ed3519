"""Match `like`: a pattern of literal characters and wildcards against a whole text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def matcher(pattern: list[Any]) -> Callable[[str], bool]:
    """Compile a pattern; matching is linear in the text for each part, without backtracking."""
    pieces: list[str] = [""]
    for part in pattern:
        if part == "Wildcard":
            pieces.append("")
        else:
            pieces[-1] += part["Literal"]
    first, last, middle = pieces[0], pieces[-1], [piece for piece in pieces[1:-1] if piece]
    if len(pieces) == 1:
        return lambda text: text == first
    if not middle:
        least = len(first) + len(last)
        return lambda text: len(text) >= least and text.startswith(first) and text.endswith(last)

    def matches(text: str) -> bool:
        end = len(text) - len(last)
        at = len(first)
        if end < at or not text.startswith(first) or not text.endswith(last):
            return False
        # The leftmost place for each part leaves the most room for those after it.
        for piece in middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    return matches
