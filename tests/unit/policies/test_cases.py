# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
from __future__ import annotations

from pathlib import Path

import pytest

from doorward.core.decision import Decision, Effect
from doorward.core.errors import InvalidConfigError
from doorward.core.model import EntityUid
from doorward.core.obligation import Limit, Mask
from doorward.policies.cases import Case, Expectation, read, run

GOOD = """\
# said
entities:
  users: { dana: { clearance: 2 } }
tests:
  - name: one
    request: { principal: 'User::"dana"', action: read, resource: 'Dataset::"a"', mfa_age: 5, context: { risk: 3, device: { proven: true }, signals: [x] } }
    expect: { decision: allow, determining: [p], obligations: [{ type: mask, fields: [email] }] }
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "a_test.yaml"
    file.write_text(text)
    return file


def test_a_case_is_read_with_its_entities(tmp_path: Path) -> None:
    (case,) = read(written(tmp_path, GOOD))
    assert (case.name, case.place) == ("one", f"{tmp_path}/a_test.yaml:5")
    assert case.request["mfa_age"] == 5
    assert case.request["context"] == {"risk": 3, "device": {"proven": True}, "signals": ["x"]}
    assert case.entities is not None
    assert case.entities.entity(EntityUid.of("User", "dana")) is not None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    expect:", "    expects:", ":7: a test has no key `expects`\n  Did you mean `expect`?"),
        ("action: read", "acton: read", ":6: a request has no key `acton`"),
        ("determining: [p]", "determing: [p]", ":7: an expectation has no key `determing`"),
        ("tests:", "cases:", ":4: the file has no key `cases`"),
        ("decision: allow", "decision: alow", "Did you mean `allow`?"),
        ("decision: allow, ", "", "an expectation needs `decision`"),
        ("type: mask", "kind: mask", "an obligation needs `type`"),
        ("clearance: 2", "clearence: 2", ":3: "),
        ("mfa_age: 5", "mfa_age: 5.5", "`mfa_age` must be text"),
        ("- name: one", "- nam: one", "a test has no key `nam`"),
        ("risk: 3", "risk: 3, risk: 4", "`risk` stands twice"),
    ],
)
def test_what_is_not_understood_is_an_error_with_its_line(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        read(written(tmp_path, GOOD.replace(old, new)))
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "entities: {}", "- a", "tests: 5"])
def test_a_file_without_tests_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidConfigError):
        read(written(tmp_path, text))


ALLOWED = Decision(Effect.ALLOW, ("a", "b"), (Mask(("x", "y")), Limit("a", 5, 60)), errors=("c: broken",))


@pytest.mark.parametrize(
    ("expected", "failures"),
    [
        (Expectation("allow"), 0),
        (Expectation("deny"), 1),
        (Expectation("allow", ("b", "a")), 0),
        (Expectation("allow", ("a",)), 1),
        (Expectation("allow", (), ()), 2),
        (
            Expectation(
                "allow", None, ({"type": "limit", "count": 5}, {"type": "mask", "fields": ["x", "y"]})
            ),
            0,
        ),
        (Expectation("allow", None, ({"type": "mask", "fields": ["x", "y"]},)), 1),
        (Expectation("allow", None, ({"type": "mask", "fields": ["x"]}, {"type": "limit"})), 1),
        (Expectation("allow", None, ({"type": "limit"}, {"type": "limit"})), 1),
    ],
)
def test_every_difference_is_a_failure(expected: Expectation, failures: int) -> None:
    case = Case("n", "p", {}, expected)
    (outcome,) = run([case], lambda _request, _entities: ALLOWED)
    differences = [failure for failure in outcome.failures if not failure.startswith("error ")]
    assert len(differences) == failures
    assert outcome.passed is (failures == 0)
    assert ("error c: broken" in outcome.failures) is (failures > 0)
