from __future__ import annotations

from collections.abc import Callable

import pytest

from doorward.cedar.admission import PolicySource, admit
from doorward.core.feed import Bundle
from doorward.decisions.point import DecisionPoint, Standpoint
from doorward.directory.org import offline_snapshot, parse
from doorward.directory.snapshot import Snapshot
from doorward.policies.workspace import Workspace, packaged_schema
from support.policies import ORG, STARTER


@pytest.fixture(scope="session")
def starter() -> Bundle:
    return Workspace(STARTER).load()


@pytest.fixture(scope="session")
def story() -> Snapshot:
    return offline_snapshot(parse(ORG, "org.yaml"))


@pytest.fixture
def standpoint(starter: Bundle, story: Snapshot) -> Standpoint:
    return standing(starter, story)


@pytest.fixture
def standpoint_of(story: Snapshot) -> Callable[..., Standpoint]:
    """Stand on the story's people and the given policies."""

    def build(text: str, snapshot: Snapshot = story) -> Standpoint:
        return standing(admit([PolicySource("a.cedar", text)], packaged_schema()), snapshot)

    return build


def standing(bundle: Bundle, snapshot: Snapshot) -> Standpoint:
    point = DecisionPoint()
    point.publish(bundle)
    point.advance(snapshot)
    return point.pin()
