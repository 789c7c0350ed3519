"""What is wrong with a policy file, where, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import msgspec

from doorward.core.errors import InvalidPolicyError

_SHOWN = 160


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One error: place (line and column from 1), sentence, the line it stands in, and the fix."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    snippet: str = ""

    def __str__(self) -> str:
        """Return `file:line:col: sentence`, the line with a mark under the place, and the fix."""
        lines = [f"{self.file}:{self.line}:{self.column}: {self.message}"]
        if self.snippet:
            number = str(self.line)
            lines += [
                f"  {number} | {self.snippet}",
                f"  {' ' * len(number)} | {' ' * (self.column - 1)}^",
            ]
        if self.hint:
            lines.append(f"  {self.hint}")
        return "\n".join(lines)


class RefusedPoliciesError(InvalidPolicyError):
    """A set of policies is refused at admission, for all the reasons in `problems`."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Say every problem, one after the other."""
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class File(msgspec.Struct, frozen=True):
    """A file's name and text, able to say where an offset stands."""

    name: str
    text: str

    def place(self, offset: int) -> tuple[int, int]:
        """Return line and column, both from 1."""
        start = self.text.rfind("\n", 0, offset) + 1
        return self.text.count("\n", 0, offset) + 1, offset - start + 1

    def problem(self, offset: int, message: str, hint: str = "") -> Problem:
        """Return a problem at `offset` with its line; long lines and control characters are not shown."""
        line, column = self.place(offset)
        start = offset - column + 1
        end = self.text.find("\n", start)
        snippet = self.text[start : end if end >= 0 else len(self.text)].rstrip("\r")
        shown = "".join(c if c.isprintable() else " " for c in snippet) if len(snippet) <= _SHOWN else ""
        return Problem(file=self.name, line=line, column=column, message=message, hint=hint, snippet=shown)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the word most like `word`, or None when none is."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return found[0] if found else None
