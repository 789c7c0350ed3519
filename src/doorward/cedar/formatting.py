"""One way to write policies: Cedar's own layout, and every name in full."""

from __future__ import annotations

from collections.abc import Iterator

from doorward.cedar.admission import PolicySource
from doorward.cedar.caps import exceeded, oversized
from doorward.cedar.parser_client import ask
from doorward.cedar.problems import File, RefusedPoliciesError
from doorward.cedar.tokens import Kind, Token, tokens
from doorward.core.model import NAMESPACE

WIDTH = 100


def formatted(source: PolicySource, schema: str) -> str:
    """Return the file's text in the one layout; formatting that again changes nothing.

    Raises RefusedPoliciesError for text over the caps or that does not parse.
    """
    file = File(source.name, source.text)
    over = [problem for problem in (oversized(file),) if problem] or [*exceeded(file)]
    if over:
        raise RefusedPoliciesError(over)
    full = with_full_names(source.text, schema)
    answer = ask({"do": "format", "text": full, "width": WIDTH})
    if "error" in answer:
        raise RefusedPoliciesError(
            [file.problem(0, f"this file does not parse: {answer['error']}", "`doorward check` says where.")]
        )
    return str(answer["text"]).rstrip("\n") + "\n" if str(answer["text"]).strip() else ""


def with_full_names(text: str, schema: str) -> str:
    """Return the text with `Role::"x"` written `Doorward::Role::"x"`, and `is User` likewise."""
    known = declared_types(schema) | {"Action"}
    at, parts = 0, []
    for token in _short(list(tokens(text)), known):
        parts += [text[at : token.start], f"{NAMESPACE}::"]
        at = token.start
    return "".join([*parts, text[at:]])


def declared_types(schema: str) -> frozenset[str]:
    """Return the names of the entity types a schema declares."""
    found: set[str] = set()
    stream = tokens(schema)
    before = ""
    for token in stream:
        if token.text == "entity" and before in {"{", "}", ";", "]", ""}:
            for name in stream:
                if name.kind is Kind.NAME and name.text not in {"in", "enum", "tags"}:
                    found.add(name.text)
                elif name.text != ",":
                    token = name  # noqa: PLW2901 -- the declaration's names end here
                    break
        before = token.text
    return frozenset(found)


def _short(stream: list[Token], known: frozenset[str]) -> Iterator[Token]:
    for number, token in enumerate(stream):
        if token.kind is not Kind.NAME or token.text not in known:
            continue
        before = stream[number - 1].text if number else ""
        after = stream[number + 1].text if number + 1 < len(stream) else ""
        named = after == "::" and before != "::" and _is_text(stream, number + 2)
        if named or (before == "is" and after != "::"):
            yield token


def _is_text(stream: list[Token], number: int) -> bool:
    return number < len(stream) and stream[number].kind is Kind.TEXT
