# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
"""Which of many resources: the same as deciding one by one, errors too."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

import cedarpy
import msgspec
import pytest

from doorward.cedar import sieve
from doorward.cedar.engine import Engine
from doorward.core.context import Context, DeviceContext, SessionContext
from doorward.core.decision import AccessRequest
from doorward.core.feed import Bundle, PolicyText
from doorward.core.model import Action, Entity, EntityUid
from doorward.core.shadow import Measure
from doorward.decisions.point import DecisionPoint, Standpoint
from doorward.directory.org import offline_snapshot, parse
from doorward.directory.snapshot import Snapshot
from doorward.policies.workspace import packaged_schema
from support.policies import NOW, ORG, dataset, request, user, world

ATOMS = (
    "resource.sensitivity < 3",
    "resource.sensitivity <= principal.clearance",
    "resource.sensitivity == 2",
    "resource.owner == principal",  # errs where nobody owns it
    "resource has owner && resource.owner == principal",
    "resource.owner.risk < 3",  # errs where the owner is not known
    'resource in Doorward::Project::"fraud"',
    'resource == Doorward::Dataset::"store/d3"',
    "principal.purposes.containsAny(resource.purposes)",
    "principal.purposes.containsAll(resource.purposes)",
    'resource.purposes.contains("marketing")',
    "[1, 2].contains(resource.sensitivity)",
    "resource.live",
    "context.device.managed",
    "context.risk < 50",
    "context.session.mfa_age < 900",  # errs where there was no MFA
    'resource.hasTag("pii") && resource.getTag("pii") == "full"',
    'resource.getTag("pii") == "full"',  # errs where there is no tag
    "if resource.live then resource.sensitivity < 2 else context.session.mfa_age > 1",
    "resource.sensitivity + context.risk > 40",
    "context.risk + 9223372036854775807 > 0",  # always overflows but at risk 0
    'context.now > datetime("2020-01-01")',
    'resource.digest == "x"',  # errs everywhere
    'resource.digest like "x*" || true',
    "context.environment == resource.environment",  # errs
    'action in [Doorward::Action::"read"]',
    "{s: resource.sensitivity} == {s: 1}",
    "principal == resource.owner || context.device.known",
    'principal.department == "risk"',
)  # fmt: skip
MORE = "".join(
    f'  Dataset::"store/d{n}": {{ sensitivity: {n % 4}, live: {str(n % 2 == 0).lower()},'
    f" purposes: [{('fraud-model', 'marketing')[n % 5 == 0]}]"
    f"{', owner: dana' if n % 3 == 1 else ', owner: omar' if n % 7 == 0 else ''}"
    f"{', projects: [fraud]' if n % 4 == 1 else ''}"
    f"{', tags: {pii: ' + ('full' if n % 2 else 'nope') + '}' if n % 3 == 2 else ''} }}\n"
    for n in range(30)
)
CONTEXTS = (
    Context(now=NOW),
    Context(
        now=NOW, device=DeviceContext(managed=True), session=SessionContext(mfa=True, mfa_age=5), risk=80
    ),
    Context(now=NOW, risk=2**63),  # no Cedar long: everything is denied
)


@pytest.fixture(scope="module")
def many() -> Snapshot:
    return offline_snapshot(parse(ORG + MORE, "org.yaml"))


def policies(chance: Random) -> str:
    texts = []
    for _ in range(chance.randint(1, 7)):
        picked = [
            f"({chance.choice(('', '', '!'))}({atom}))" for atom in chance.sample(ATOMS, chance.randint(1, 3))
        ]
        body = chance.choice((" && ", " || ")).join(picked)
        scope = chance.choice(
            ("resource", "resource", "resource is Doorward::Dataset", 'resource in Doorward::Project::"fraud"',
             'resource == Doorward::Dataset::"store/d1"')
        )  # fmt: skip
        effect, kind = (
            chance.choice(("permit", "permit", "forbid")),
            chance.choice(("when", "when", "unless")),
        )
        condition = f" {kind} {{ {body} }}" if chance.random() < 0.9 else ""
        texts.append(f"{effect} (principal, action, {scope}){condition};")
    return "\n".join(texts)


def unchecked(text: str) -> Bundle:
    """Load policies that strict validation would refuse: those that err."""
    trees = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    found = tuple(PolicyText(id=name, text="", tree=tree) for name, tree in trees.items())
    return Bundle("sha256:test", packaged_schema(), found)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_many_at_once_equals_one_by_one(
    seed: int,
    strict: bool,  # noqa: FBT001 -- a parameter of the test
    many: Snapshot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sieve, "_OFTEN", 3)
    chance = Random(seed)  # noqa: S311 -- cases that can be made again
    text = policies(chance)
    bundle = unchecked(text)
    engine = Engine(bundle.policies, bundle.schema, erring_forbid_denies=strict, hot=None)
    standpoint = Standpoint(engine, bundle, many)
    named = [uid for uid in many.stated if uid.kind in {"Dataset", "Model", "User", "Project"}]
    named += [
        EntityUid.of("Dataset", name) for name in ("store/d1/a.csv", "store/training/b", "nowhere/x", "a//b")
    ]
    for who in ("dana", "omar", "gone", "ghost"):
        for action in (Action.READ, Action.CALL):
            for context in CONTEXTS:
                asked = AccessRequest(EntityUid.of("User", who), action.uid, named[0], context)
                one_by_one = [
                    uid for uid in named
                    if standpoint.decide(msgspec.structs.replace(asked, resource=uid)).allowed
                ]  # fmt: skip
                assert [*standpoint.among(asked, named)] == one_by_one, text


def test_a_forbid_that_errs_denies_in_a_list_too(many: Snapshot) -> None:
    text = 'permit (principal, action, resource); forbid (principal, action, resource) when { resource.getTag("pii") == "x" };'
    bundle = unchecked(text)
    standpoint = Standpoint(Engine.of(bundle), bundle, many)
    tagged = [uid for uid, entity in many.stated.items() if "pii" in entity.tags]
    asked = AccessRequest(EntityUid.of("User", "dana"), Action.READ.uid, tagged[0], Context(now=NOW))
    datasets = [uid for uid in many.stated if uid.kind == "Dataset"]
    assert sorted(standpoint.among(asked, datasets)) == sorted(tagged)


def test_what_reads_an_entity_that_breaks_the_schema_is_denied() -> None:
    wrong = Entity(EntityUid.of("User", "wrong"), {"active": "yes"})
    known = world(
        user("dana"), wrong, dataset("store/a"), dataset("store/b", owner=EntityUid.of("User", "wrong"))
    )
    text = (
        '@id("a") permit (principal, action, resource);'
        '@id("b") permit (principal, action, resource) when { resource has owner && resource.owner.active };'
    )
    bundle = unchecked(text)
    engine = Engine.of(bundle)
    loaded = engine.world(known.get, 100)
    found = engine.sieve(request(), loaded)
    assert found is not None
    for name, allowed in (("store/a", True), ("store/b", False)):
        asked = request(resource=name)
        node = loaded.node(asked.resource)
        assert node is not None
        assert found.allows(node) is allowed is (engine.evaluate(asked, loaded).effect.value == "allow")


def test_conditions_asked_often_are_generated(
    standpoint_of: Callable[..., Standpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = sieve.generated.of_resource

    def noting(*args: object, **rest: object) -> object:
        made.append(args)
        return real(*args, **rest)  # type: ignore[arg-type] -- handed on as they came

    monkeypatch.setattr(sieve.generated, "of_resource", noting)
    snapshot = offline_snapshot(
        parse(ORG + MORE + "".join(f'  Dataset::"store/e{n}": {{}}\n' for n in range(200)), "org.yaml")
    )
    standpoint = standpoint_of(
        '@id("a") permit (principal, action == Doorward::Action::"read", resource is Doorward::Dataset)'
        " when { resource.sensitivity < 2 && context.risk < 50 };",
        snapshot,
    )
    asked = AccessRequest(
        EntityUid.of("User", "dana"), Action.READ.uid, EntityUid.of("Dataset", "x"), Context(now=NOW)
    )
    datasets = [uid for uid in snapshot.stated if uid.kind == "Dataset"]
    found = [*standpoint.among(asked, datasets)]
    assert len(made) == 1
    assert found == [
        uid for uid in datasets if standpoint.decide(msgspec.structs.replace(asked, resource=uid)).allowed
    ]


def test_a_list_is_decided_one_by_one_where_a_measure_is_in_force(many: Snapshot) -> None:
    bundle = unchecked("permit (principal, action, resource);")
    point = DecisionPoint()
    point.publish(bundle)
    point.advance(many)
    asked = AccessRequest(
        EntityUid.of("User", "dana"), Action.READ.uid, EntityUid.of("Dataset", "store/d1"), Context(now=NOW)
    )
    assert [*point.pin().among(asked, [asked.resource])] == [asked.resource]
    engine = Engine.of(bundle)
    loaded = engine.world(many.lookup, 100)
    slice_ = engine.meet(asked.principal, asked.action, asked.resource, loaded)[2]
    point.restrict({engine.looks.named(slice_).name: Measure.DENY})
    assert not point.pin().decide(asked).allowed
    assert [*point.pin().among(asked, [asked.resource])] == []
