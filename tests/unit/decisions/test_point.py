# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from doorward.core.context import Context, DeviceContext
from doorward.core.decision import AccessRequest, Effect
from doorward.core.errors import InvalidPolicyError, UnavailableError
from doorward.core.feed import Bundle, Delta
from doorward.core.model import Action, EntityUid
from doorward.core.obligation import Limit, Mask, Notify
from doorward.core.values import uid_to_json
from doorward.decisions.point import DecisionPoint, Standpoint
from doorward.directory.org import offline_snapshot, parse
from doorward.directory.snapshot import Snapshot
from support.policies import ORG, ask

Stand = Callable[..., Standpoint]
TRAINING = 'Dataset::"store/training"'
LAPTOP = DeviceContext(
    known=True, proven=True, managed=True, compliant=True, id=EntityUid.of("Device", "laptop-7")
)
EVERYTHING = '@id("all") permit (principal, action, resource);'


def read(**context: object) -> AccessRequest:
    return ask('User::"dana"', Action.READ, f'{TRAINING[:-1]}/customers.csv"', **context)


def test_the_data_scientist_reads_masked_on_her_proven_laptop(standpoint: Standpoint) -> None:
    decision = standpoint.decide(read(device=LAPTOP, purpose="fraud-model"))
    assert (decision.effect, decision.determining) == (Effect.ALLOW, ("read-training-data",))
    assert decision.obligations == (Mask(("email", "phone", "card")),)
    assert decision.bundle == standpoint.bundle_digest
    assert decision.entities == standpoint.entities_version == "v1"
    assert decision.advice == ()


@pytest.mark.parametrize("changed", [{"proven": False}, {"managed": False}, {"compliant": False}])
def test_every_part_of_the_device_counts(standpoint: Standpoint, changed: dict[str, bool]) -> None:
    device = msgspec.structs.replace(LAPTOP, **changed)
    assert not standpoint.decide(read(device=device, purpose="fraud-model")).allowed


@pytest.mark.parametrize("purpose", [None, "marketing", "", "fraud-model "])
def test_only_the_datas_purpose_counts(standpoint: Standpoint, purpose: str | None) -> None:
    assert not standpoint.decide(read(device=LAPTOP, purpose=purpose)).allowed


@pytest.mark.parametrize(
    ("principal", "resource", "said"),
    [
        ('User::"nobody"', TRAINING, "the principal is not known"),
        ('User::"gone"', TRAINING, "the principal is not active"),
        ('Role::"admin"', TRAINING, "the principal is not known"),
        ('User::"dana"', 'Dataset::"elsewhere/x"', "the resource is not known"),
        ('User::"dana"', 'Dataset::"store/training-2"', "the resource is not known"),
        ('User::"dana"', 'Control::"nothing"', "the resource is not known"),
    ],
)
def test_who_or_what_is_not_known_or_active_is_denied_whatever_policies_say(
    standpoint_of: Stand, principal: str, resource: str, said: str
) -> None:
    decision = standpoint_of(EVERYTHING).decide(ask(principal, Action.READ, resource))
    assert decision.effect is Effect.DENY
    assert said in decision.errors[0] or decision.errors[0].startswith("request: ")
    assert decision.determining == ()


@pytest.mark.parametrize(("agent", "allowed"), [("scout", True), ("retired", False), ("unknown", False)])
def test_an_acting_agent_must_be_known_and_active(standpoint_of: Stand, agent: str, *, allowed: bool) -> None:
    asked = read(actor=EntityUid.of("Agent", agent), depth=1)
    assert standpoint_of(EVERYTHING).decide(asked).allowed is allowed


def test_a_control_exists_without_being_registered(standpoint: Standpoint) -> None:
    session = Context(now=read().context.now).session
    fresh = msgspec.structs.replace(session, mfa=True, mfa_age=5)
    governed = ask('User::"ada"', Action.ASSIGN, 'Control::"directory"', session=fresh)
    assert standpoint.decide(governed).allowed
    assert not standpoint.decide(ask('User::"ada"', Action.ASSIGN, 'Control::"directory"')).allowed


