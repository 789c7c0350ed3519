"""What a person reads about a decision, and that nothing in it hides."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest

from doorward.console.presentation import Name, row, why
from doorward.console.render import environment, fragment, visible

TEMPLATES = files("doorward.console").joinpath("templates")
ADDRESS = {"__extn": {"fn": "ip", "arg": "10.0.0.1"}}
DEVICE = {"__entity": {"type": "Doorward::Device", "id": "d"}}
RECORD: dict[str, Any] = {
    "kind": "decision", "id": "01D", "request_id": "01R", "time": "2026-11-23T13:02:11.123Z", "seq": 4,
    "writer": "gateway", "decision": "deny", "code": "denied", "principal": 'User::"dana"',
    "action": "read", "resource": 'Dataset::"store/training/a.csv"', "upstream": "store",
    "determining": [], "errors": ["p: no attribute"], "would_allow": [{"say": "Sign in.", "change": "x"}],
    "obligations": [{"type": "mask", "fields": ["email", "phone"]}],
    "context": {"now": "x", "device": {"proven": False, "id": DEVICE}, "network": {"ip": ADDRESS}},
}  # fmt: skip


def test_a_row_says_who_did_what_to_which_and_when() -> None:
    line = row(RECORD)
    assert (line.principal, line.action, line.resource) == (
        Name("User", "dana"), "read", Name("Dataset", "store/training/a.csv"),
    )  # fmt: skip
    assert (line.clock, line.day, line.allowed, line.word) == (
        "13:02:11", "2026-11-23", False, "Denied by policy",
    )  # fmt: skip


def test_nobody_and_an_unnamed_resource_are_said_so() -> None:
    line = row({"decision": "deny", "code": "unauthenticated", "request": {"path": "/llm/v1/models"}})
    assert (line.principal.name, line.resource.name) == ("nobody", "/llm/v1/models")
    assert line.word == "Nobody proved who they are"


def test_details_show_values_as_people_write_them() -> None:
    details = why([RECORD, {"kind": "outcome", "outcome": {"status": 200, "bytes": 12}}])
    assert details is not None
    context = {fact.name: fact.value for fact in details.context}
    assert context == {"device.id": 'Device::"d"', "device.proven": "no", "network.ip": "10.0.0.1"}
    assert {fact.name for fact in details.outcome} == {"status", "bytes"}
    assert details.obligations[0].value == "fields email, phone"
    assert details.errors == ("p: no attribute",)


def test_without_a_decision_on_record_there_are_no_details() -> None:
    assert why([{"kind": "outcome"}]) is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain ünïcode 名前", "plain ünïcode 名前"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("a\r\nb\x1b[31m\0", "a\\u000d\\u000ab\\u001b[31m\\u0000"),
        ("\U000e0041", "\\U000e0041"),
        ("\u2028", "\\u2028"),
        (None, ""),
    ],
)
def test_what_cannot_be_seen_is_spelt_out(given: str | None, shown: str) -> None:
    assert visible(given) == shown


def test_text_is_bounded_and_says_how_long_it_was() -> None:
    assert visible("x" * 3000).endswith("(3000 characters)")


def test_templates_escape_and_spell_out_everything_they_print() -> None:
    template = environment().from_string("<p title='{{ x }}'>{{ x }}</p>")
    assert template.render(x="<'\u202e>") == "<p title='&lt;&#39;\\u202e&gt;'>&lt;&#39;\\u202e&gt;</p>"


def test_a_row_never_spans_a_line_of_its_own_making() -> None:
    """Server-sent events end at a newline: a name must not end one."""
    record = {**RECORD, "principal": 'User::"a\\n\\ndata: <tr>"', "request_id": "x\n\ndata: y"}
    html = fragment("_rows.html", rows=[row(record)], fresh=True)
    assert "\ndata:" not in html


def test_no_template_marks_anything_as_safe() -> None:
    sources = [template.read_text("utf-8") for template in TEMPLATES.iterdir()]
    assert len(sources) > 10
    assert not [source for source in sources if "safe" in source or "autoescape" in source]
