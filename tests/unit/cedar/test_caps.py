from __future__ import annotations

import pytest

from doorward.cedar.caps import MAX_CHAIN, MAX_FILE, MAX_NESTING, exceeded, oversized
from doorward.cedar.problems import File


def problems(text: str, *, schema: bool = False) -> list[str]:
    return [problem.message for problem in exceeded(File("a.cedar", text), schema=schema)]


def when(condition: str) -> str:
    return f'@id("a") permit (principal, action, resource) when {{ {condition} }};'


@pytest.mark.parametrize(
    "condition",
    [
        "(" * 700 + "true" + ")" * 700,
        "[" * 800 + "]" * 800 + " == 1",
        "if true then true else " * 5000 + "true",
        "!(" * 1000 + "true" + ")" * 1000,
        '{"a": ' * 100 + "1" + "}" * 100 + " == 1",
    ],
    ids=["parentheses", "sets", "ifs", "nots", "records"],
)
def test_a_policy_nested_too_deep_is_refused(condition: str) -> None:
    assert problems(when(condition)) == [f"nested deeper than {MAX_NESTING} levels"]


@pytest.mark.parametrize(
    "condition",
    [
        " && ".join(["true"] * 20_000),
        " || ".join(["true"] * 20_000),
        " + ".join(["1"] * 200) + " == 1",
        "context" + ".a" * 5000,
        "!" * 200 + "true",
    ],
    ids=["and", "or", "plus", "dots", "nots"],
)
def test_a_chain_of_operators_too_long_is_refused(condition: str) -> None:
    assert problems(when(condition)) == [f"more than {MAX_CHAIN} operators stand in one chain"]


def test_what_stands_in_text_and_comments_is_not_counted() -> None:
    brackets, dots = "(" * 700, "." * 700
    assert problems(when(f'"{brackets}{dots}" == "\\"{brackets}"') + f"\n// {brackets} && {dots}") == []


def test_nesting_and_chains_up_to_the_caps_pass() -> None:
    depth = MAX_NESTING - 1  # the braces of `when` are one level
    assert problems(when("(" * depth + "true" + ")" * depth)) == []
    assert problems(when(" && ".join(["true"] * (MAX_CHAIN + 1)))) == []


def test_a_comment_ends_where_cedar_ends_it() -> None:
    assert problems("// harmless \r" + when("(" * 700 + "true" + ")" * 700)) != []


def test_many_policies_do_not_make_a_chain() -> None:
    assert problems(when("true && true") * 500) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('permit (principal, action, resource) when { "a };', "this text is never closed"),
        ("permit (principal, action, resource) when {", "`{` is never closed"),
        ("permit (principal, action, resource) } ;", "`}` closes nothing that is open"),
        ("permit (principal, action, resource) when { (1] };", "`]` closes nothing that is open"),
        ("\ufeffpermit (principal, action, resource);", "a byte order mark stands here"),
        ("permit (principal, action, resource) #;", "`#` begins nothing Cedar knows"),
        ("permit (principal, action, resource)\0;", "`\\x00` begins nothing Cedar knows"),
    ],
)
def test_what_no_policy_can_hold_is_named(text: str, message: str) -> None:
    assert problems(text) == [message]


def test_a_schema_nested_too_deep_is_refused() -> None:
    bomb = "entity A = { x: " + "Set<" * 10_000 + "Long" + ">" * 10_000 + " };"
    assert problems(bomb, schema=True) == [f"nested deeper than {MAX_NESTING} levels"]


def test_a_file_too_large_is_refused() -> None:
    assert oversized(File("a.cedar", "a" * MAX_FILE)) is None
    refused = oversized(File("a.cedar", "é" * (MAX_FILE // 2 + 1)))
    assert refused is not None
    assert "bytes" in refused.message


def test_a_problem_shows_its_line_with_a_mark_under_the_place() -> None:
    (problem,) = exceeded(File("a.cedar", "\n  permit # ;"))
    assert (problem.line, problem.column) == (2, 10)
    assert str(problem).splitlines()[1:3] == ["  2 |   permit # ;", "    |          ^"]
