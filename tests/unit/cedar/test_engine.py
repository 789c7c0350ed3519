# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.cedar.engine import Engine
from doorward.core.context import Context, DeviceContext
from doorward.core.decision import AccessRequest, Effect
from doorward.core.errors import InvalidPolicyError, InvalidRequestError
from doorward.core.feed import Bundle, PolicyText
from doorward.core.model import Action, Entity, EntityUid
from doorward.core.values import entity_to_json, to_json, uid_to_json
from doorward.policies.workspace import packaged_schema
from support.policies import dataset, request, user, world

Build = Callable[..., Engine]
ALL = '@id("all") permit (principal, action, resource);\n'
FORBID = '@id("never") forbid (principal, action, resource) when '
FRAUD = EntityUid.of("Project", "fraud")


def decided(engine: Engine, asked: AccessRequest, *entities: Entity) -> tuple[str, tuple[str, ...], int]:
    known = entities or (user("dana"), dataset("store/a"))
    answer = engine.evaluate(asked, engine.load(world(*known)))
    return answer.effect.value, answer.determining, len(answer.errors)


def test_what_no_policy_permits_is_denied(engine_of: Build) -> None:
    assert decided(engine_of(""), request()) == ("deny", (), 0)


def test_a_permit_allows_and_a_forbid_overrides_it(engine_of: Build) -> None:
    assert decided(engine_of(ALL), request()) == ("allow", ("all",), 0)
    both = engine_of(ALL + FORBID + "{ resource.sensitivity == 1 };")
    assert decided(both, request()) == ("deny", ("never",), 0)


def test_a_forbid_on_a_missing_attribute_denies(engine_of: Build) -> None:
    engine = engine_of(ALL + FORBID + '{ context.purpose == "x" };')
    assert decided(engine, request()) == ("deny", (), 1)
    answer = engine.evaluate(request(), engine.load(world(user("dana"), dataset("store/a"))))
    assert answer.errors == ("never: record does not have the attribute `purpose`",)


def test_a_forbid_on_a_missing_entity_denies(engine_of: Build) -> None:
    engine = engine_of(ALL + FORBID + "{ resource has owner && resource.owner.risk > 50 };")
    owned = dataset("store/a", owner=EntityUid.of("User", "gone"))
    assert decided(engine, request(), user("dana"), owned) == ("deny", (), 1)
    assert decided(engine, request(), user("dana"), owned, user("gone"))[0] == "allow"


@pytest.mark.parametrize(
    "condition",
    [
        "context.risk + 9223372036854775807 > 3",
        'context.network.zone in ["x"]',
        'principal.purposes.contains(ip("no address"))',
        "context.risk",
    ],
    ids=["overflow", "wrong-type", "bad-ip", "not-a-boolean"],
)
def test_a_forbid_that_errs_denies(engine_of: Build, condition: str) -> None:
    engine = engine_of(ALL + FORBID + f"{{ {condition} }};")
    assert decided(engine, request(risk=1)) == ("deny", (), 1)


def test_a_forbid_that_errs_for_others_does_not_deny(engine_of: Build) -> None:
    scoped = (
        ALL
        + '@id("x") forbid (principal, action == Doorward::Action::"train", resource) when { context.purpose == "x" };'
    )
    assert decided(engine_of(scoped), request(action=Action.READ))[0] == "allow"
    assert decided(engine_of(scoped), request(action=Action.TRAIN))[0] == "deny"


def test_what_is_short_circuited_does_not_err(engine_of: Build) -> None:
    engine = engine_of(ALL + FORBID + '{ false && context.purpose == "x" };')
    assert decided(engine, request()) == ("allow", ("all",), 0)
    engine = engine_of(ALL + FORBID + '{ context.purpose == "x" && false };')
    assert decided(engine, request()) == ("deny", (), 1)


def test_a_permit_that_errs_is_not_satisfied_and_is_recorded(engine_of: Build) -> None:
    text = '@id("p") permit (principal, action, resource) when { context.purpose == "x" };'
    assert decided(engine_of(text), request()) == ("deny", (), 1)
    assert decided(engine_of(text + ALL), request()) == ("allow", ("all",), 1)


def test_every_satisfied_policy_of_the_effect_is_determining(engine_of: Build) -> None:
    text = ALL + '@id("b") permit (principal, action, resource) when { context.risk == 0 };'
    assert decided(engine_of(text), request())[1] == ("all", "b")


