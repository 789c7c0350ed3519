from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from doorward.cedar import admission
from doorward.cedar.admission import PolicySource, admit
from doorward.cedar.parser_client import ask
from doorward.cedar.problems import RefusedPoliciesError
from doorward.core.errors import InvalidPolicyError
from doorward.core.feed import Bundle

Admit = Callable[..., Bundle]
READ = 'permit (principal, action == Doorward::Action::"read", resource)'


def refused(admit_text: Admit, text: str, *, guardrail: bool = False) -> list[tuple[str, str]]:
    with pytest.raises(RefusedPoliciesError) as caught:
        admit_text(text, guardrail=guardrail)
    return [(f"{p.file}:{p.line}:{p.column}", f"{p.message} | {p.hint}") for p in caught.value.problems]


def test_an_admitted_policy_keeps_its_id_text_place_and_tree(admit_text: Admit) -> None:
    bundle = admit_text(
        f'// said\n@id("one")\n@mask("email")\n{READ};\n@id("two") forbid (principal, action, resource);'
    )
    first, second = bundle.policies
    assert (first.id, first.place, first.effect) == ("one", "a.cedar:4", "permit")
    assert first.text == f'@id("one")\n@mask("email")\n{READ};'
    assert first.annotations == {"id": "one", "mask": "email"}
    assert first.tree["annotations"]["id"] == "one"
    assert (second.id, second.effect) == ("two", "forbid")


def test_the_digest_names_the_content(admit_text: Admit) -> None:
    once, again = admit_text(f'@id("a") {READ};'), admit_text(f'@id("a") {READ};')
    assert once.digest == again.digest
    assert once.digest.startswith("sha256:")
    assert once.digest != admit_text(f'@id("b") {READ};').digest


def test_nothing_is_admitted_as_an_empty_bundle(schema: str) -> None:
    assert admit([], schema).policies == ()
    assert admit([PolicySource("a.cedar", "// nothing yet\n")], schema).policies == ()


@pytest.mark.parametrize(
    ("text", "points_at", "said"),
    [
        (f"{READ};", "permit", "this policy has no @id"),
        (f'@id("") {READ};', "@id", "the @id is empty"),
        (f'@id("a b") {READ};', "@id", "cannot be an @id"),
        (f'@id("a") {READ};\n@id("a") {READ};', "@id", "used twice; first at a.cedar:1"),
        (
            f'@id("a")\n@maks("x") {READ};',
            "@maks",
            "there is no annotation @maks | Did you mean @mask?",
        ),
        (f'@id("a") @limit("5/minutes") {READ};', "@limit", "is not a limit | Write @limit("),
        (f'@id("a") {READ} whn {{ true }};', "whn", "invalid policy condition: whn"),
        (f'@id("a") {READ} when {{ true && && }};', "&& }", "unexpected token `&&`"),
        (f'@id("a") {READ} when {{ 1 = 2 }};', "= 2", "not a valid operator"),
        (f'@id("a") {READ}', ")", "the policy is not finished"),
        (
            f'@id("a") {READ}\nwhen {{ context.risk > 3 && context.zon == "x" }};',
            "zon",
            "attribute `zon`",
        ),
        (
            f'@id("a") {READ} when {{ context.purpose == "x" }};',
            "purpose",
            "| Ask for it first: `… has purpose && …`.",
        ),
        (
            '@id("a") permit (principal in Role::"x", action == Doorward::Action::"read", resource);',
            "Role",
            "| Write the full name, `Doorward::Role`, or let `doorward fmt` write it.",
        ),
        (
            '@id("a") permit (principal, action == Doorward::Action::"raed", resource);',
            '"raed"',
            "Did you mean `read`?",
        ),
        (
            '@id("a") permit (principal, action == Doorward::Action::"read", resource == ?resource);',
            "?",
            "a template",
        ),
    ],
)
def test_every_problem_has_its_place_and_fix(admit_text: Admit, text: str, points_at: str, said: str) -> None:
    found = refused(admit_text, text)
    offset = text.rindex(points_at)
    line, start = text.count("\n", 0, offset) + 1, text.rfind("\n", 0, offset) + 1
    assert found[0][0] == f"a.cedar:{line}:{offset - start + 1}"
    assert said in found[0][1]


