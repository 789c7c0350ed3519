# ruff: noqa: E501 -- rules stand on one line each, as in a table
"""AuthZEN 1.0 certification, Search: one test per rule, over HTTP. Ids name the rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from support import authzen_plane
from support.authzen_plane import EVALUATION, Answer, Pep
from support.authzen_rules import (
    ACTION,
    ADMIN,
    ALICE,
    ARCHIVED,
    BOB,
    CONTEXT,
    FIRST,
    READ,
    RECORDS,
    RESOURCE,
    SECOND,
    SUBJECT,
    UNKNOWN,
    USERS,
    VALID,
    WRITE,
    Rule,
    asked,
    is_page,
    missing_rules,
    mistyped_rules,
    transport_rules,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMES = {"subject": SUBJECT, "resource": RESOURCE, "action": ACTION}
SPACESHIP = {"type": "spaceship"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pep() -> AsyncIterator[Pep]:
    async with authzen_plane.running() as running:
        yield running


def rule(
    kind: str, name: str, sentence: str, body: Any, *holds: str, like: Mapping[str, Any] | None = None
) -> Rule:
    return Rule(f"{kind}-search-{name}", sentence, NAMES[kind], body, holds=frozenset(holds), like=like)


def exactly(kind: str, name: str, sentence: str, body: Any, *results: str) -> Rule:
    return Rule(f"{kind}-search-{name}", sentence, NAMES[kind], body, results=results)


def refused(kind: str, name: str, sentence: str, body: Any) -> Rule:
    return Rule(f"{kind}-search-{name}", sentence, NAMES[kind], body, status=400)


def nothing_else(answer: Answer) -> None:
    assert answer.json == {"results": []}


def none(kind: str, name: str, sentence: str, body: Any) -> Rule:
    return Rule(f"{kind}-search-{name}", sentence, NAMES[kind], body, more=nothing_else)


SUBJECTS = [
    rule("subject", "s1", "S1: users who read record-1 MUST include alice and bob.", VALID[SUBJECT], "alice", "bob"),
    rule("subject", "context", "A context MUST be accepted and MUST NOT change the results.", {**VALID[SUBJECT], "context": CONTEXT}, "alice", "bob", like=VALID[SUBJECT]),
    rule("subject", "id-ignored", "`subject.id` MUST be ignored: the results are those without it.", asked(ALICE, READ, FIRST), "alice", "bob", like=VALID[SUBJECT]),
    rule("subject", "unknown-id-ignored", "`subject.id` MUST be ignored, whatever it is.", asked({**USERS, "id": "nobody"}, READ, FIRST), like=VALID[SUBJECT]),
    rule("subject", "s4-resource-properties", "S4: users who write an archived record MUST include bob.", asked(USERS, WRITE, ARCHIVED), "bob"),
    exactly("subject", "truthful", "Every result MUST be a permitted decision, and no other.", asked(USERS, WRITE, FIRST), "alice"),
    exactly("subject", "subject-properties", "Properties of the subject hold for the subjects looked for.", asked({**USERS, "properties": {"role": "reader"}}, WRITE, FIRST), "alice"),
    rule("subject", "unknown-subject-fields", "Unknown fields of the subject MUST be ignored.", asked({**USERS, "customAttr": 1}, READ, FIRST), like=VALID[SUBJECT]),
    rule("subject", "unknown-action-fields", "Unknown fields of the action MUST be ignored.", asked(USERS, {**READ, "customAttr": 1}, FIRST), like=VALID[SUBJECT]),
    rule("subject", "unknown-resource-fields", "Unknown fields of the resource MUST be ignored.", asked(USERS, READ, {**FIRST, "customAttr": 1}), like=VALID[SUBJECT]),
    rule("subject", "page-unknown-fields", "Unknown fields of `page` MUST be ignored.", {**VALID[SUBJECT], "page": {"limit": 10, "customAttr": 1}}, "alice", "bob", like=VALID[SUBJECT]),
    rule("subject", "page-empty", "An empty `page` MUST be accepted.", {**VALID[SUBJECT], "page": {}}, "alice", "bob", like=VALID[SUBJECT]),
    none("subject", "unknown-type", "An unknown subject type MUST be an empty result, not an error.", asked(SPACESHIP, READ, FIRST)),
    none("subject", "unknown-resource", "An unknown resource MUST be an empty result, not an error.", asked(USERS, READ, {"type": "record", "id": "nowhere"})),
    none("subject", "unknown-resource-type", "An unknown resource type MUST be an empty result, not an error.", asked(USERS, READ, {**SPACESHIP, "id": "x"})),
    none("subject", "unknown-action", "An unknown action MUST be an empty result, not an error.", asked(USERS, {"name": "fly"}, FIRST)),
    none("subject", "nobody", "No match MUST be an empty result, not an error.", asked(USERS, {"name": "delete"}, FIRST)),
    *missing_rules("subject-search", SUBJECT, "subject", "action", "resource", "subject.type", "action.name", "resource.type", "resource.id"),
    *mistyped_rules("subject-search", SUBJECT, {"subject": "user", "action": "read", "resource": "record-1", "resource.id": 1, "context": []}),
    *(refused("subject", f"page-{name}", "A page of a wrong type MUST be 400.", {**VALID[SUBJECT], "page": page})
      for name, page in {"text": "1", "limit-zero": {"limit": 0}, "limit-negative": {"limit": -1}, "limit-text": {"limit": "2"},
                         "limit-true": {"limit": True}, "token-number": {"token": 7}, "token-forged": {"token": "AAAA"}}.items()),
    *transport_rules("subject-search", SUBJECT),
]  # fmt: skip
RESOURCES = [
    rule("resource", "s2", "S2: records alice reads MUST include record-1.", VALID[RESOURCE], "record-1"),
    rule("resource", "context", "A context MUST be accepted and MUST NOT change the results.", {**VALID[RESOURCE], "context": CONTEXT}, "record-1", like=VALID[RESOURCE]),
    rule("resource", "id-ignored", "`resource.id` MUST be ignored: the results are those without it.", asked(ALICE, READ, FIRST), "record-1", "record-2", like=VALID[RESOURCE]),
    rule("resource", "s5-subject-properties", "S5: records an admin writes MUST include record-2.", asked(ADMIN, WRITE, RECORDS), "record-2"),
    exactly("resource", "truthful", "Every result MUST be a permitted decision, and no other.", asked(ALICE, WRITE, RECORDS), "record-1"),
    none("resource", "unknown-type", "An unknown resource type MUST be an empty result, not an error.", asked(ALICE, READ, SPACESHIP)),
    none("resource", "unknown-subject", "An unknown subject MUST be an empty result, not an error.", asked({"type": "user", "id": "nobody"}, READ, RECORDS)),
    none("resource", "unknown-subject-type", "An unknown subject type MUST be an empty result, not an error.", asked({**SPACESHIP, "id": "x"}, READ, RECORDS)),
    none("resource", "unknown-action", "An unknown action MUST be an empty result, not an error.", asked(ALICE, {"name": "fly"}, RECORDS)),
    *missing_rules("resource-search", RESOURCE, "subject", "action", "resource", "subject.type", "subject.id", "action.name", "resource.type"),
    *mistyped_rules("resource-search", RESOURCE, {"subject": "alice", "action": [], "resource": "record", "subject.id": 1, "context": 1}),
    *transport_rules("resource-search", RESOURCE),
]  # fmt: skip
ACTIONS = [
    rule("action", "s3", "S3: what alice may do to record-1 MUST include read and write.", VALID[ACTION], "read", "write"),
    rule("action", "context", "A context MUST be accepted and MUST NOT change the results.", {**VALID[ACTION], "context": CONTEXT}, "read", "write", like=VALID[ACTION]),
    rule("action", "s6-properties", "S6: what an admin may do to an archived record MUST include write.", {"subject": ADMIN, "resource": ARCHIVED}, "write"),
    rule("action", "extra-action-ignored", "An `action` in the request MUST be ignored.", {**VALID[ACTION], "action": WRITE}, "read", "write", like=VALID[ACTION]),
    rule("action", "extra-mistyped-action-ignored", "An `action` in the request is an unknown field, whatever it is.", {**VALID[ACTION], "action": 7}, like=VALID[ACTION]),
    exactly("action", "truthful", "Every result MUST be a permitted decision, and no other.", {"subject": BOB, "resource": FIRST}, "read"),
    none("action", "unknown-subject", "An unknown subject MUST be an empty result, not an error.", {"subject": {"type": "user", "id": "nonexistent-user"}, "resource": FIRST}),
    none("action", "unknown-resource", "An unknown resource MUST be an empty result, not an error.", {"subject": ALICE, "resource": {"type": "record", "id": "nowhere"}}),
    none("action", "unknown-type", "An unknown type MUST be an empty result, not an error.", {"subject": ALICE, "resource": {**SPACESHIP, "id": "x"}}),
    none("action", "unknown-subject-type", "An unknown type MUST be an empty result, not an error.", {"subject": {**SPACESHIP, "id": "x"}, "resource": FIRST}),
    *missing_rules("action-search", ACTION, "subject", "resource", "subject.type", "subject.id", "resource.type", "resource.id"),
    *mistyped_rules("action-search", ACTION, {"subject": "alice", "resource": None, "resource.id": [], "context": "x"}),
    *transport_rules("action-search", ACTION),
]  # fmt: skip
RULES = {one.id: one for one in (*SUBJECTS, *RESOURCES, *ACTIONS)}


async def test_every_rule_has_an_id_of_its_own() -> None:
    assert len(RULES) == len(SUBJECTS) + len(RESOURCES) + len(ACTIONS)


@pytest.mark.parametrize("one", RULES.values(), ids=RULES)
async def test_the_rule_holds(pep: Pep, one: Rule) -> None:
    await one.hold(pep)


# Pagination (scenario 4.5; specification 8.3)


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("kind", NAMES)
async def test_pages_hold_every_result_once_in_order(pep: Pep, kind: str, limit: int) -> None:
    path, body = NAMES[kind], VALID[NAMES[kind]]
    whole = (await pep.post(path, body)).json["results"]
    assert len(whole) > 1
    seen: list[Any] = []
    page: dict[str, Any] = {"limit": limit}
    while True:
        answer = (await pep.post(path, {**body, "page": page})).json
        is_page(answer)
        assert answer["page"]["count"] == len(answer["results"]) <= limit
        seen += answer["results"]
        if not answer["page"]["next_token"]:
            break
        page = {"token": answer["page"]["next_token"]}
    assert seen == whole


CHANGED: dict[str, tuple[str, dict[str, Any]]] = {
    "action": (SUBJECT, {**VALID[SUBJECT], "action": WRITE}),
    "resource": (SUBJECT, {**VALID[SUBJECT], "resource": SECOND}),
    "context": (SUBJECT, {**VALID[SUBJECT], "context": CONTEXT}),
    "properties": (SUBJECT, {**VALID[SUBJECT], "subject": {**USERS, "properties": {"role": "x"}}}),
    "subject-type": (SUBJECT, {**VALID[SUBJECT], "subject": SPACESHIP}),
    "endpoint": (RESOURCE, VALID[RESOURCE]),
    "limit": (SUBJECT, {**VALID[SUBJECT], "page": {"limit": 2}}),
}


@pytest.mark.parametrize("what", CHANGED)
async def test_a_token_with_a_changed_query_is_refused(pep: Pep, what: str) -> None:
    token = (await pep.post(SUBJECT, {**VALID[SUBJECT], "page": {"limit": 1}})).json["page"]["next_token"]
    path, body = CHANGED[what]
    page = {**body.get("page", {}), "token": token}
    assert (await pep.post(path, {**body, "page": page})).status == 400
    again = {**VALID[SUBJECT], **UNKNOWN, "page": {"token": token, "limit": 1}}
    assert (await pep.post(SUBJECT, again)).status == 200


async def test_a_token_belongs_to_its_caller_and_cannot_be_changed(pep: Pep) -> None:
    first = {**VALID[SUBJECT], "page": {"limit": 1}}
    token = (await pep.post(SUBJECT, first)).json["page"]["next_token"]
    status, _ = await pep.plane.operator("POST", SUBJECT, {**VALID[SUBJECT], "page": {"token": token}})
    assert status == 400
    for place in (0, len(token) // 2, -5):
        flipped = list(token)
        flipped[place] = "A" if flipped[place] != "A" else "B"
        body = {**VALID[SUBJECT], "page": {"token": "".join(flipped)}}
        assert (await pep.post(SUBJECT, body)).status == 400


async def test_what_a_search_finds_is_what_an_evaluation_permits(pep: Pep) -> None:
    for action in (READ, WRITE, {"name": "delete"}):
        for resource in (FIRST, SECOND):
            found = (await pep.post(SUBJECT, asked(USERS, action, resource))).json["results"]
            for subject in (ALICE, BOB):
                decision = (await pep.post(EVALUATION, asked(subject, action, resource))).json["decision"]
                assert decision is (subject in found)