@pytest.mark.parametrize(
    "action", [EntityUid.of("Action", "fly"), EntityUid("Action", "read"), EntityUid.of("User", "read")]
)
def test_an_action_that_does_not_exist_is_denied_with_an_error(engine_of: Build, action: EntityUid) -> None:
    asked = AccessRequest(
        EntityUid.of("User", "dana"), action, EntityUid.of("Dataset", "store/a"), request().context
    )
    assert decided(engine_of(ALL), asked) == ("deny", (), 1)


def test_a_request_outside_the_schema_is_denied_with_an_error(engine_of: Build) -> None:
    tool = Entity(
        EntityUid.of("Tool", "t"),
        {"sensitivity": 0, "environment": EntityUid.of("Environment", "testing"), "writes": False},
    )
    asked = AccessRequest(EntityUid.of("User", "dana"), Action.READ.uid, tool.uid, request().context)
    assert decided(engine_of(ALL), asked, user("dana"), tool) == ("deny", (), 1)


@pytest.mark.parametrize(
    "context",
    [{"risk": 1.5}, {"risk": True}, {"risk": 2**63}, {"purpose": 3}, {"signals": frozenset({1})}],
    ids=["float", "bool", "too-large", "number-for-text", "set-of-numbers"],
)
def test_a_context_of_the_wrong_type_is_denied_with_an_error(
    engine_of: Build, context: dict[str, Any]
) -> None:
    assert decided(engine_of(ALL), request(**context)) == ("deny", (), 1)


def test_entities_that_do_not_fit_the_schema_are_not_loaded(engine_of: Build) -> None:
    engine = engine_of(ALL)
    for broken in (user("dana", clearance="high"), user("dana", unknown=1), dataset("a", sensitivity=True)):
        with pytest.raises(InvalidRequestError, match="do not fit the schema"):
            engine.load(world(broken))


def test_a_circle_of_parents_is_not_loaded(engine_of: Build) -> None:
    a, b = EntityUid.of("Group", "a"), EntityUid.of("Group", "b")
    circle = world(Entity(a, parents=frozenset({b})), Entity(b, parents=frozenset({a})))
    with pytest.raises(InvalidRequestError):
        engine_of(ALL).load(circle)


ODD = ['a"b', "a\\", "a\nb", "a\0b", 'x", action == Action::"x', "User::", "'", "é😀", "a" * 10_240, "*", " "]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_id_is_only_ever_itself(engine_of: Build, name: str) -> None:
    named = EntityUid.of("User", name)
    tree = {
        "effect": "permit",
        "principal": {"op": "==", "entity": uid_to_json(named)},
        "action": {"op": "All"},
        "resource": {"op": "All"},
        "conditions": [],
    }
    engine = Engine([PolicyText(id="odd", text="", tree=tree)], packaged_schema())
    assert decided(engine, request(name), user(name), dataset("store/a"))[0] == "allow"
    assert decided(engine, request(name + "x"), user(name + "x"), dataset("store/a"))[0] == "deny"
    assert decided(engine_of(ALL), request(resource=name), user("dana"), dataset(name))[0] == "allow"


def test_an_id_that_is_no_text_is_denied(engine_of: Build) -> None:
    engine = engine_of(ALL)
    answer = engine.evaluate(request("\ud800"), engine.load(world(dataset("store/a"))))
    assert (answer.effect, len(answer.errors)) == (Effect.DENY, 1)


def test_policies_without_trees_or_with_twin_ids_are_refused(schema: str) -> None:
    with pytest.raises(InvalidPolicyError):
        Engine.of(
            Bundle("sha256:x", schema, (PolicyText(id="a", text="permit (principal, action, resource);"),))
        )
    tree = {"effect": "permit", **{side: {"op": "All"} for side in ("principal", "action", "resource")}}
    twin = PolicyText(id="a", text="", tree={**tree, "conditions": []})
    with pytest.raises(InvalidPolicyError, match="used twice"):
        Engine([twin, twin], schema)


