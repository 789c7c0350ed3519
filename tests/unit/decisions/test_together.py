"""Whoever asks, everybody an answer is for is decided: user and agents alike, as the gateway does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from doorward.core.decision import Effect
from doorward.core.model import Action, EntityUid
from doorward.core.obligation import Limit, Mask
from doorward.decisions import inquiry, search, together
from doorward.decisions.authzen import Inquirer
from doorward.decisions.authzen_scope import undeclared
from doorward.decisions.authzen_wire import Act, Evaluation, Named
from doorward.decisions.grounds import explained
from doorward.decisions.inquiry import Circumstances
from doorward.decisions.listing import Listing
from doorward.decisions.point import Standpoint
from doorward.decisions.question import Question, answer, answered_among, request_of
from doorward.directory.org import offline_snapshot, parse
from support.policies import NOW, ask

Stand = Callable[..., Standpoint]
SCOUT, DANA = 'Agent::"scout"', 'User::"dana"'
DATA, MODEL = 'Dataset::"store/training"', 'Model::"llm/smollm2"'
HERS = """
@id("dana-reads") @mask("email")
permit(principal == Doorward::User::"dana", action in Doorward::Action::"use", resource);
"""
ITS = """
@id("scout-reads") @mask("phone") @limit("3/minute")
permit(principal == Doorward::Agent::"scout", action == Doorward::Action::"read", resource)
  when { !(context has actor) && context.depth == 1 };
"""
ALONE = """
@id("scout-alone")
permit(principal == Doorward::Agent::"scout", action in Doorward::Action::"use", resource);
"""


def can(standpoint: Standpoint, action: str = "read", **more: Any) -> Any:
    question = Question(principal=DANA, action=action, resource=DATA, context={"actor": SCOUT}, **more)
    return answer(question, standpoint, NOW)


def test_a_user_alone_is_decided_as_before(standpoint_of: Stand) -> None:
    standpoint = standpoint_of(HERS)
    request = ask(DANA, Action.READ, DATA)
    assert together.judged(request, standpoint.decide, standpoint.snapshot) == (
        request,
        standpoint.decide(request),
    )


def test_with_an_agent_both_must_be_allowed_and_all_obligations_hold(standpoint_of: Stand) -> None:
    assert not can(standpoint_of(HERS)).allowed
    assert not can(standpoint_of(ITS)).allowed
    both = can(standpoint_of(HERS + ITS))
    assert (both.effect, both.determining) == (Effect.ALLOW, ("dana-reads", "scout-reads"))
    assert {type(one) for one in both.obligations} == {Mask, Limit}
    assert next(one.fields for one in both.obligations if isinstance(one, Mask)) == ("email", "phone")
    assert not can(standpoint_of(HERS + ITS), action="train").allowed


def test_the_denial_of_the_agent_is_told_as_the_agents(standpoint_of: Stand) -> None:
    forbid = """
    @id("agents-never") @advice("no agents here")
    forbid(principal is Doorward::Agent, action, resource);
    """
    decision = can(standpoint_of(HERS + ITS + forbid))
    assert (decision.determining, decision.advice[0]) == (("agents-never",), "no agents here")
    question = Question(principal=DANA, action="read", resource=DATA, context={"actor": SCOUT})
    _, grounds = explained(question, standpoint_of(HERS + ITS + forbid), NOW)
    assert [ground.id for ground in grounds.determining] == ["agents-never"]


def test_an_agents_purpose_and_environment_are_its_own(standpoint_of: Stand) -> None:
    policies = (
        HERS
        + """
    @id("scout-for") permit(principal == Doorward::Agent::"scout", action, resource)
      when { context has purpose ||
             context has environment && context.environment == Doorward::Environment::"testing" };
    """
    )
    assert not can(standpoint_of(policies), purpose="fraud-model").allowed


def test_enforcement_points_and_searches_answer_alike(standpoint_of: Stand) -> None:
    asked = Evaluation(
        subject=Named("User", "dana"), action=Act("read"), resource=Named("Dataset", "store/training"),
        context={"actor": SCOUT},
    )  # fmt: skip
    scope = undeclared("pep", context=frozenset({"actor"}))
    for policies, allowed in ((HERS, False), (ITS, False), (HERS + ITS, True)):
        standpoint = standpoint_of(policies)
        inquirer = Inquirer(standpoint, scope, NOW)
        assert inquirer.evaluate(asked).decision.allowed is allowed
        assert ("store/training" in inquirer.resources(asked, "")) is allowed
        assert ("dana" in inquirer.subjects(asked, "")) is allowed
        assert ("read" in inquirer.actions(asked, "")) is allowed
        question = Question(principal=DANA, action="read", resource=DATA, context={"actor": SCOUT})
        among = list(answered_among(question, [EntityUid.parse(DATA)], standpoint, NOW))
        assert bool(among) is allowed
        given = Circumstances(context={"actor": SCOUT})
        who = inquiry.who_can("read", DATA, given, standpoint, NOW)
        assert ({"principal": DANA} in who["allowed"]) is allowed
        request = request_of(question, standpoint.snapshot, NOW)
        listed = Listing(request, standpoint, keeps={"mask", "limit"})
        entity = standpoint.snapshot.resolve(EntityUid.parse(DATA))
        assert entity is not None
        assert listed.allows(entity) is allowed


class TestAnAgentOnItsOwn:
    def test_it_may_what_it_is_permitted_though_nothing_permits_it_to_its_owner(
        self, standpoint_of: Stand
    ) -> None:
        question = Question(principal=SCOUT, action="read", resource=DATA)
        assert answer(question, standpoint_of(ALONE), NOW).allowed

    @pytest.mark.parametrize(
        "forbid",
        [
            '@id("f") forbid(principal == Doorward::User::"dana", action, resource);',
            '@id("f") forbid(principal in Doorward::Project::"fraud", action, resource);',
            # What wants MFA of a person is not shown by her agent alone.
            '@id("f") forbid(principal is Doorward::User, action, resource) unless { context.session.mfa };',
        ],
    )  # fmt: skip
    def test_it_may_not_what_its_owner_is_forbidden(self, standpoint_of: Stand, forbid: str) -> None:
        standpoint = standpoint_of(ALONE + forbid)
        decision = answer(Question(principal=SCOUT, action="read", resource=DATA), standpoint, NOW)
        assert (decision.effect, decision.determining) == (Effect.DENY, (together.OWNER_FORBIDDEN, "f"))
        assert decision.would_allow == ()
        findings = search.what_can(
            EntityUid.parse(SCOUT), standpoint, lambda uid: ask(str(uid), Action.READ, DATA).context
        )
        reads = [f.group for f in findings if f.action == Action.READ.uid and str(f.resource) == DATA]
        assert reads != [search.Group.ALWAYS]

    def test_it_is_nobody_without_an_active_owner(self, standpoint_of: Stand, story: Any) -> None:
        org = f"""
        users: {{ dana: {{ active: false }} }}
        agents: {{ scout: {{ owner: dana }} }}
        assets: {{ {DATA}: {{ sensitivity: 1 }} }}
        """
        snapshot = offline_snapshot(parse(org, "org"))
        assert not snapshot.is_active(EntityUid.parse(SCOUT))
        standpoint = standpoint_of(ALONE, snapshot)
        decision = standpoint.decide(ask(SCOUT, Action.READ, DATA))
        assert decision.errors == ("request: the agent's owner is not known or not active",)
        assert not standpoint.visible(EntityUid.parse(SCOUT), EntityUid.parse(DATA))
        assert story.is_active(EntityUid.parse(SCOUT))
