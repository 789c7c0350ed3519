# ruff: noqa: E501, FBT003 -- rules stand on one line each, as in a table
"""AuthZEN 1.0 certification, Basic and Batch: one test per rule, over HTTP. Ids name the rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from support import authzen_plane
from support.authzen_plane import EVALUATION, EVALUATIONS, Answer, Pep
from support.authzen_rules import (
    ACTIVE,
    ADMIN,
    ALICE,
    ARCHIVED,
    BOB,
    CONTEXT,
    FIRST,
    READ,
    RECORDS,
    SECOND,
    UNKNOWN,
    WRITE,
    Rule,
    asked,
    missing_rules,
    mistyped_rules,
    transport_rules,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
SOFT = {"name": "delete", "properties": {"soft": True}}
HARD = {"name": "delete", "properties": {"soft": False}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pep() -> AsyncIterator[Pep]:
    async with authzen_plane.running() as running:
        yield running


def decided(name: str, sentence: str, body: Any, decision: bool) -> Rule:  # noqa: FBT001 -- a row of a table
    return Rule(f"evaluation-{name}", sentence, EVALUATION, body, decision=decision)


def batch(name: str, sentence: str, body: Any, *decisions: bool | None) -> Rule:
    return Rule(f"evaluations-{name}", sentence, EVALUATIONS, body, decisions=decisions)


def refused(name: str, sentence: str, body: Any) -> Rule:
    return Rule(f"evaluations-{name}", sentence, EVALUATIONS, body, status=400)


def with_semantic(semantic: str, subject: Any, *actions: Any) -> dict[str, Any]:
    options = {"options": {"evaluations_semantic": semantic}} if semantic else {}
    return {"subject": subject, "resource": FIRST, **options, "evaluations": [{"action": a} for a in actions]}


def says_why(answer: Answer) -> None:
    """Check that the item that failed says so (3.4.1: it MAY include details in that item's context)."""
    assert answer.json["evaluations"][-1]["context"]["error"]["status"] == 400


ONE = with_semantic("", BOB, READ)
BASIC = [
    decided("rule-1-permit", "Alice reads record-1: MUST be true.", asked(ALICE, READ, FIRST), True),
    decided("rule-2", "Alice writes record-1: MUST be true.", asked(ALICE, WRITE, FIRST), True),
    decided("rule-3", "Bob reads record-1: MUST be true.", asked(BOB, READ, FIRST), True),
    decided("rule-4-deny", "Bob writes record-1: MUST be false.", asked(BOB, WRITE, FIRST), False),
    decided("rule-5-resource-properties", "Alice writes an archived record: MUST be false.", asked(ALICE, WRITE, ARCHIVED), False),
    decided("rule-6-subject-properties", "An admin writes an archived record: MUST be true.", asked(ADMIN, WRITE, ARCHIVED), True),
    decided("rule-7-action-properties", "Alice deletes softly: MUST be true.", asked(ALICE, SOFT, FIRST), True),
    decided("rule-8-action-properties", "Alice deletes for good: MUST be false.", asked(ALICE, HARD, FIRST), False),
    decided("optional-context", "An optional context MUST be accepted and MUST NOT change the decision.", asked(ALICE, READ, FIRST, context=CONTEXT), True),
    decided("context-keeps-rule-4", "The fixture decisions MUST hold with a context too.", asked(BOB, WRITE, FIRST, context=CONTEXT), False),
    decided("context-keeps-rule-5", "The fixture decisions MUST hold with a context too.", asked(ALICE, WRITE, ARCHIVED, context=CONTEXT), False),
    decided("context-keeps-rule-6", "The fixture decisions MUST hold with a context too.", asked(ADMIN, WRITE, ARCHIVED, context=CONTEXT), True),
    decided("context-keeps-rule-8", "The fixture decisions MUST hold with a context too.", asked(ALICE, HARD, FIRST, context=CONTEXT), False),
    decided("empty-properties", "`properties` is optional and may be empty.", asked({**ALICE, "properties": {}}, READ, {**FIRST, "properties": {}}), True),
    decided("additional-properties", "Additional properties MUST be accepted.",
            asked({**ALICE, "properties": {"department": "Sales", "role": "manager"}}, {**READ, "properties": {"method": "GET"}},
                  {**FIRST, "properties": {"status": "active", "owner": "bob"}}), True),
    decided("unknown-subject-fields", "Unknown fields of the subject MUST be ignored.", asked({**ALICE, "customAttr": "x"}, READ, FIRST), True),
    decided("unknown-action-fields", "Unknown fields of the action MUST be ignored.", asked(ALICE, {**READ, "customAttr": "x"}, FIRST), True),
    decided("unknown-resource-fields", "Unknown fields of the resource MUST be ignored.", asked(ALICE, READ, {**FIRST, "customAttr": "x"}), True),
    decided("member-order", "No order of JSON members may be assumed.", dict(reversed(asked(ALICE, READ, FIRST).items())), True),
    decided("unknown-subject-is-a-decision", "An unknown subject is a denial, not an error.", asked({"type": "user", "id": "nobody"}, READ, FIRST), False),
    decided("unknown-action-is-a-decision", "An unknown action is a denial, not an error.", asked(ALICE, {"name": "fly"}, FIRST), False),
    decided("unknown-type-is-a-decision", "An unknown type is a denial, not an error.", asked(ALICE, READ, {"type": "spaceship", "id": "x"}), False),
    *missing_rules("evaluation", EVALUATION, "subject", "action", "resource", "subject.type", "subject.id", "action.name",
                   "resource.type", "resource.id"),
    *mistyped_rules("evaluation", EVALUATION, {
        "subject": "alice", "action": "read", "resource": ["record-1"], "action.name": 123, "subject.id": 7, "subject.type": None,
        "resource.id": None, "resource.type": {}, "subject.properties": ["role"], "action.properties": "soft",
        "resource.properties": 1, "context": "now",
    }),
    *transport_rules("evaluation", EVALUATION),
]  # fmt: skip
BATCH = [
    batch("array", "A batch MUST be answered with one decision per item.",
          {"subject": ALICE, "action": READ, "evaluations": [{"resource": FIRST}, {"resource": SECOND}]}, True, True),
    batch("fixture-decisions", "Decisions MUST stand in the order of the request (rules 3 and 4).", with_semantic("", BOB, READ, WRITE), True, False),
    batch("reversed-order", "Decisions MUST stand in the order of the request.", with_semantic("", BOB, WRITE, READ), False, True),
    batch("resource-properties", "Properties MUST be evaluated per item (rules 2 and 5).",
          {"subject": ALICE, "action": WRITE, "evaluations": [{"resource": ACTIVE}, {"resource": ARCHIVED}]}, True, False),
    batch("subject-properties", "Subject properties MUST be evaluated per item (rules 5 and 6).",
          {"action": WRITE, "resource": ARCHIVED, "evaluations": [{"subject": ALICE}, {"subject": ADMIN}]}, False, True),
    batch("action-properties", "Action properties MUST be evaluated per item (rules 7 and 8).",
          {"subject": ALICE, "resource": FIRST, "evaluations": [{"action": SOFT}, {"action": HARD}]}, True, False),
    batch("fully-specified", "A batch without defaults MUST be accepted.",
          {"evaluations": [asked(ALICE, READ, FIRST), asked(BOB, WRITE, FIRST)]}, True, False),
    batch("context-inherited", "A top-level context applies unless an item has its own.",
          {"subject": ALICE, "action": READ, "context": CONTEXT,
           "evaluations": [{"resource": FIRST}, {"resource": SECOND, "context": {"source": "batch-override"}}]}, True, None),
    batch("default-inherited", "An item inherits the whole top-level entity; one of its own replaces it whole.",
          {**asked(ALICE, WRITE, ACTIVE), "evaluations": [{}, {"resource": ARCHIVED}]}, True, False),
    batch("item-overrides", "A value of the item takes precedence over the default.",
          {**asked(BOB, WRITE, FIRST), "evaluations": [{"action": READ}, {}]}, True, False),
    batch("no-sub-field-merging", "There is no sub-field merging: an item's entity is complete or absent.",
          {**asked(ALICE, WRITE, RECORDS), "evaluations": [{"resource": {"id": "record-1"}}, {"resource": FIRST}]}, False, True),
    batch("replaced-whole", "Properties of the default MUST NOT be merged into an item's entity.",
          {**asked(ADMIN, WRITE, ARCHIVED), "evaluations": [{}, {"subject": ALICE}]}, True, False),
    batch("default-is-execute-all", "Without a semantic every evaluation MUST be executed.", with_semantic("", BOB, WRITE, READ, WRITE), False, True, False),
    batch("execute-all", "`execute_all` MUST return every decision.", with_semantic("execute_all", BOB, READ, WRITE, READ), True, False, True),
    batch("deny-on-first-deny", "`deny_on_first_deny` MUST stop after the first denial, which is the last item.", with_semantic("deny_on_first_deny", BOB, READ, WRITE, READ), True, False),
    batch("deny-on-first-deny-without-one", "`deny_on_first_deny` without a denial returns every decision.", with_semantic("deny_on_first_deny", ALICE, READ, WRITE), True, True),
    batch("permit-on-first-permit", "`permit_on_first_permit` MUST stop after the first permit, which is the last item.", with_semantic("permit_on_first_permit", BOB, WRITE, READ, WRITE), False, True),
    batch("permit-on-first-permit-without-one", "`permit_on_first_permit` without a permit returns every decision.", with_semantic("permit_on_first_permit", BOB, WRITE, WRITE), False, False),
    batch("empty-options", "Options without a semantic mean `execute_all`.", {**with_semantic("", BOB, WRITE, READ), "options": {}}, False, True),
    batch("unknown-options", "Unknown fields of the options MUST be ignored.", {**with_semantic("", BOB, WRITE, READ), "options": UNKNOWN}, False, True),
    batch("unknown-item-fields", "Unknown fields of an item MUST be ignored.", {**asked(BOB, READ, FIRST), "evaluations": [{**UNKNOWN}, {"action": WRITE}]}, True, False),
    batch("item-error", "An item that fails MUST be `decision: false` in its place, with HTTP 200.",
          {"subject": ALICE, "action": READ, "options": {"evaluations_semantic": "execute_all"}, "evaluations": [{"resource": FIRST}, {}]}, True, False),
    batch("item-error-in-the-middle", "An item that fails MUST NOT move or stop the others.",
          {"subject": ALICE, "action": READ, "evaluations": [{"resource": FIRST}, {"resource": "record-1"}, {"resource": FIRST}]}, True, False, True),
    batch("missing-subject", "A lone item without a subject MUST be `decision: false` with HTTP 200.", {"action": READ, "evaluations": [{"resource": FIRST}]}, False),
    batch("item-is-no-object", "An item that is no object MUST be `decision: false`.", {**asked(ALICE, READ, FIRST), "evaluations": [{}, 7, None]}, True, False, False),
    batch("item-error-stops-deny-on-first-deny", "A failed item counts as a denial.",
          {**asked(ALICE, READ, FIRST), "options": {"evaluations_semantic": "deny_on_first_deny"}, "evaluations": [{}, {"action": {}}, {}]}, True, False),
    Rule("evaluations-item-error-details", "A failed item MAY carry details in its context.", EVALUATIONS,
         {"subject": ALICE, "action": READ, "evaluations": [{"resource": FIRST}, {}]}, decisions=(True, False), more=says_why),
    Rule("evaluations-missing-array", "Without `evaluations` it MUST behave as a single evaluation.", EVALUATIONS, asked(ALICE, READ, FIRST), decision=True),
    Rule("evaluations-empty-array", "With an empty `evaluations` it MUST behave as a single evaluation.", EVALUATIONS, asked(ALICE, READ, FIRST, evaluations=[]), decision=True),
    Rule("evaluations-missing-array-deny", "Without `evaluations` a denial is a denial.", EVALUATIONS, asked(BOB, WRITE, FIRST), decision=False),
    refused("unknown-semantic", "An unknown semantic MUST be answered with 400.", with_semantic("bogus_value", BOB, READ)),
    refused("mistyped-semantic", "A semantic that is no text MUST be answered with 400.", {**ONE, "options": {"evaluations_semantic": 1}}),
    refused("mistyped-options", "Options of a wrong type MUST be answered with 400.", {**ONE, "options": "execute_all"}),
    refused("mistyped-evaluations", "`evaluations` of a wrong type MUST be answered with 400.", asked(ALICE, READ, FIRST, evaluations={})),
    refused("mistyped-default", "A request invalid at its top level MUST be answered with 400.", {**ONE, "subject": "bob"}),
    refused("single-missing-resource", "As a single evaluation it needs every required field.", asked(ALICE, READ, FIRST, evaluations=[]) | {"resource": {}}),
    *transport_rules("evaluations", EVALUATIONS),
]  # fmt: skip
RULES = {rule.id: rule for rule in (*BASIC, *BATCH)}


async def test_every_rule_has_an_id_of_its_own() -> None:
    assert len(RULES) == len(BASIC) + len(BATCH)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
async def test_the_rule_holds(pep: Pep, rule: Rule) -> None:
    await rule.hold(pep)