@pytest.mark.parametrize("name", ["mask", "limit", "stepup", "readonly", "watermark", "cap"])
def test_an_obligation_on_a_forbid_is_refused(admit_text: Admit, name: str) -> None:
    value = {"mask": "a", "limit": "1/day", "stepup": "acr=a", "cap": "max_tokens=1"}.get(name)
    written = f'@{name}("{value}")' if value else f"@{name}"
    ((_, said),) = refused(admit_text, f'@id("a") {written} forbid (principal, action, resource);')
    assert said.startswith(f"@{name} on a forbid")


def test_advice_and_notify_on_a_forbid_are_admitted(admit_text: Admit) -> None:
    bundle = admit_text('@id("a") @advice("No.") @notify("owner") forbid (principal, action, resource);')
    assert bundle.policies[0].annotations["notify"] == "owner"


def test_all_problems_of_all_files_are_told_at_once(schema: str) -> None:
    sources = [PolicySource("b.cedar", f"{READ};"), PolicySource("c.cedar", f'@id("x") @mask("") {READ};')]
    with pytest.raises(RefusedPoliciesError) as caught:
        admit(sources, schema)
    assert [problem.file for problem in caught.value.problems] == ["b.cedar", "c.cedar"]


def test_ids_are_unique_across_files_and_guardrails(schema: str) -> None:
    forbid = '@id("x") forbid (principal, action, resource);'
    with pytest.raises(RefusedPoliciesError, match=r"used twice; first at a\.cedar:1"):
        admit([PolicySource("a.cedar", forbid), PolicySource("g.cedar", forbid, guardrail=True)], schema)


def test_a_permit_is_no_guardrail(admit_text: Admit) -> None:
    ((_, said),) = refused(admit_text, f'@id("a") {READ};', guardrail=True)
    assert "must be a `forbid`" in said


def test_a_broken_schema_is_named_as_such(schema: str) -> None:
    with pytest.raises(RefusedPoliciesError, match=r"schema\.cedarschema:3:3"):
        admit([], schema.replace("type Sensitivity", "tipe Sensitivity"))


def test_700_parentheses_are_refused_before_any_parser_sees_them(
    admit_text: Admit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "ask", lambda _: pytest.fail("the parser was asked"))
    bomb = "(" * 700 + "true" + ")" * 700
    ((_, said),) = refused(admit_text, f'@id("a") {READ} when {{ {bomb} }};')
    assert said.startswith("nested deeper than")


def test_a_bomb_past_the_caps_kills_only_the_parser_process(schema: str) -> None:
    bomb = f'@id("a") {READ} when {{ {"(" * 60_000}true{")" * 60_000} }};'
    question = {"text": bomb, "policies": [{"text": bomb, "ends": [len(bomb)]}]}
    with pytest.raises(InvalidPolicyError, match="did not survive this text"):
        ask({"do": "admit", "schema": schema, "files": [question]})


def test_a_parser_that_takes_too_long_is_a_refusal() -> None:
    with pytest.raises(InvalidPolicyError, match="took longer than"):
        ask({}, timeout=0.2, command=(sys.executable, "-c", "import time; time.sleep(30)"))


def test_the_parser_process_sees_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_KEY", "sk-secret")
    seen = ask({}, command=(sys.executable, "-c", "import os, json; print(json.dumps(dict(os.environ)))"))
    assert "LLM_KEY" not in seen


def test_a_file_the_parser_reads_differently_is_refused(schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def disagrees(question: dict[str, object]) -> dict[str, object]:
        answer = ask(question)
        answer["files"][0]["same"] = False
        return answer

    monkeypatch.setattr(admission, "ask", disagrees)
    with pytest.raises(RefusedPoliciesError, match="reads this file differently"):
        admit([PolicySource("a.cedar", f'@id("a") {READ};')], schema)


def test_too_many_policies_are_refused(schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doorward.cedar.caps.MAX_POLICIES", 2)
    text = "".join(f'@id("p{n}") {READ};' for n in range(3))
    with pytest.raises(RefusedPoliciesError, match="there are 3 policies; at most 2 are read"):
        admit([PolicySource("a.cedar", text)], schema)