def test_a_guardrail_is_a_forbid_that_is_named(admit_text: Any, schema: str) -> None:
    guardrail = admit_text('@id("rail") forbid (principal, action, resource);', guardrail=True).guardrails
    permit = admit_text(ALL).policies
    engine = Engine(permit, schema, guardrails=guardrail)
    assert decided(engine, request()) == ("deny", ("rail",), 0)
    with pytest.raises(InvalidPolicyError):
        Engine([], schema, guardrails=permit)


# The slice of policies that is evaluated gives what the whole set gives

_SCOPES = st.sampled_from(
    [
        "principal", 'principal == Doorward::User::"dana"', 'principal in Doorward::Project::"fraud"',
        'principal in Doorward::Group::"house"', "principal is Doorward::User",
        'principal is Doorward::User in Doorward::Group::"lab"', "principal is Doorward::Service",
        'principal in Doorward::User::"dana"',
    ]
)  # fmt: skip
_ACTIONS = st.sampled_from(
    [
        "action", 'action == Doorward::Action::"read"', 'action in Doorward::Action::"use"',
        'action in [Doorward::Action::"change", Doorward::Action::"read"]', 'action in Doorward::Action::"read"',
        "action in []",
    ]
)  # fmt: skip
_RESOURCES = st.sampled_from(
    [
        "resource", 'resource == Doorward::Dataset::"store/a"', 'resource in Doorward::Dataset::"store"',
        "resource is Doorward::Dataset", 'resource is Doorward::Model in Doorward::Project::"fraud"',
        'resource in Doorward::Upstream::"store"',
    ]
)  # fmt: skip
_CONDITIONS = st.sampled_from(
    ["", "when { context.risk > 0 }", 'when { context.purpose == "x" }', "unless { resource.live }"]
)
_POLICY = st.tuples(st.sampled_from(["permit", "forbid"]), _SCOPES, _ACTIONS, _RESOURCES, _CONDITIONS)


@settings(max_examples=150, deadline=None)
@given(st.lists(_POLICY, max_size=8), st.sampled_from(list(Action)), st.sampled_from([0, 1]))
def test_the_slice_decides_like_the_whole_set(
    engine_of: Build, schema: str, policies: list[tuple[str, ...]], action: Action, risk: int
) -> None:
    text = "\n".join(f"{e} ({p}, {a}, {r}) {c};" for e, p, a, r, c in policies)
    lab, house = EntityUid.of("Group", "lab"), EntityUid.of("Group", "house")
    known = world(
        user("dana", parents=(lab, FRAUD)),
        Entity(lab, parents=frozenset({house})),
        dataset("store", parents=(EntityUid.of("Upstream", "store"),)),
        dataset("store/a", parents=(EntityUid.of("Dataset", "store"), FRAUD)),
    )
    engine = engine_of(text, erring_forbid_denies=False)
    asked = request(action=action, risk=risk)
    answer = engine.evaluate(asked, engine.load(known))
    whole = cedarpy.is_authorized(
        {
            "principal": uid_to_json(asked.principal),
            "action": uid_to_json(asked.action),
            "resource": uid_to_json(asked.resource),
            "context": to_json(asked.context.to_record()),
        },
        text,
        [entity_to_json(entity) for entity in known.values()],
        schema,
    )
    if whole.decision is cedarpy.Decision.NoDecision:
        assert (answer.effect, len(answer.errors)) == (Effect.DENY, 1)
        return
    assert answer.effect.value == whole.decision.value.lower()
    assert sorted(answer.determining) == sorted(whole.diagnostics.reasons)
    assert len(answer.errors) == len(whole.diagnostics.errors)


def test_the_device_named_in_the_context_can_be_read(engine_of: Build) -> None:
    engine = engine_of('@id("d") permit (principal, action, resource) when { context.device.id.managed };')
    device = Entity(
        EntityUid.of("Device", "l"),
        {
            "active": True, "environment": EntityUid.of("Environment", "production"), "clearance": 0,
            "risk": 0, "managed": True, "compliant": True,
        },
    )  # fmt: skip
    asked = AccessRequest(
        EntityUid.of("User", "dana"),
        Action.READ.uid,
        EntityUid.of("Dataset", "store/a"),
        Context(now=request().context.now, device=DeviceContext(known=True, id=device.uid)),
    )
    assert decided(engine, asked, user("dana"), dataset("store/a"), device)[0] == "allow"
    assert decided(engine, asked, user("dana"), dataset("store/a")) == ("deny", (), 1)