def test_a_guardrail_is_named_as_determining(standpoint: Standpoint) -> None:
    decision = standpoint.decide(ask('User::"omar"', Action.READ, 'Dataset::"store/sealed"'))
    assert decision.determining == ("restricted-needs-managed-device",)


def test_a_forbid_that_errs_denies_and_is_recorded(standpoint_of: Stand) -> None:
    # Admission refuses an unguarded optional attribute; an overflow it cannot see.
    text = (
        EVERYTHING
        + '@id("sum") forbid (principal, action, resource) when { context.risk + 9223372036854775807 < 0 };'
    )
    decision = standpoint_of(text).decide(read(risk=1))
    assert (decision.effect, decision.determining) == (Effect.DENY, ())
    assert decision.errors[0].startswith("sum: ")


def test_obligations_of_all_determining_permits_join(standpoint_of: Stand) -> None:
    text = """
    @id("a") @mask("email") @limit("5/minute") permit (principal, action, resource);
    @id("b") @mask("phone") @limit("9/minute") permit (principal, action, resource);
    @id("c") @mask("name") permit (principal, action, resource) when { context.risk > 5 };
    """
    decision = standpoint_of(text).decide(read())
    assert decision.obligations == (Mask(("email", "phone")), Limit("a", 5, 60), Limit("b", 9, 60))


def test_a_denial_keeps_only_who_to_notify(standpoint_of: Stand) -> None:
    text = '@id("a") @mask("x") permit (principal, action, resource); @id("b") @notify("owner") forbid (principal, action, resource);'
    assert standpoint_of(text).decide(read()).obligations == (Notify("owner"),)


def test_an_id_no_evaluator_can_hold_is_denied_not_raised(standpoint_of: Stand) -> None:
    standpoint = standpoint_of(EVERYTHING)
    asked = AccessRequest(
        EntityUid.of("User", "dana"),
        Action.READ.uid,
        EntityUid.of("Dataset", "store/training/\ud800"),
        read().context,
    )
    decision = standpoint.decide(asked)
    assert (decision.effect, len(decision.errors)) == (Effect.DENY, 1)
    assert not standpoint.visible(asked.principal, asked.resource)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ('a"b', True),
        ('x", action == Action::"x', True),
        ("*", True),
        ("é" * 3000, True),
        ("a\nb", False),
        ("a\0b", False),
    ],
)
def test_an_odd_object_name_is_covered_like_any_other_or_unknown(
    standpoint_of: Stand, name: str, *, known: bool
) -> None:
    text = '@id("p") permit (principal, action, resource in Doorward::Dataset::"store/training");'
    odd = EntityUid.of("Dataset", f"store/training/{name}")
    asked = AccessRequest(EntityUid.of("User", "dana"), Action.READ.uid, odd, read().context)
    assert standpoint_of(text).decide(asked).allowed is known


# What is visible


@pytest.mark.parametrize(
    ("principal", "resource", "shown"),
    [
        ('User::"bea"', TRAINING, True),
        ('User::"bea"', 'Dataset::"store/sealed"', False),
        ('User::"bea"', 'Dataset::"store/sealed/deep/x.csv"', False),
        ('User::"omar"', 'Dataset::"store/sealed"', True),
        ('Service::"etl-test"', TRAINING, True),
        ('User::"gone"', TRAINING, False),
        ('User::"nobody"', TRAINING, False),
        ('User::"dana"', 'Dataset::"nowhere"', False),
    ],
)
def test_what_exists_for_whom(standpoint: Standpoint, principal: str, resource: str, *, shown: bool) -> None:
    assert standpoint.visible(EntityUid.parse(principal), EntityUid.parse(resource)) is shown


def test_what_some_circumstances_would_show_is_visible_under_all(standpoint_of: Stand) -> None:
    text = '@id("v") permit (principal, action == Doorward::Action::"view", resource) when { context.device.proven };'
    standpoint = standpoint_of(text)
    dana, training = EntityUid.parse('User::"dana"'), EntityUid.parse(TRAINING)
    assert standpoint.visible(dana, training)
    assert not standpoint.decide(ask('User::"dana"', Action.VIEW, TRAINING)).allowed


