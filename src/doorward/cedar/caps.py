"""Bounds on policy text, counted on tokens before any parser sees it.

Cedar's parser is recursive: 700 nested parentheses end the process that reads them (upstream issue
cedar-policy/cedar#2383), and long chains of operators end a thread with a short stack at evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator

from doorward.cedar.problems import File, Problem
from doorward.cedar.tokens import Kind, Token, tokens

MAX_FILE = 1024 * 1024
MAX_TOTAL = 8 * 1024 * 1024
MAX_POLICIES = 20_000
MAX_NESTING = 32
MAX_CHAIN = 50
_OPEN = {"(": ")", "[": "]", "{": "}"}
_CHAINED = frozenset({"||", "&&", "+", "-", "*", ".", "!"})


def oversized(file: File) -> Problem | None:
    """Return a problem when the file holds more bytes than one may."""
    size = len(file.text.encode(errors="surrogatepass"))
    if size <= MAX_FILE:
        return None
    return Problem(
        file=file.name,
        line=1,
        column=1,
        message=f"the file holds {size:,} bytes; at most {MAX_FILE:,} are read",
        hint="Split it into several files.",
    )


def exceeded(file: File, *, schema: bool = False) -> Iterator[Problem]:
    """Yield the first problem of the text: a wrong character, wrong brackets, too deep, too long a chain."""
    frames: list[_Frame] = [_Frame(None)]
    for token in tokens(file.text):
        wrong = _step(frames, token, schema=schema)
        if wrong is not None:
            yield file.problem(token.start, *wrong)
            return
    if len(frames) > 1 and (opened := frames[-1].opened) is not None:
        yield file.problem(opened.start, f"`{opened.text}` is never closed", f"Add `{_closing(opened)}`.")


class _Frame:
    """What is open: a bracket, the `if`s inside it, and the operators chained in it."""

    __slots__ = ("chain", "ifs", "opened")

    def __init__(self, opened: Token | None) -> None:
        self.opened = opened
        self.ifs = 0
        self.chain = 0


def _closing(opened: Token) -> str:
    return _OPEN.get(opened.text, ">")


def _step(frames: list[_Frame], token: Token, *, schema: bool) -> tuple[str, str] | None:
    if token.kind is Kind.WRONG:
        return _wrong_character(token.text)
    frame = frames[-1]
    if token.text in _OPEN or (schema and token.text == "<"):
        frames.append(_Frame(token))
    elif token.text in {")", "]", "}"} or (schema and token.text == ">"):
        if frame.opened is None or _closing(frame.opened) != token.text:
            return f"`{token.text}` closes nothing that is open", "Remove it, or open its bracket."
        frames.pop()
    elif token.text == "if":
        frame.ifs += 1
    elif token.text in {";", ","}:
        frame.chain = frame.ifs = 0
    elif token.text in _CHAINED and not schema:
        frame.chain += 1
        if frame.chain > MAX_CHAIN:
            return (
                f"more than {MAX_CHAIN} operators stand in one chain",
                "Use a set with `contains`, or several policies.",
            )
    if len(frames) - 1 + sum(open_.ifs for open_ in frames) > MAX_NESTING:
        return f"nested deeper than {MAX_NESTING} levels", "Split it into several policies."
    return None


def _wrong_character(text: str) -> tuple[str, str]:
    if text == '"':
        return "this text is never closed", 'Add a closing `"`; write `\\"` for a quote inside text.'
    if text == "\ufeff":
        return "a byte order mark stands here", "Save the file as UTF-8 without one."
    return f"`{text.encode('unicode_escape').decode()}` begins nothing Cedar knows", "Remove it."
