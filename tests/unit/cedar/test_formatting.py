# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
from __future__ import annotations

import pytest

from doorward.cedar.admission import PolicySource, admit
from doorward.cedar.formatting import declared_types, formatted, with_full_names
from doorward.cedar.problems import RefusedPoliciesError

SHORT = """
// Role::"x" in a comment stays
@id("a")@doc("Role::\\"x\\" is User")permit(principal is User in Role::"x",action in [Action::"read",Doorward::Action::"view"],resource)when{resource is Dataset&&
// why
Doorward::Role::"x" != Role::"y"};
"""


def test_short_names_are_written_in_full_and_only_names(schema: str) -> None:
    full = with_full_names(SHORT, schema)
    assert '// Role::"x" in a comment stays' in full
    assert '@doc("Role::\\"x\\" is User")' in full
    assert 'principal is Doorward::User in Doorward::Role::"x"' in full
    assert '[Doorward::Action::"read",Doorward::Action::"view"]' in full
    assert "resource is Doorward::Dataset" in full
    assert 'Doorward::Role::"x" != Doorward::Role::"y"' in full


def test_formatting_twice_changes_nothing_more(schema: str) -> None:
    once = formatted(PolicySource("a.cedar", SHORT), schema)
    assert formatted(PolicySource("a.cedar", once), schema) == once
    assert "// why" in once
    assert admit([PolicySource("a.cedar", once)], schema).policies[0].id == "a"


def test_an_empty_file_stays_empty(schema: str) -> None:
    assert formatted(PolicySource("a.cedar", ""), schema) == ""


@pytest.mark.parametrize("text", ["permit (", "permit (principal, action);", "(" * 700])
def test_what_does_not_parse_is_refused(schema: str, text: str) -> None:
    with pytest.raises(RefusedPoliciesError):
        formatted(PolicySource("a.cedar", text), schema)


def test_all_entity_types_of_the_schema_are_known(schema: str) -> None:
    assert {"Role", "Project", "Group", "Environment", "User", "Model", "Control", "Key"} <= declared_types(
        schema
    )
    assert not declared_types(schema) & {"view", "Context", "Sensitivity", "in", "enum"}