# What a decision rests on


def test_inputs_name_everything_that_was_read(standpoint: Standpoint, standpoint_of: Stand) -> None:
    base = standpoint.inputs(read())
    assert len(base) == 64
    assert standpoint.inputs(read()) == base
    assert standpoint.inputs(read(risk=1)) != base
    other = offline_snapshot(parse(ORG.replace("sensitivity: 2", "sensitivity: 1"), "org.yaml"))
    assert standpoint_of(EVERYTHING, other).inputs(read()) != base


def test_nothing_is_decided_before_policies_and_people_are_there(starter: Bundle, story: Snapshot) -> None:
    point = DecisionPoint()
    with pytest.raises(UnavailableError, match="policies"):
        point.pin()
    point.publish(starter)
    with pytest.raises(UnavailableError, match="people"):
        point.pin()
    point.advance(story)
    assert point.pin().bundle_digest == starter.digest
    assert point.changed == 2


def test_a_pinned_standpoint_stays_while_the_point_moves_on(starter: Bundle, story: Snapshot) -> None:
    point = DecisionPoint()
    point.publish(starter)
    point.advance(story)
    before, asked = point.pin(), read(device=LAPTOP, purpose="fraud-model")
    gone = Delta(version=2, entities_removed=(uid_to_json(EntityUid.of("User", "dana")),))
    point.advance(story.with_delta(gone))
    assert before.decide(asked).allowed
    assert not point.pin().decide(asked).allowed
    assert (before.entities_version, point.pin().entities_version) == ("v1", "v2")
    assert point.changed == 3


def test_a_bundle_that_cannot_be_loaded_leaves_the_old_one_in_force(starter: Bundle, story: Snapshot) -> None:
    point = DecisionPoint()
    point.publish(starter)
    point.advance(story)
    broken = msgspec.structs.replace(
        starter, policies=(msgspec.structs.replace(starter.policies[0], tree={}),)
    )
    with pytest.raises(InvalidPolicyError):
        point.publish(broken)
    assert point.pin().bundle_digest == starter.digest
    assert point.changed == 2


def test_an_empty_set_denies_everything_and_shows_nothing(standpoint_of: Stand) -> None:
    standpoint = standpoint_of("// nothing")
    assert not standpoint.decide(read(device=LAPTOP, purpose="fraud-model")).allowed
    assert not standpoint.visible(read().principal, read().resource)


def test_what_is_kept_between_questions_is_bounded(
    starter: Bundle, story: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward.decisions.point._MAX_KNOWN", 8)
    monkeypatch.setattr("doorward.decisions.inputs._MAX_CLOSURES", 8)
    point = DecisionPoint()
    point.publish(starter)
    point.advance(story)
    standpoint = point.pin()
    for number in range(50):
        asked = ask('User::"dana"', Action.VIEW, f'Dataset::"store/training/{number}"')
        standpoint.decide(asked)
        standpoint.inputs(asked)
    assert len(standpoint._targets) <= 8  # noqa: SLF001 -- the bound is inside
    assert len(standpoint._world._nodes) <= 8  # noqa: SLF001
    assert len(standpoint._inputs._closures) <= 8  # noqa: SLF001


def test_a_kept_answer_is_never_another_questions(standpoint: Standpoint) -> None:
    asked = [
        ask(f'User::"{who}"', action, resource, **context)
        for who in ("dana", "omar", "bea", "eli", "rhea")
        for action in (Action.READ, Action.VIEW, Action.DEPLOY, Action.INVOKE)
        for resource in (TRAINING, 'Dataset::"store/sealed"', 'Model::"llm/smollm2"')
        for context in ({}, {"device": LAPTOP, "purpose": "fraud-model"}, {"device": LAPTOP})
    ]
    kept = [standpoint.decide(question) for question in asked] and [standpoint.decide(q) for q in asked]
    for question, answer in zip(asked, kept, strict=True):
        point = DecisionPoint()
        point.publish(standpoint.bundle)
        point.advance(standpoint.snapshot)
        assert point.pin().decide(question) == answer
