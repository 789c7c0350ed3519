from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from doorward.cedar.formatting import formatted
from doorward.core.feed import Bundle
from doorward.decisions.point import DecisionPoint
from doorward.decisions.question import Question, answer
from doorward.policies import cases, packs
from doorward.policies.workspace import Workspace
from support.policies import STARTER


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Workspace(STARTER).load()


CASES = [case for file in Workspace(STARTER).tests() for case in cases.read(file)]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_starter_pack_does_what_it_says(bundle: Bundle, case: cases.Case) -> None:
    assert case.entities is not None
    point = DecisionPoint()
    point.publish(bundle)
    point.advance(case.entities)
    now = datetime(2026, 6, 1, tzinfo=UTC)
    (outcome,) = cases.run([case], lambda asked, _: answer(Question(**asked), point.pin(), now))
    assert outcome.failures == ()


def test_every_starter_policy_is_described(bundle: Bundle) -> None:
    for policy in (*bundle.policies, *bundle.guardrails):
        assert policy.annotations.get("doc"), policy.id
        assert policy.effect == "permit" or policy.annotations.get("advice"), policy.id


def test_the_starter_pack_is_formatted() -> None:
    workspace = Workspace(STARTER)
    for source in workspace.sources():
        assert formatted(source, workspace.schema()) == source.text, source.name


def test_the_pack_lists_its_files() -> None:
    names = {str(name) for name, _ in packs.files()}
    assert {"data.cedar", "story_test.yaml", str(Path("guardrails") / "restricted.cedar")} <= names
