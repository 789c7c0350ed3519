"""Searches and `what-can` go through one filter and answer what deciding each resource answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import pytest

from doorward.core.context import Context
from doorward.core.decision import AccessRequest, Decision
from doorward.core.model import EntityUid
from doorward.decisions import inquiry, search
from doorward.decisions.authzen import Inquirer, _of_resource
from doorward.decisions.authzen_scope import Kind, Scope
from doorward.decisions.authzen_wire import Act, Evaluation, Named
from doorward.decisions.inquiry import Circumstances
from doorward.decisions.point import Standpoint
from doorward.decisions.question import Question, answer
from doorward.decisions.schema_actions import actions_of
from doorward.directory.org import offline_snapshot, parse
from support.policies import NOW, ORG

POLICIES = """
@id("fraud") permit(principal, action == Doorward::Action::"read", resource in Doorward::Project::"fraud")
  when { resource.sensitivity < 3 && context.risk < 50 };
@id("own") @mask("email")
permit(principal is Doorward::User, action in Doorward::Action::"use", resource is Doorward::Dataset)
  when { resource has owner && resource.owner == principal };
@id("cleared") forbid(principal is Doorward::User, action, resource is Doorward::Dataset)
  when { resource.sensitivity > principal.clearance + 2 };
"""


class Counting:
    """Counts decisions, wherever they are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        whole = Standpoint.decide

        def decide(standpoint: Standpoint, request: AccessRequest) -> Decision:
            self.asked += 1
            return whole(standpoint, request)

        monkeypatch.setattr(Standpoint, "decide", decide)


@pytest.fixture
def standing_on(standpoint_of: Callable[..., Standpoint]) -> Standpoint:
    whose = ("owner: dana", "projects: [fraud]")
    more = "".join(
        f'  Dataset::"store/d{n}": {{ sensitivity: {n % 4}, {whose[n % 2]} }}\n' for n in range(30)
    )
    return standpoint_of(POLICIES, offline_snapshot(parse(ORG + more, "org.yaml")))


def test_what_the_caller_cannot_keep_is_not_found(standing_on: Standpoint) -> None:
    inquirer = Inquirer(standing_on, Scope("pep", own=True), NOW)
    every = list(inquirer.resources(evaluation("dana", "read"), ""))
    for supported in ([], ["urn:doorward:obligation:mask"]):
        asked = msgspec.structs.replace(
            evaluation("dana", "read"), context={"supported_obligations": supported}
        )
        hers = [name for name in every if inquirer._allows(_of_resource(asked, name))]  # noqa: SLF001 -- one by one
        assert list(inquirer.resources(asked, "")) == hers
        assert hers


def evaluation(who: str, action: str, **properties: Any) -> Evaluation:
    subject = Named("User", who, properties.pop("subject", {}))
    return Evaluation(subject, Act(action), Named("Dataset", "", properties), {})


def one_by_one(inquirer: Inquirer, asked: Evaluation, names: list[str]) -> list[str]:
    resources = [msgspec.structs.replace(asked.resource, id=name) for name in names]
    return [
        one.id
        for one in resources
        if inquirer.evaluate(msgspec.structs.replace(asked, resource=one)).decision.allowed
    ]


@pytest.mark.parametrize("who", ["dana", "omar", "gone", "ghost"])
@pytest.mark.parametrize("action", ["read", "view", "deploy", "nothing"])
def test_a_resource_search_is_one_filter(
    standing_on: Standpoint, monkeypatch: pytest.MonkeyPatch, who: str, action: str
) -> None:
    inquirer = Inquirer(standing_on, Scope("pep", own=True), NOW)
    names = sorted(uid.id for uid in standing_on.snapshot.stated if uid.kind == "Dataset")
    asked = evaluation(who, action)
    expected = one_by_one(inquirer, asked, names)
    counting = Counting(monkeypatch)
    assert list(inquirer.resources(asked, "")) == expected
    assert list(inquirer.resources(asked, "store/d2")) == [name for name in expected if name > "store/d2"]
    assert counting.asked <= 2
    assert bool(expected) == (who in {"dana", "omar"} and action in {"read", "view"})


def test_what_is_stated_counts_in_a_search_too(standing_on: Standpoint) -> None:
    subjects = {"User": Kind("Doorward::User", properties=frozenset({"department"}))}
    resources = {"Dataset": Kind("Doorward::Dataset", ("store/d1",), frozenset({"digest"}))}
    inquirer = Inquirer(standing_on, Scope("pep", subjects=subjects, resources=resources), NOW)
    names = ["store/d1"]
    for asked in (
        evaluation("dana", "read", subject={"department": "x"}),
        evaluation("dana", "read", digest="x"),
        evaluation("dana", "read"),
    ):
        assert list(inquirer.resources(asked, "")) == one_by_one(inquirer, asked, names) == names


@pytest.mark.parametrize(
    "given",
    [
        Circumstances(purpose="fraud-model"),
        Circumstances(purpose="not-hers"),
        Circumstances(context={"risk": 60}),
    ],
)
def test_what_can_at_one_set_of_circumstances_equals_asking_each(
    standing_on: Standpoint, given: Circumstances, monkeypatch: pytest.MonkeyPatch
) -> None:
    dana = EntityUid.of("User", "dana")
    expected: dict[bool, list[dict[str, str]]] = {True: [], False: []}
    for action, applies in actions_of(standing_on.bundle.schema).items():
        for uid in (
            search.registered(standing_on, applies.resources) if dana.type in applies.principals else ()
        ):
            question = Question(
                principal=dana.cedar, action=action.cedar, resource=uid.cedar, **msgspec.structs.asdict(given)
            )
            allowed = answer(question, standing_on, NOW, explain=False).allowed
            expected[allowed].append({"action": action.id, "resource": str(uid)})
    counting = Counting(monkeypatch)
    found = inquiry.what_can(str(dana), given, standing_on, NOW)
    assert (found["allowed"], found["denied"]) == (expected[True], expected[False])
    assert counting.asked == 0
    assert bool(found["allowed"]) == (given.purpose != "not-hers")


def test_a_list_through_the_filter_equals_deciding_each(standing_on: Standpoint) -> None:
    everything = sorted(standing_on.snapshot.stated)
    context = Context(now=datetime.fromtimestamp(0, NOW.tzinfo))
    for principal in (uid for uid in everything if uid.kind in {"User", "Service"}):
        for action in actions_of(standing_on.bundle.schema):
            request = AccessRequest(principal, action, everything[0], context)
            expected = [
                uid
                for uid in everything
                if standing_on.decide(msgspec.structs.replace(request, resource=uid)).allowed
            ]
            assert list(standing_on.among(request, everything)) == expected
