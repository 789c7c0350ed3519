# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from doorward.decisions.grounds import Grounds, explained
from doorward.decisions.point import Standpoint
from doorward.decisions.question import Question
from support.policies import NOW

Stand = Callable[..., Standpoint]
TRAINING = 'Dataset::"store/training/a.csv"'


def why(
    standpoint: Standpoint, who: str = "dana", action: str = "read", resource: str = TRAINING, **said: Any
) -> Grounds:
    principal = who if "::" in who else f'User::"{who}"'
    question = Question(principal=principal, action=action, resource=resource, **said)
    return explained(question, standpoint, NOW)[1]


def missed(standpoint: Standpoint, **said: Any) -> str:
    """Return why the only permit does not hold."""
    (near,) = why(standpoint, **said).nearest
    return near.missed


def test_an_allow_names_its_policy_with_what_it_saw(standpoint: Standpoint) -> None:
    found = why(standpoint, "omar")
    (policy,) = found.determining
    assert (policy.id, policy.effect) == ("owner-reads-own-data", "permit")
    assert "data.cedar:" in policy.place
    assert policy.doc
    assert policy.annotations["doc"].startswith(policy.doc)
    assert policy.saw == {"resource.owner": 'User::"omar"'}
    assert (found.nearest, found.because) == ((), "")


def test_a_forbid_names_itself_with_what_it_saw(standpoint: Standpoint) -> None:
    (policy,) = why(standpoint, 'Service::"etl-test"').determining
    assert policy.effect == "forbid"
    assert policy.saw["resource.live"] == "true"
    assert policy.saw["principal.environment"] == 'Environment::"testing"'
    assert policy.annotations["advice"].startswith("A workload in testing")


def test_the_nearest_permit_is_the_one_that_other_circumstances_would_satisfy(standpoint: Standpoint) -> None:
    found = why(standpoint)
    assert found.because == "No policy permits this as things stand."
    assert [near.id for near in found.nearest] == ["read-training-data", "owner-reads-own-data"]
    assert found.nearest[0].missed == "no device showed a certificate and no purpose is stated"
    assert found.nearest[0].failed[-1] == "context has purpose"
    assert found.nearest[1].missed == "the dataset's owner is omar, not dana"


def test_permits_for_others_say_for_whom(standpoint: Standpoint) -> None:
    found = why(standpoint, "bea", "export", 'Model::"store/models/x"')
    assert found.because == "No policy permits this to bea."
    assert [(near.id, near.missed) for near in found.nearest] == [
        ("export-weights", "bea does not hold the role data-scientist")
    ]
    assert found.nearest[0].saw == {}


def test_where_no_policy_speaks_that_is_said(standpoint: Standpoint) -> None:
    found = why(standpoint, "dana", "read", 'Model::"llm/smollm2"')
    assert found.nearest == ()
    assert found.because == "No policy speaks of this at all, and what is not permitted is denied."


@pytest.mark.parametrize(
    "said", [{"who": "nobody"}, {"resource": 'Dataset::"no/x"'}, {"purpose": "not-hers"}]
)
def test_what_was_refused_before_any_policy_has_no_grounds(
    standpoint: Standpoint, said: dict[str, Any]
) -> None:
    assert why(standpoint, **said) == Grounds()


def test_what_the_schema_does_not_know_is_said(standpoint: Standpoint) -> None:
    found = why(standpoint, 'Service::"etl"', "call", 'Model::"llm/smollm2"')
    assert found.because == "The schema has no `call` of a service on a model, so it is denied."


PHRASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "mfa": ("context.session.mfa", {}, "the sign-in had no MFA"),
    "mfa-age": (
        "context.session has mfa_age && context.session.mfa_age <= 900",
        {"mfa_age": 4000},
        "the sign-in with MFA is 1 hour old (it may be at most 15 minutes)",
    ),
    "no-mfa-age": (
        "context.session has mfa_age && context.session.mfa_age <= 900",
        {},
        "the sign-in had no MFA",
    ),
    "age": (
        "context.session.age < 60",
        {"context": {"session": {"age": 90}}},
        "the sign-in is 1 minute old (it must be below 1 minute)",
    ),
    "purpose": (
        'context has purpose && context.purpose == "fraud-model"',
        {"purpose": "marketing"},
        'the purpose is "marketing", not "fraud-model"',
    ),
    "zone": (
        'context.network.zone == "lab"',
        {"zone": "office"},
        'the network zone is "office", not "lab"',
    ),
    "managed": (
        "context.device.managed",
        {"context": {"device": {"known": True}}},
        "the device is not managed",
    ),
    "unproven": (
        "context.device.proven && context.device.managed",
        {"context": {"device": {"known": True, "managed": True}}},
        "the device did not show its certificate",
    ),
    "risk": ("context.risk < 50", {"context": {"risk": 80}}, "the risk is 80 (it must be below 50)"),
    "clearance": ("principal.clearance >= 2", {}, "dana's clearance is 0 (it must be at least 2)"),
    "flipped": ("2 <= principal.clearance", {}, "dana's clearance is 0 (it must be at least 2)"),
    "sensitivity": (
        "resource is Doorward::Dataset && resource.sensitivity < 2",
        {},
        "the dataset's sensitivity is 2 (it must be below 2)",
    ),
    "role": (
        'principal in Doorward::Role::"release-manager"',
        {},
        "dana does not hold the role release-manager",
    ),
    "group": ('principal in Doorward::Group::"board"', {}, "dana is not in the group board"),
    "project": ('principal in Doorward::Project::"pricing"', {}, "dana is not in the project pricing"),
    "asset": (
        'resource in Doorward::Dataset::"lake"',
        {},
        'Dataset::"store/training/a.csv" is not in Dataset::"lake"',
    ),
    "signal": ('context.signals.contains("clean")', {}, 'the signals [] do not include "clean"'),
    "not": ("!resource.live", {}, "the dataset is live"),
    "no-attribute": ("principal has department", {}, "dana has no department"),
    "either": (
        'context.session.mfa || context.network.zone == "lab"',
        {},
        'the sign-in had no MFA, and the network zone is "unknown", not "lab" (either would do)',
    ),
    "like": ('principal has email && principal.email like "*@example.com"', {}, "dana has no email"),
    "now": (
        'context.now < datetime("2026-01-01")',
        {},
        "the time is 2026-06-01 12:00:00 UTC (it must be before 2026-01-01 00:00:00 UTC)",
    ),
    "other": ('"a" like "b*"', {}, '`"a" like "b*"` does not hold'),
}


@pytest.mark.parametrize("name", PHRASES)
def test_a_failed_condition_reads_like_a_sentence(standpoint_of: Stand, name: str) -> None:
    condition, said, expected = PHRASES[name]
    assert (
        missed(
            standpoint_of(
                f'@id("p") permit (principal is Doorward::User, action, resource is Doorward::Dataset) when {{ {condition} }};'
            ),
            **said,
        )
        == expected
    )


def test_unless_says_what_holds(standpoint_of: Stand) -> None:
    text = '@id("p") permit (principal, action, resource is Doorward::Dataset) unless { resource.live };'
    assert missed(standpoint_of(text)) == "`resource.live` holds"


def test_an_error_is_named_only_if_nothing_before_it_failed(standpoint_of: Stand) -> None:
    overflow = "9223372036854775807 + principal.risk > 0"
    text = (
        '@id("p") permit (principal is Doorward::User, action, resource is Doorward::Dataset) when {{ {} }};'
    )
    (near,) = why(standpoint_of(text.format(f"context.session.mfa && {overflow}"))).nearest
    assert near.missed == "the sign-in had no MFA"


def test_every_failed_clause_is_false_by_itself(standpoint: Standpoint, standpoint_of: Stand) -> None:
    """What is said to have failed is put into a policy of its own, and that denies."""
    scope_ = "principal is Doorward::User, action, resource is Doorward::Dataset"
    for who, more in (
        ("dana", {}),
        ("dana", {"device": "laptop-7"}),
        ("dana", {"mfa_age": 60}),
        ("bea", {"zone": "lab"}),
    ):
        for near in why(standpoint, who, **more).nearest:
            for clause in near.failed:
                text = re.sub(r"\b(Role|Project|User)::", r"Doorward::\1::", clause)
                alone = standpoint_of(f'@id("p") permit ({scope_}) when {{ {_guarded(text)} }};')
                question = Question(principal=f'User::"{who}"', action="read", resource=TRAINING, **more)
                assert not explained(question, alone, NOW)[0].allowed, clause


def _guarded(text: str) -> str:
    needed = "context has purpose && " if "context.purpose" in text else ""
    return needed + ("resource has owner && " if "resource.owner" in text else "") + text
