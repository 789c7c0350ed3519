"""Cedar's tokens with their places: what the caps count and what error messages point at.

The lexical rules are Cedar's own; admission compares what they find with what the parser found, so a
disagreement is a refusal and never a policy read in two ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

import msgspec

_TOKEN = re.compile(
    r"""
    (?P<SPACE>\s+ | //[^\n\r]*)
  | (?P<NAME>[_a-zA-Z][_a-zA-Z0-9]*)
  | (?P<NUMBER>[0-9]+)
  | (?P<TEXT>"(?:\\.|[^"\\])*")
  | (?P<SIGN>::|==|!=|<=|>=|&&|\|\||[@()\[\]{},;.:<>!+\-*/%?=|&])
    """,
    re.VERBOSE,
)


class Kind(Enum):
    """Say what a token is; `WRONG` is a character no token begins with."""

    NAME = "NAME"
    NUMBER = "NUMBER"
    TEXT = "TEXT"
    SIGN = "SIGN"
    WRONG = "WRONG"


_KINDS = {kind.value: kind for kind in Kind}


class Token(NamedTuple):
    """One token; `start` and `end` are offsets into the text it was read from."""

    kind: Kind
    text: str
    start: int
    end: int


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of `text`, comments and white space left out; stop after the first wrong one."""
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            yield Token(Kind.WRONG, text[at], at, at + 1)
            return
        kind = _KINDS.get(found.lastgroup or "")
        if kind is not None:
            yield Token(kind, found[0], at, found.end())
        at = found.end()


class Annotation(msgspec.Struct, frozen=True):
    """Name one annotation and where its name stands."""

    name: str
    start: int


class Span(msgspec.Struct, frozen=True):
    """One policy inside a file: its tokens, its text's bounds and its annotations."""

    tokens: tuple[Token, ...]
    annotations: tuple[Annotation, ...]

    @property
    def start(self) -> int:
        """Return the offset of the first character."""
        return self.tokens[0].start

    @property
    def end(self) -> int:
        """Return the offset after the last character."""
        return self.tokens[-1].end

    @property
    def head(self) -> Token:
        """Return the token the policy is best known by: `permit` or `forbid`, else its first."""
        for token in self.tokens:
            if token.text in {"permit", "forbid"}:
                return token
        return self.tokens[0]


def split(stream: Iterator[Token]) -> Iterator[Span]:
    """Yield the policies of a file: what ends with a `;` outside brackets, and what is left over."""
    part: list[Token] = []
    depth = 0
    for token in stream:
        part.append(token)
        if token.kind is Kind.SIGN:
            depth += (token.text in "([{") - (token.text in ")]}")
            if token.text == ";" and depth <= 0:
                yield _span(part)
                part, depth = [], 0
    if part:
        yield _span(part)


def _span(part: list[Token]) -> Span:
    found: list[Annotation] = []
    at = 0
    while at + 1 < len(part) and part[at].text == "@":
        found.append(Annotation(part[at + 1].text, part[at].start))
        at += 2
        if at + 2 < len(part) and part[at].text == "(":
            at += 3
    return Span(tuple(part), tuple(found))
