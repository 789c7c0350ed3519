"""A filter of resources equals deciding them one by one, whatever the policies."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from doorward.core.context import Context, DeviceContext
from doorward.core.decision import AccessRequest
from doorward.core.filters import (
    All,
    Compare,
    Comparison,
    Constant,
    Contains,
    Errs,
    OneOf,
    Residual,
    Same,
    Typed,
    Unknown,
    Within,
)
from doorward.core.model import Action, EntityUid
from doorward.decisions.point import Standpoint
from doorward.decisions.residual import Allowed
from doorward.decisions.schema_actions import groups_of
from doorward.directory.org import offline_snapshot, parse
from doorward.directory.snapshot import Snapshot
from doorward.policies.workspace import packaged_schema
from support.policies import NOW, ORG

ATOMS = (
    "resource.sensitivity < 3",
    "2 <= resource.sensitivity",
    "resource.sensitivity == 2",
    "resource.owner == principal",  # errs where nobody owns it
    "resource has owner && resource.owner == principal",
    'resource.environment == Doorward::Environment::"testing"',
    'resource in Doorward::Project::"fraud"',
    'resource in Doorward::Dataset::"store/training"',
    'resource == Doorward::Dataset::"store/training/a.csv"',
    'resource.purposes.contains("fraud-model")',
    'resource.purposes.containsAny(["marketing"])',
    "principal.purposes.containsAll(resource.purposes)",
    '[Doorward::Environment::"production"].contains(resource.environment)',
    "resource.live",
    "!resource.live",
    "context.device.managed",
    "context.risk < 50",
    'resource.hasTag("pii") && resource.getTag("pii") == "full"',
    'resource.getTag("pii") == "full"',  # errs where there is no tag
    "if resource.live then resource.sensitivity < 2 else principal.clearance > 1",
    "resource.sensitivity + 1 > 2",
    'context.now > datetime("2020-01-01")',
    'resource.digest == "x"',
    'resource has digest && resource.digest like "*b*"',
    "resource.purposes.isEmpty()",
    'resource.purposes.containsAny(["marketing", "fraud-model"])',
    'resource.purposes.containsAll(["marketing"])',
    'resource in [Doorward::Dataset::"store/training", Doorward::Dataset::"store/d3"]',
    'resource is Doorward::Dataset in Doorward::Environment::"testing"',
    'context.now.offset(duration("-1d")) > datetime("2026-05-31T11:59:59.999Z")',
    "9223372036854775807 + context.risk > 0",  # errs above risk 0, whatever the resource
)
MORE = "".join(
    f'  Dataset::"store/d{n}": {{ sensitivity: {n % 4}, live: {str(n % 2 == 0).lower()},'
    f" environment: {('testing', 'production')[n % 3 == 0]},"
    f" purposes: [{('fraud-model', 'marketing')[n % 5 == 0]}]"
    f"{', digest: ' + 'ab'[n % 2] * 2 if n % 5 == 2 else ''}"
    f"{', owner: dana' if n % 3 == 1 else ''}{', projects: [fraud]' if n % 4 == 1 else ''}"
    f"{', tags: {pii: ' + ('full' if n % 2 else 'nope') + '}' if n % 3 == 2 else ''} }}\n"
    for n in range(40)
)


@pytest.fixture(scope="module")
def many() -> Snapshot:
    return offline_snapshot(parse(ORG + MORE, "org.yaml"))


def policies(seed: int) -> str:
    chance = random.Random(seed)  # noqa: S311 -- reproducible cases
    texts = []
    for n in range(chance.choice((1, 2, 3, 4))):
        picked = [f"({atom})" for atom in chance.sample(ATOMS, chance.choice((1, 2, 3)))]
        condition = chance.choice((" && ", " || ")).join(picked)
        kind = chance.choice(("when", "when", "unless"))
        action = chance.choice(
            (
                'action == Doorward::Action::"read"',
                'action in Doorward::Action::"use"',
                'action in Doorward::Action::"govern"',
            )
        )
        effect = "permit" if n == 0 else chance.choice(("permit", "forbid"))
        if "govern" in action:
            condition = "principal.clearance >= 0"
        texts.append(
            f'@id("p{n}") {effect}(principal is Doorward::User, {action}, resource'
            f"{'' if 'govern' in action else ' is Doorward::Dataset'}) {kind} {{ {condition} }};"
        )
    return "\n".join(texts)


@pytest.mark.parametrize("seed", range(30))
def test_the_residual_never_says_otherwise_than_the_decision(
    seed: int, standpoint_of: Callable[..., Standpoint], many: Snapshot
) -> None:
    standpoint = standpoint_of(strict(policies(seed)), many)
    named = [uid for uid in many.stated if uid.kind in {"Dataset", "Model", "User"}]
    named += [EntityUid.of("Dataset", "store/training/a.csv"), EntityUid.of("Dataset", "nowhere/x")]
    for who in ("dana", "omar", "gone", "ghost"):
        for context in (Context(now=NOW), Context(now=NOW, device=DeviceContext(managed=True), risk=80)):
            request = AccessRequest(EntityUid.of("User", who), Action.READ.uid, named[0], context)
            expected = [
                uid
                for uid in named
                if standpoint.decide(msgspec.structs.replace(request, resource=uid)).allowed
            ]
            allowed = Allowed(request, standpoint)
            for uid in named:
                # Where the tree says something, it is what deciding says.
                said = allowed.verdict(uid)
                assert said is None or said is (uid in expected), policies(seed)


def strict(text: str) -> str:
    """Guard optional attributes as strict validation asks; errors still come from missing tags' owners."""
    return (
        text.replace("(resource.owner == principal)", "(resource has owner && resource.owner == principal)")
        .replace(
            '(resource.getTag("pii") == "full")', '(resource.hasTag("pii") && resource.getTag("pii") == "no")'
        )
        .replace('(resource.digest == "x")', '(resource has digest && resource.digest == "x")')
    )


