"""`who-can` and `what-can` equal brute force over the stated grid, and claim nothing beyond it."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Any

import msgspec
import pytest

from doorward.core.context import Context, DeviceContext, NetworkContext, SessionContext
from doorward.core.decision import AccessRequest
from doorward.core.model import Action, EntityUid
from doorward.decisions import inquiry, search
from doorward.decisions.conditions import boxes_of, inside
from doorward.decisions.grid import grid_of
from doorward.decisions.point import Standpoint
from doorward.decisions.schema_actions import actions_of
from doorward.decisions.search import Group
from doorward.policies.workspace import packaged_schema
from support.policies import NOW, request

DANA, TRAINING = EntityUid.of("User", "dana"), EntityUid.of("Dataset", "store/training/a.csv")
RULE = (
    '@id("{0}") {2}(principal is Doorward::User, action == Doorward::Action::"read", '
    "resource is Doorward::Dataset) when {{ {1} }};"
)

ATOMS = (
    "context.device.managed",
    "context.device.proven && context.device.compliant",
    "!context.device.known",
    'context.network.zone == "office"',
    '["office", "lab"].contains(context.network.zone)',
    "context.session.mfa",
    "context.session has mfa_age && context.session.mfa_age <= 700",
    "context.session has mfa_age && context.session.mfa_age > 40",
    'context has purpose && context.purpose == "fraud-model"',
    "context has purpose && principal.purposes.contains(context.purpose)",
    'context.now < datetime("2026-07-01")',
    'context.now >= datetime("2026-06-01T12:00:00Z")',
    "context.risk < 60",
    "resource.sensitivity == 2",
    'context.device.managed && context.session.mfa || context.network.zone == "lab"',
)


def stated_grid(devices: tuple[DeviceContext, ...]) -> list[Context]:
    """The contexts brute force tries: nothing here is taken from the code under test."""
    ages = (None, 0, 40, 41, 99, 100, 700, 701, 90_000)
    sessions = [SessionContext("token", mfa=age is not None, mfa_age=age) for age in ages]
    zones = [NetworkContext(zone) for zone in ("unknown", "office", "lab")]
    moments = (NOW, NOW.replace(month=7, day=1), NOW.replace(month=7, day=2))
    return [
        Context(now=now, device=device, network=zone, session=session, purpose=purpose, risk=risk)
        for device, zone, session, purpose, now, risk in product(
            devices, zones, sessions, (None, "fraud-model", "marketing"), moments, (0, 60)
        )
    ]


DEVICES = (
    DeviceContext(),
    *(
        DeviceContext(known=True, proven=p, managed=m, compliant=c)
        for p, m, c in product((True, False), repeat=3)
    ),
)


def policies(seed: int) -> str:
    chance = random.Random(seed)  # noqa: S311 -- reproducible cases

    def condition() -> str:
        return chance.choice((" && ", " || ")).join(
            f"({atom})" for atom in chance.sample(ATOMS, chance.choice((1, 2)))
        )

    texts = [RULE.format(f"p{n}", condition(), "permit") for n in range(chance.choice((1, 2, 3)))]
    texts += [RULE.format(f"f{n}", condition(), "forbid") for n in range(chance.choice((0, 0, 1)))]
    return "\n".join(texts)


@pytest.mark.parametrize("seed", range(24))
def test_groups_equal_brute_force(seed: int, standpoint_of: Callable[..., Standpoint]) -> None:
    standpoint = standpoint_of(policies(seed))
    asked = AccessRequest(DANA, Action.READ.uid, TRAINING, Context(now=NOW))
    finding = search.when(asked, standpoint)
    every = stated_grid(DEVICES)
    tried = random.Random(seed).sample(every, 400)  # noqa: S311 -- reproducible cases
    answers = {standpoint.decide(msgspec.structs.replace(asked, context=c)).allowed for c in tried}
    match finding.group:
        case Group.ALWAYS:
            assert answers == {True}, policies(seed)
        case Group.NEVER:
            assert answers == {False}, policies(seed)
        case Group.ONLY_IF:
            grid = whole_grid(standpoint, asked)
            assert 0 < len({*search.allowed_points(asked, grid, standpoint)}) < grid.size


def whole_grid(standpoint: Standpoint, asked: AccessRequest) -> Any:
    return grid_of(
        asked.principal,
        asked.resource,
        trees=[p.tree for p in standpoint.bundle.policies],
        snapshot=standpoint.snapshot,
        neutral=asked.context,
    )


@pytest.mark.parametrize("seed", range(14))
def test_conditions_hold_exactly_where_it_is_allowed(
    seed: int, standpoint_of: Callable[..., Standpoint]
) -> None:
    """Each printed condition, made a policy of its own, allows exactly what the policies allow."""
    standpoint = standpoint_of(policies(seed))
    asked = AccessRequest(DANA, Action.READ.uid, TRAINING, Context(now=NOW))
    finding = search.when(asked, standpoint)
    if finding.group is not Group.ONLY_IF or not all(finding.conditions):
        pytest.skip("not a conditional answer")
    printed = [
        RULE.format(f"c{n}", " && ".join(f"({guard(part.change)})" for part in parts), "permit")
        for n, parts in enumerate(finding.conditions)
    ]
    said = standpoint_of("\n".join(printed))
    grid = whole_grid(standpoint, asked)
    points = list(grid.points())
    for point in random.Random(seed).sample(points, min(300, len(points))):  # noqa: S311 -- reproducible cases
        now = msgspec.structs.replace(asked, context=grid.context(point))
        assert said.decide(now).allowed == standpoint.decide(now).allowed, (grid.context(point), printed)


def guard(change: str) -> str:
    """Make a printed comparison a Cedar condition that validates: optional attributes need `has`."""
    if "context.session.mfa_age" in change:
        return f"context.session has mfa_age && ({change})"
    if "context.purpose ==" in change and "has purpose" not in change:
        return f"context has purpose && ({change})"
    return change


def test_boxes_hold_exactly_the_allowed_points(standpoint_of: Callable[..., Standpoint]) -> None:
    standpoint = standpoint_of(RULE.format("p", f"({ATOMS[0]}) && ({ATOMS[3]} || {ATOMS[5]})", "permit"))
    asked = AccessRequest(DANA, Action.READ.uid, TRAINING, Context(now=NOW))
    grid = whole_grid(standpoint, asked)
    chance = random.Random(7)  # noqa: S311 -- reproducible cases
    for _ in range(50):
        allowed = frozenset(point for point in grid.points() if chance.random() < 0.5)
        boxes = boxes_of(grid, allowed)
        assert {p for p in grid.points() if any(inside(box, p) for box in boxes)} == allowed


def test_what_lies_outside_the_grid_is_never_called_always_or_never(
    standpoint_of: Callable[..., Standpoint],
) -> None:
    for condition in ("context.request.bytes > 10", "context.request.bytes < 10", "context.depth < 3"):
        finding = search.when(
            request(resource="store/training"), standpoint_of(RULE.format("p", condition, "permit"))
        )
        assert finding.group is Group.ONLY_IF
        assert finding.outside


@pytest.mark.parametrize(
    "condition",
    [
        "context.risk > 41 && context.risk < 43",
        "context.session has mfa_age && context.session.mfa_age > 98765",
        "context.session has mfa_age && context.session.mfa_age == 77",
        'context.now == datetime("2031-05-05T05:05:05Z")',
        'context.signals.contains("leak")',
        'context.session.acr == "aal3"',
        "context.session.age > 500000",
    ],
)
def test_no_window_is_too_narrow_to_be_found(
    condition: str, standpoint_of: Callable[..., Standpoint]
) -> None:
    opened = search.when(
        request(resource="store/training"), standpoint_of(RULE.format("p", condition, "permit"))
    )
    assert (opened.group, opened.outside) == (Group.ONLY_IF, ())


def test_the_unknown_and_the_inactive_never_can(standpoint: Standpoint) -> None:
    answer = inquiry.who_can("read", str(TRAINING), inquiry.Circumstances(), standpoint, NOW)
    assert {"principal": 'User::"gone"'} in answer["never"]
    nothing = inquiry.who_can("read", 'Dataset::"nowhere/x"', inquiry.Circumstances(), standpoint, NOW)
    assert not nothing["always"]
    assert not nothing["only_if"]


def test_the_story_in_words(standpoint: Standpoint) -> None:
    answer = inquiry.who_can("read", str(TRAINING), inquiry.Circumstances(), standpoint, NOW)
    (dana,) = answer["only_if"]
    assert dana["principal"] == 'User::"dana"'
    assert dana["say"] == 'on a proven, managed, compliant device and for the purpose "fraud-model"'
    assert {"change": 'context.purpose == "fraud-model"', "say": 'for the purpose "fraud-model"'} in dana[
        "conditions"
    ][0]


def test_one_context_gives_two_groups(standpoint: Standpoint) -> None:
    given = inquiry.Circumstances(device="laptop-7", purpose="fraud-model")
    answer = inquiry.who_can("read", str(TRAINING), given, standpoint, NOW)
    assert {"principal": 'User::"dana"'} in answer["allowed"]
    # A purpose that is not hers is refused here as at the gateway.
    assert {"principal": 'User::"omar"'} in answer["denied"]


def test_what_she_cannot_see_is_left_out_for_herself(standpoint: Standpoint) -> None:
    bea = EntityUid.of("User", "bea")
    everything = inquiry.what_can(str(bea), inquiry.Circumstances(), standpoint, NOW)
    hers = inquiry.what_can(
        str(bea), inquiry.Circumstances(), standpoint, NOW, sees=lambda uid: standpoint.visible(bea, uid)
    )
    assert "store/sealed" in repr(everything)
    assert "store/sealed" not in repr(hers)


def test_actions_are_read_from_the_schema() -> None:
    actions = actions_of(packaged_schema())
    assert {uid.id for uid in actions} == {action.value for action in Action}
    assert actions[Action.CALL.uid].resources == {"Doorward::Tool"}
    assert "Doorward::Agent" not in actions[Action.APPROVE.uid].principals
