"""The shadow check: who is wrong, what follows, and that a right decision is never called wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_interface

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doorward.cedar.admission import PolicySource, admit
from doorward.cedar.engine import Engine
from doorward.cedar.oracle import Opinion
from doorward.core.context import Context, DeviceContext, NetworkContext, RequestContext, SessionContext
from doorward.core.decision import AccessRequest, Effect
from doorward.core.feed import Bundle, Delta
from doorward.core.model import Action, EntityUid
from doorward.core.shadow import Measure, Sample
from doorward.decisions import shadow
from doorward.decisions.point import DecisionPoint
from doorward.decisions.shadow import Check, State
from doorward.decisions.watching import Samples
from doorward.directory.snapshot import Snapshot
from doorward.policies.workspace import packaged_schema
from support.policies import ask

READ = ask('User::"dana"', Action.READ, 'Dataset::"store/training/a.csv"')
TEXT = """
@id("reads") permit (principal is Doorward::User, action == Doorward::Action::"read", resource);
@id("sealed") forbid (principal, action, resource is Doorward::Dataset) when { resource.sensitivity > 2 };
@id("errs") forbid (principal, action, resource is Doorward::Dataset)
when { context.risk * 9223372036854775807 < 0 };
"""
ALLOW = Opinion(Effect.ALLOW, ("reads",))
DENY = Opinion(Effect.DENY, ("sealed",))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return admit([PolicySource("a.cedar", TEXT)], packaged_schema())


def sampled(bundle: Bundle, snapshot: Snapshot, request: AccessRequest = READ) -> Sample:
    samples = Samples(1)
    point = DecisionPoint(samples)
    point.publish(bundle)
    point.advance(snapshot)
    point.pin().decide(request)
    return samples.drain(1)[0]


@pytest.fixture
def check(bundle: Bundle, story: Snapshot) -> Check:
    made = Check()
    made.on_bundle(bundle)
    made.on_snapshot(story)
    return made


def test_a_right_decision_agrees(check: Check, bundle: Bundle, story: Snapshot) -> None:
    assert check.judge(sampled(bundle, story)).state is State.AGREES


def test_an_erring_forbid_that_denied_agrees(check: Check, bundle: Bundle, story: Snapshot) -> None:
    request = ask('User::"dana"', Action.READ, 'Dataset::"store/training"', risk=2)
    sample = sampled(bundle, story, request)
    assert (sample.effect, sample.erring) == (Effect.DENY, ("errs",))
    assert check.judge(sample).state is State.AGREES


@pytest.mark.parametrize(
    "change",
    [
        {"effect": Effect.DENY},
        {"determining": ()},
        {"determining": ("reads", "sealed")},
        {"erring": ("errs",)},
    ],
)
def test_wrong_generated_code_is_switched_off(
    check: Check, bundle: Bundle, story: Snapshot, change: dict
) -> None:
    sample = msgspec.structs.replace(sampled(bundle, story), generated=True, **change)
    verdict = check.judge(sample)
    assert (verdict.state, verdict.measure, verdict.slice) == (State.DIFFERS, Measure.EXACT, sample.slice)
    assert verdict.said["tier 0"] == verdict.said["cedar"] == "allow [reads]"
    # Tier 0 cannot be switched off for another: where it answered wrongly, Cedar must agree from now on.
    exact = msgspec.structs.replace(sample, generated=False)
    assert check.judge(exact).measure is Measure.ORACLE


def test_where_tier_0_differs_cedar_must_agree(
    check: Check, bundle: Bundle, story: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = sampled(bundle, story)
    monkeypatch.setattr(shadow, "_asked", lambda *_: DENY)
    verdict = check.judge(sample)
    assert (verdict.state, verdict.measure) == (State.DIFFERS, Measure.ORACLE)


def test_where_the_choice_of_policies_was_wrong_nothing_is_allowed(
    check: Check, bundle: Bundle, story: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = sampled(bundle, story)
    said = iter((DENY, ALLOW))  # Cedar on all policies, then on the slice's alone
    monkeypatch.setattr(shadow, "_asked", lambda *_: next(said))
    assert check.judge(sample).measure is Measure.DENY


def test_a_held_slice_that_still_allows_too_much_denies(
    check: Check, bundle: Bundle, story: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = msgspec.structs.replace(sampled(bundle, story), measure=Measure.ORACLE)
    assert check.judge(sample).state is State.AGREES
    monkeypatch.setattr(shadow, "_asked", lambda *_: DENY)
    assert check.judge(sample).measure is Measure.DENY


def test_what_cedar_does_not_decide_must_be_denied(
    check: Check, bundle: Bundle, story: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "_asked", lambda *_: None)
    sample = sampled(bundle, story)
    assert check.judge(sample).measure is Measure.ORACLE
    sealed = sampled(bundle, story, ask('User::"dana"', Action.READ, 'Dataset::"store/sealed"'))
    assert check.judge(sealed).state is State.AGREES


def test_a_sample_is_judged_on_its_own_version_or_not_at_all(
    check: Check, bundle: Bundle, story: Snapshot
) -> None:
    gone = ({"type": "Doorward::User", "id": "dana"},)
    later = story.with_delta(Delta(version=story.version + 1, entities_removed=gone))
    sample = sampled(bundle, story)
    early = msgspec.structs.replace(sample, entities=later.version)
    assert check.judge(early).state is State.WAITS
    check.on_snapshot(later)
    assert check.judge(sample).state is State.AGREES  # the older version is still kept
    for number in range(70):
        later = later.with_delta(Delta(version=later.version + 1))
        check.on_snapshot(later)
        del number
    assert check.judge(sample).state is State.GONE


def test_an_unknown_bundle_is_waited_for(check: Check, bundle: Bundle, story: Snapshot) -> None:
    sample = msgspec.structs.replace(sampled(bundle, story), bundle="sha256:00")
    assert check.judge(sample).state is State.WAITS


def test_a_check_that_cannot_be_carried_out_ends_nothing(
    check: Check, bundle: Bundle, story: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    sample = sampled(bundle, story)
    monkeypatch.setattr(Engine, "evaluate_record", fails)
    assert check.judge(sample).state is State.FAILED


CONTEXTS = st.builds(
    Context,
    now=st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2030, 1, 1)).map(  # noqa: DTZ001
        lambda found: found.replace(tzinfo=UTC)
    ),
    device=st.builds(
        DeviceContext,
        known=st.booleans(),
        proven=st.booleans(),
        managed=st.booleans(),
        compliant=st.booleans(),
        id=st.sampled_from([None, EntityUid.of("Device", "laptop-7"), EntityUid.of("Device", "none")]),
    ),
    network=st.builds(
        NetworkContext,
        zone=st.sampled_from(["office", "lab", "unknown", "é"]),
        ip=st.sampled_from([None, ip_interface("10.1.2.3"), ip_interface("fe80::1/64")]),
        country=st.sampled_from([None, "DE"]),
    ),
    session=st.builds(
        SessionContext,
        method=st.sampled_from(["none", "key", "passkey"]),
        mfa=st.booleans(),
        age=st.integers(0, 10**6),
        mfa_age=st.sampled_from([None, 0, 899, 900, 901, 2**31 - 1]),
    ),
    request=st.builds(
        RequestContext,
        bytes=st.integers(0, 2**40),
        stream=st.booleans(),
        tools=st.frozensets(st.sampled_from(["a", "b"])),
        max_tokens=st.sampled_from([None, 1, 10**6]),
    ),
    risk=st.integers(0, 100),
    depth=st.integers(0, 3),
    purpose=st.sampled_from([None, "fraud-model", "marketing", "x"]),
    environment=st.sampled_from([None, EntityUid.of("Environment", "production")]),
    actor=st.sampled_from([None, EntityUid.of("Agent", "scout")]),
    signals=st.frozensets(st.sampled_from(["s", "t"])),
)
NAMES = st.sampled_from(
    [
        'User::"dana"',
        'User::"omar"',
        'User::"bea"',
        'User::"gone"',
        'Service::"etl"',
        'Agent::"scout"',
        'User::"x"',
    ]
)
THINGS = st.sampled_from(
    ['Dataset::"store/training"', 'Dataset::"store/sealed/a"', 'Model::"llm/smollm2"',
     'Model::"store/models/x"',
     'Control::"policies"', 'Dataset::"none"']
)  # fmt: skip


@settings(max_examples=150, deadline=timedelta(seconds=10), suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_asked_of_the_starter_pack_agrees(
    starter: Bundle, story: Snapshot, data: st.DataObject
) -> None:
    """The very objects that live decisions are made from, against Cedar."""
    samples = Samples(1, capacity=1000)
    point = DecisionPoint(samples)
    point.publish(starter)
    point.advance(story)
    check = Check()
    check.on_bundle(starter)
    check.on_snapshot(story)
    for _ in range(10):
        request = AccessRequest(
            EntityUid.parse(data.draw(NAMES)),
            data.draw(st.sampled_from(list(Action))).uid,
            EntityUid.parse(data.draw(THINGS)),
            data.draw(CONTEXTS),
        )
        point.pin().decide(request)
    for sample in samples.drain(1000):
        verdict = check.judge(sample)
        assert verdict.state is State.AGREES, (verdict, sample)
