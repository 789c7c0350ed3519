# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from doorward.cli import can, check, fmt, test
from support.policies import ORG, STARTER

TRAINING = 'Dataset::"store/training/customers.csv"'


def dw(*arguments: str | Path) -> Result:
    app = typer.Typer()
    for command in (check, fmt, test, can):
        command.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STARTER, tmp_path / "policies"))


@pytest.fixture
def org(tmp_path: Path) -> Path:
    file = tmp_path / "org.yaml"
    file.write_text(ORG)
    return file


# check


def test_good_policies_are_exit_0(policies: Path) -> None:
    result = dw("check", policies, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ok"] is True
    assert dw("check", policies).exit_code == 0


def test_every_error_is_said_with_place_and_fix(policies: Path) -> None:
    (policies / "bad.cedar").write_text('@id("a")\n@maks("x")\npermit (principal is User, action, resource);')
    result = dw("check", policies)
    assert result.exit_code == 3
    assert f"{policies}/bad.cedar:2:1: there is no annotation @maks" in result.stderr
    assert "Did you mean @mask?" in result.stderr
    assert f"{policies}/bad.cedar:3:22: unrecognized entity type `User`" in result.stderr
    problems = json.loads(dw("check", policies, "--json").stdout)["problems"]
    assert [(p["line"], p["column"]) for p in problems] == [(2, 1), (3, 22)]
    assert all(p["message"] and p["hint"] and p["snippet"] for p in problems)


def test_700_parentheses_are_exit_3(policies: Path) -> None:
    bomb = "(" * 700 + "true" + ")" * 700
    (policies / "bomb.cedar").write_text(f'@id("a") permit (principal, action, resource) when {{ {bomb} }};')
    assert dw("check", policies).exit_code == 3


def test_a_directory_that_is_not_there_is_exit_3_in_json_too(tmp_path: Path) -> None:
    result = dw("check", tmp_path / "none", "--json")
    assert (result.exit_code, json.loads(result.stdout)["ok"]) == (3, False)


# fmt


def test_an_obligation_no_upstream_keeps_is_noted(policies: Path) -> None:
    (policies / "more.cedar").write_text(
        '@id("chat")\n@redact("pii")\npermit (principal, action == Doorward::Action::"invoke", resource is Doorward::Model);'
    )
    result = dw("check", policies)
    assert result.exit_code == 0
    assert "more.cedar:3: policy `chat` asks for @redact" in result.stdout


def test_fmt_changes_once_and_check_says_so(policies: Path) -> None:
    file = policies / "x.cedar"
    file.write_text('@id("x")permit(principal in Role::"r",action,resource);')
    assert dw("fmt", policies, "--check").exit_code == 1
    assert json.loads(dw("fmt", policies, "--json").stdout) == {"changed": [str(file)], "written": True}
    assert 'principal in Doorward::Role::"r"' in file.read_text()
    assert dw("fmt", policies, "--check").exit_code == 0
    assert dw("check", policies).exit_code == 0


def test_fmt_writes_nothing_when_one_file_does_not_parse(policies: Path) -> None:
    (policies / "a.cedar").write_text('@id("x")permit(principal,action,resource);')
    (policies / "z.cedar").write_text("permit (")
    assert dw("fmt", policies).exit_code == 3
    assert (policies / "a.cedar").read_text() == '@id("x")permit(principal,action,resource);'


# test


def test_passing_tests_are_exit_0(policies: Path) -> None:
    result = dw("test", policies, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["failed"] == 0


def test_a_failing_test_is_exit_4_and_named(policies: Path) -> None:
    file = policies / "story_test.yaml"
    file.write_text(
        file.read_text().replace("determining: [release-manager-deploys]", "determining: [other]")
    )
    result = dw("test", policies)
    assert result.exit_code == 4
    assert "expected determining [other], got [release-manager-deploys]" in result.stdout


def test_an_unknown_key_is_exit_3(policies: Path) -> None:
    file = policies / "story_test.yaml"
    file.write_text(
        file.read_text().replace("    expect: { decision: deny }", "    expect: { decison: deny }", 1)
    )
    result = dw("test", policies)
    assert result.exit_code == 3
    assert "Did you mean `decision`?" in result.stderr


def test_a_request_that_cannot_be_read_is_exit_3(policies: Path) -> None:
    file = policies / "story_test.yaml"
    file.write_text(file.read_text().replace("action: deploy", "action: deplyo", 1))
    result = dw("test", policies)
    assert result.exit_code == 3
    assert "Did you mean deploy?" in result.stderr


def test_tests_without_entities_take_the_org_file(policies: Path, org: Path) -> None:
    (policies / "story_test.yaml").unlink()
    (policies / "mine_test.yaml").write_text(
        """tests: [{ name: n, request: { principal: 'User::"bea"', action: invoke, resource: 'Model::"llm/smollm2"' }, """
        """expect: { decision: allow } }]"""
    )
    assert dw("test", policies, "--org", org).exit_code == 0


def test_a_directory_without_tests_is_exit_3(tmp_path: Path) -> None:
    assert dw("test", tmp_path).exit_code == 3


# can


def ask(policies: Path, org: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = dw("can", *arguments, "--policies", policies, "--org", org, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_yes_is_exit_0_with_the_interfaces_json(policies: Path, org: Path) -> None:
    code, answer = ask(
        policies, org, 'User::"dana"', "read", TRAINING, "--device", "laptop-7", "--purpose", "fraud-model"
    )
    assert code == 0
    assert answer["decision"] == "allow"
    assert answer["determining"] == ["read-training-data"]
    assert answer["obligations"] == [{"type": "mask", "fields": ["email", "phone", "card"]}]
    assert set(answer) == {
        "decision", "determining", "obligations", "advice", "errors", "would_allow", "bundle", "entities",
    }  # fmt: skip


def test_no_is_exit_1_with_what_would_help(policies: Path, org: Path) -> None:
    code, answer = ask(policies, org, 'User::"dana"', "read", TRAINING, "--purpose", "fraud-model", "--why")
    assert (code, answer["decision"]) == (1, "deny")
    assert [change["say"] for change in answer["would_allow"]] == [
        'present the certificate of your device "laptop-7"'
    ]


def test_the_long_form_of_names_works(policies: Path, org: Path) -> None:
    code, _ = ask(
        policies, org, 'Doorward::User::"bea"', 'Doorward::Action::"invoke"', 'Doorward::Model::"llm/smollm2"'
    )
    assert code == 0


def test_why_names_the_policy_and_its_place(policies: Path, org: Path) -> None:
    arguments = ("can", 'User::"eli"', "deploy", 'Model::"registry/fraud-detector"')
    result = dw(*arguments, "--why", "--policies", policies, "--org", org)
    assert result.exit_code == 1
    assert "Models are promoted by a release manager" in result.stdout
    assert "builders-never-deploy forbids it (" in result.stdout
    assert "models.cedar:" in result.stdout
    assert "request access" not in result.stdout


def test_why_names_the_nearest_permit_and_what_it_lacked(policies: Path, org: Path) -> None:
    arguments = ("can", 'User::"dana"', "read", TRAINING, "--policies", policies, "--org", org)
    said = dw(*arguments, "--why").stdout
    assert "To be let in: present the certificate of your device" in said
    assert "No policy permits this as things stand." in said
    assert "read-training-data comes nearest (" in said
    assert "It does not hold, because no device showed a certificate and no purpose is stated." in said
    assert "comes nearest" not in dw(*arguments).stdout


def test_the_grounds_are_json_too_when_they_are_asked_for(policies: Path, org: Path) -> None:
    _, plain = ask(policies, org, 'User::"bea"', "read", TRAINING)
    assert "nearest" not in plain
    _, full = ask(policies, org, 'User::"bea"', "read", TRAINING, "--why")
    assert full["because"] == "No policy permits this as things stand."
    assert full["nearest"][0]["missed"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("dana", "read", TRAINING),
        ('User::"dana"', "raed", TRAINING),
        ('User::"dana"', "read", TRAINING, "--context", "{"),
        ('User::"dana"', "read", TRAINING, "--context", "[]"),
        ('User::"dana"', "read", TRAINING, "--context", '{"devise": {}}'),
        ('User::"dana"', "read", TRAINING, "--device", "laptop-8"),
    ],
)
def test_a_question_that_cannot_be_read_is_exit_2(
    policies: Path, org: Path, arguments: tuple[str, ...]
) -> None:
    assert dw("can", *arguments, "--policies", policies, "--org", org).exit_code == 2


def test_policies_without_people_is_exit_2(policies: Path) -> None:
    assert dw("can", 'User::"dana"', "read", TRAINING, "--policies", policies).exit_code == 2


def test_no_control_plane_is_exit_8(tmp_path: Path) -> None:
    assert dw("can", 'User::"dana"', "read", TRAINING, "--data", tmp_path).exit_code == 8
