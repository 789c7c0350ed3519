from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from doorward.core.context import Context, DeviceContext
from doorward.core.errors import InvalidRequestError
from doorward.core.model import EntityUid
from doorward.decisions.point import Standpoint
from doorward.decisions.question import Question, answer, request_of
from doorward.directory.snapshot import Snapshot
from support.policies import NOW


def asked(story: Snapshot, **fields: Any) -> Context:
    given = {"principal": 'User::"dana"', "action": "read", "resource": 'Dataset::"store/training"', **fields}
    return request_of(Question(**given), story, NOW).context


def test_what_is_not_said_is_neutral(story: Snapshot) -> None:
    assert asked(story) == Context(now=NOW)


def test_options_take_their_place(story: Snapshot) -> None:
    context = asked(
        story,
        device="laptop-7",
        zone="office",
        purpose="marketing",
        mfa_age=60,
        at="2026-01-31T13:00:00+01:00",
    )
    assert context.device == DeviceContext(
        known=True, proven=True, managed=True, compliant=True, id=EntityUid.of("Device", "laptop-7")
    )
    assert (context.network.zone, context.purpose) == ("office", "marketing")
    assert (context.session.mfa, context.session.mfa_age) == (True, 60)
    assert context.now == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_context_is_merged_deep(story: Snapshot) -> None:
    context = asked(
        story,
        context={
            "device": {"managed": True, "id": "laptop-7"},
            "network": {"ip": "10.1.2.3"},
            "now": "2026-02-01T00:00:00Z",
            "signals": ["leak"],
            "environment": "testing",
            "actor": 'Agent::"scout"',
            "request": {"bytes": 5, "tools": ["x"]},
        },
    )
    assert context.device == DeviceContext(managed=True, id=EntityUid.of("Device", "laptop-7"))
    assert str(context.network.ip) == "10.1.2.3/32"
    assert context.environment == EntityUid.of("Environment", "testing")
    assert context.actor == EntityUid.of("Agent", "scout")
    assert context.request.tools == frozenset({"x"})


def test_cedars_json_is_read_too(story: Snapshot) -> None:
    context = asked(
        story,
        context={
            "now": {"__extn": {"fn": "datetime", "arg": "2026-02-01T00:00:00.000Z"}},
            "actor": {"__entity": {"type": "Doorward::Agent", "id": "scout"}},
        },
    )
    assert context.now == datetime(2026, 2, 1, tzinfo=UTC)
    assert context.actor == EntityUid.of("Agent", "scout")


def test_a_workloads_environment_is_its_own(story: Snapshot) -> None:
    assert asked(story, principal='Service::"etl-test"').environment == EntityUid.of("Environment", "testing")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"principal": "dana"}, "is not an entity name"),
        ({"action": "raed"}, "Did you mean read"),
        ({"action": 'Action::"fly"'}, "there is no action `fly`"),
        ({"device": "laptop-8"}, "there is no device"),
        ({"device": 'User::"dana"'}, "there is no device"),
        ({"mfa_age": -1}, "number of seconds"),
        ({"at": "tomorrow"}, "not a time"),
        ({"at": "2026-01-31T12:00:00"}, "not a time with its zone"),
        ({"context": {"devise": {}}}, "Did you mean `device`"),
        ({"context": {"device": {"proven": "yes"}}}, "`context.device.proven` cannot be 'yes'"),
        ({"context": {"device": True}}, "must be an object"),
        ({"context": {"risk": 1.5}}, "`context.risk`"),
        ({"context": {"risk": True}}, "`context.risk`"),
        ({"context": {"risk": 2**63}}, "`context.risk`"),
        ({"context": {"purpose": None}}, "`context.purpose`"),
        ({"context": {"network": {"ip": "here"}}}, "Write an address"),
        ({"context": {"signals": "leak"}}, "`context.signals`"),
    ],
)
def test_what_cannot_be_read_is_said(story: Snapshot, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        asked(story, **fields)
    assert said in str(caught.value)


def test_a_purpose_not_hers_is_denied_as_at_the_gate(standpoint: Standpoint) -> None:
    question = Question(
        principal='User::"omar"', action="read", resource='Dataset::"store/training"', purpose="fraud-model"
    )
    decision = answer(question, standpoint, NOW)
    assert not decision.allowed
    assert decision.advice == ('The purpose fraud-model is not assigned to User::"omar".',)


def test_a_name_nobody_declared_is_said(standpoint: Standpoint) -> None:
    question = Question(principal='User::"dna"', action="read", resource='Dataset::"store/trainin"')
    decision = answer(question, standpoint, NOW)
    assert not decision.allowed
    assert [advice.split(" is not known")[0] for advice in decision.advice[-2:]] == [
        'User::"dna"', 'Dataset::"store/trainin"',
    ]  # fmt: skip


def test_what_a_declared_name_covers_is_known(standpoint: Standpoint) -> None:
    question = Question(principal='User::"dana"', action="read", resource='Dataset::"store/training/a/b.csv"')
    assert not any("not known" in advice for advice in answer(question, standpoint, NOW).advice)