def test_most_of_the_answer_comes_from_the_tree(
    standpoint_of: Callable[..., Standpoint], many: Snapshot
) -> None:
    standpoint = standpoint_of(
        '@id("a") permit(principal, action == Doorward::Action::"read", resource is Doorward::Dataset in '
        'Doorward::Project::"fraud") when { resource.sensitivity < 2 && context.risk < 50 && '
        "[2, 1].contains(resource.sensitivity) };",
        many,
    )
    request = AccessRequest(
        EntityUid.of("User", "dana"), Action.READ.uid, EntityUid.of("Dataset", "x"), Context(now=NOW)
    )
    allowed = Allowed(request, standpoint)
    (permit,) = allowed.residual.permits
    assert isinstance(permit, All)
    assert Within(EntityUid.of("Project", "fraud")) in permit.parts[0].parts
    assert permit.parts[1].parts[0] == Compare("sensitivity", Comparison.LESS, 2)
    assert permit.parts[1].parts[1] == OneOf("sensitivity", frozenset({1, 2}))

    named = [uid for uid in many.stated if uid.kind == "Dataset"]
    expected = [
        uid for uid in named if standpoint.decide(msgspec.structs.replace(request, resource=uid)).allowed
    ]
    assert [uid for uid in named if allowed.verdict(uid)] == expected
    assert expected
    assert None not in {allowed.verdict(uid) for uid in named}


def test_what_does_not_name_the_resource_is_evaluated_whatever_it_is(
    standpoint_of: Callable[..., Standpoint], many: Snapshot
) -> None:
    standpoint = standpoint_of(
        '@id("a") permit(principal is Doorward::User, action == Doorward::Action::"read", '
        "resource is Doorward::Dataset) when "
        '{ context.now > datetime("2026-05-01") && 1 > 0 && '
        '(if principal has email then resource.live else resource.purposes.containsAny(["marketing"])) };'
        '@id("b") forbid(principal, action, resource) when { 9223372036854775807 + 1 > 0 };',
        many,
    )
    context = Context(now=NOW)
    dataset = EntityUid.of("Dataset", "x")
    allowed = Allowed(
        AccessRequest(EntityUid.of("User", "dana"), Action.READ.uid, dataset, context), standpoint
    )
    (permit,), (forbid,) = allowed.residual.permits, allowed.residual.forbids
    assert permit == All((Typed(dataset.type), Contains("purposes", "marketing")))
    assert isinstance(forbid, Errs)


def test_a_question_that_fits_no_schema_is_left_to_the_decision(
    standpoint_of: Callable[..., Standpoint], many: Snapshot
) -> None:
    standpoint = standpoint_of('@id("a") permit(principal, action, resource);', many)
    named = [uid for uid in many.stated if uid.kind == "Dataset"]
    odd = Context(now=NOW, risk=2**70)
    request = AccessRequest(EntityUid.of("User", "dana"), Action.READ.uid, named[0], odd)
    allowed = Allowed(request, standpoint)
    assert not allowed.fits
    assert not standpoint.decide(request).allowed
    assert {allowed.verdict(uid) for uid in named} == {None}


def test_what_is_not_known_is_never_dropped(many: Snapshot) -> None:
    dataset = many.resolve(EntityUid.of("Dataset", "store/d1"))
    assert dataset is not None
    unknown, always, this = Unknown("?"), Constant(value=True), Same(dataset.uid)
    above = frozenset[EntityUid]()
    assert Residual((unknown,)).verdict(dataset, above) is None
    assert Residual((unknown, always)).verdict(dataset, above) is True
    assert Residual((always,), (unknown,)).verdict(dataset, above) is None
    assert Residual((always,), (unknown, this)).verdict(dataset, above) is False
    assert (
        Residual((always,), (All((Compare("nothing", Comparison.EQUAL, 1), Constant(value=False))),)).verdict(
            dataset, above
        )
        is None
    )
    assert Residual((), (unknown,)).verdict(dataset, above) is False


def test_groups_are_read_from_the_schema(standpoint_of: Callable[..., Standpoint]) -> None:
    groups = groups_of(packaged_schema())
    engine = standpoint_of('@id("a") permit(principal, action, resource);')._engine  # noqa: SLF001 -- the schema's own reading
    every = {group for found in groups.values() for group in found}
    assert {group.id for group in every} == {"use", "change", "govern", "extract"}
    for action in Action:
        for group in every:
            assert (group in groups[action.uid]) == (group in engine.schema.actions[action.uid].groups)
    own = (
        'namespace A { entity P, R; action "all"; action some in [all]; '
        'action x, y in ["some", B::Action::"z"] appliesTo {principal: P, resource: R}; }'
        "namespace B { action z; }"
    )
    found = {(g.type, g.id) for g in groups_of(own)[EntityUid("A::Action", "y")]}
    assert found == {("A::Action", "some"), ("A::Action", "all"), ("B::Action", "z")}
