"""AuthZEN 1.0: the certification scenario rule by rule, and the todo interop decisions, over HTTP.

Test names carry the section of the scenario text (2.2.1, 3.4.2, ...).
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support import authzen_plane
from support.authzen_plane import EVALUATION, EVALUATIONS, Pep

ALICE, BOB = {"type": "user", "id": "alice"}, {"type": "user", "id": "bob"}
ADMIN = {**BOB, "properties": {"role": "admin"}}
FIRST, SECOND = {"type": "record", "id": "record-1"}, {"type": "record", "id": "record-2"}
ACTIVE = {**FIRST, "properties": {"status": "active"}}
ARCHIVED = {**SECOND, "properties": {"status": "archived"}}
READ, WRITE = {"name": "read"}, {"name": "write"}
CONTEXT = {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}
SUBJECT, RESOURCE, ACTION = (f"/access/v1/search/{kind}" for kind in ("subject", "resource", "action"))
VALID = {"subject": ALICE, "action": READ, "resource": FIRST}
DATA = Path(os.environ.get("DOORWARD_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "authzen"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pep() -> AsyncIterator[Pep]:
    async with authzen_plane.running() as running:
        yield running


def asked(subject: Any, action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"subject": subject, "action": action, "resource": resource, **more}


def without(key: str, inner: str | None = None) -> dict[str, Any]:
    if inner is None:
        return {name: value for name, value in VALID.items() if name != key}
    return {**VALID, key: {name: value for name, value in VALID[key].items() if name != inner}}


DECISIONS = {
    "rule-1": (asked(ALICE, READ, FIRST), True),
    "rule-2": (asked(ALICE, WRITE, FIRST), True),
    "rule-3": (asked(BOB, READ, FIRST), True),
    "rule-4": (asked(BOB, WRITE, FIRST), False),
    "rule-5": (asked(ALICE, WRITE, ARCHIVED), False),
    "rule-6": (asked(ADMIN, WRITE, ARCHIVED), True),
    "rule-7": (asked(ALICE, {"name": "delete", "properties": {"soft": True}}, FIRST), True),
    "rule-8": (asked(ALICE, {"name": "delete", "properties": {"soft": False}}, FIRST), False),
    "2.2.3-context": (asked(ALICE, READ, FIRST, context=CONTEXT), True),
    "2.2.8-more-properties": (
        asked(
            {**ALICE, "properties": {"department": "Sales", "role": "manager"}},
            {"name": "read", "properties": {"method": "GET"}},
            {**FIRST, "properties": {"status": "active", "owner": "bob"}},
        ),
        True,
    ),
    "2.2.9-unknown-fields": (asked(ALICE, READ, FIRST, foo="bar", futureField={"nested": True}), True),
}


@pytest.mark.parametrize("name", DECISIONS)
async def test_2_2_decisions(pep: Pep, name: str) -> None:
    body, expected = DECISIONS[name]
    answer = await pep.post(EVALUATION, body)
    assert answer.status == 200
    assert answer.json["decision"] is expected
    assert isinstance(answer.json.get("context", {}), dict)
    assert answer.headers["content-type"].startswith("application/json")


REFUSED: dict[str, Any] = {
    "2.4.1-no-subject": without("subject"),
    "2.4.1-no-action": without("action"),
    "2.4.1-no-resource": without("resource"),
    "2.4.2-subject-type": without("subject", "type"),
    "2.4.2-subject-id": without("subject", "id"),
    "2.4.2-action-name": {**VALID, "action": {}},
    "2.4.2-resource-type": without("resource", "type"),
    "2.4.2-resource-id": without("resource", "id"),
    "2.4.4-malformed": b'{"subject": ',
    "2.4.4-not-utf8": b'{"subject": "\xff"}',
    "2.4.4-surrogate": b'{"subject": {"type": "user", "id": "\\ud800"}, "action": {"name": "read"}, '
    b'"resource": {"type": "record", "id": "record-1"}}',
    "2.4.4-twice": b'{"subject": {"type": "user", "id": "bob", "id": "alice"}, "action": {"name": "read"}, '
    b'"resource": {"type": "record", "id": "record-1"}}',
    "2.4.5-empty": b"",
    "2.4.5-array": [VALID],
    "2.4.6-subject-text": {**VALID, "subject": "alice"},
    "2.4.6-name-number": {**VALID, "action": {"name": 123}},
    "2.4.6-id-null": {**VALID, "resource": {"type": "record", "id": None}},
    "2.4.6-properties-list": {**VALID, "subject": {**ALICE, "properties": ["role"]}},
    "2.4.6-context-text": {**VALID, "context": "now"},
    "2.4.6-null-subject": {**VALID, "subject": None},
}


@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
@pytest.mark.parametrize("name", REFUSED)
async def test_2_4_what_is_missing_or_mistyped_is_400(pep: Pep, name: str, path: str) -> None:
    answer = await pep.post(path, REFUSED[name], x_request_id="r-1")
    assert answer.status == 400
    assert answer.headers["x-request-id"] == "r-1"


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_2_4_3_content_type(pep: Pep, media: str) -> None:
    assert (await pep.post(EVALUATION, VALID, content_type=media)).status == 400


async def test_2_4_3_charset_is_fine(pep: Pep) -> None:
    answer = await pep.post(EVALUATION, VALID, content_type="application/json; charset=utf-8")
    assert (answer.status, answer.json["decision"]) == (200, True)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_other_methods(pep: Pep, method: str) -> None:
    assert (await pep.send(method, EVALUATION, json.dumps(VALID).encode())).status == 405


@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS, SUBJECT, RESOURCE, ACTION])
async def test_2_5_request_id(pep: Pep, path: str) -> None:
    echoed = await pep.post(path, VALID, x_request_id="bfe9eb29-ab87-4ca3-be83-a1d5d8305716")
    assert echoed.headers["x-request-id"] == "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"
    assert (await pep.post(path, VALID)).status == 200


async def test_2_6_idempotency(pep: Pep) -> None:
    for name in ("rule-1", "rule-4", "rule-6"):
        body, expected = DECISIONS[name]
        assert {(await pep.post(EVALUATION, body)).json["decision"] for _ in range(5)} == {expected}


@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS, SUBJECT, RESOURCE, ACTION])
@pytest.mark.parametrize("credential", ["", "Bearer dw_wrong", "Bearer abc", "Basic eDp5"])
async def test_who_calls_must_be_known(pep: Pep, credential: str, path: str) -> None:
    answer = await pep.post(path, VALID, authorization=credential, x_request_id="r-2")
    assert answer.status == 401
    assert answer.headers["www-authenticate"]
    assert answer.headers["x-request-id"] == "r-2"
    assert b"decision" not in answer.body


BATCHES: dict[str, tuple[dict[str, Any], list[bool | None]]] = {
    "3.2.1": (
        {"subject": ALICE, "action": READ, "evaluations": [{"resource": FIRST}, {"resource": SECOND}]},
        [None, None],
    ),
    "3.2.2": (
        {"subject": BOB, "resource": FIRST, "evaluations": [{"action": READ}, {"action": WRITE}]},
        [True, False],
    ),
    "3.2.3": (
        {"subject": ALICE, "action": WRITE, "evaluations": [{"resource": ACTIVE}, {"resource": ARCHIVED}]},
        [True, False],
    ),
    "3.2.4": (
        {"action": WRITE, "resource": ARCHIVED, "evaluations": [{"subject": ALICE}, {"subject": ADMIN}]},
        [False, True],
    ),
    "3.2.5": ({"evaluations": [asked(ALICE, READ, FIRST), asked(BOB, WRITE, FIRST)]}, [True, False]),
    "3.2.6": (
        {
            "subject": ALICE,
            "action": READ,
            "context": {"time": "2025-06-27T18:03-07:00"},
            "evaluations": [{"resource": FIRST}, {"resource": SECOND, "context": {"source": "override"}}],
        },
        [None, None],
    ),
    "3.2.7": (
        {**asked(ALICE, WRITE, ACTIVE), "evaluations": [{}, {"resource": ARCHIVED}]},
        [True, False],
    ),
    "3.4.1": (
        {
            "subject": ALICE,
            "action": READ,
            "options": {"evaluations_semantic": "execute_all"},
            "evaluations": [{"resource": FIRST}, {}],
        },
        [True, False],
    ),
    "deny_on_first_deny": (
        {
            "subject": BOB,
            "resource": FIRST,
            "options": {"evaluations_semantic": "deny_on_first_deny"},
            "evaluations": [{"action": READ}, {"action": WRITE}, {"action": READ}],
        },
        [True, False],
    ),
    "permit_on_first_permit": (
        {
            "subject": BOB,
            "resource": FIRST,
            "options": {"evaluations_semantic": "permit_on_first_permit"},
            "evaluations": [{"action": WRITE}, {"action": READ}, {"action": READ}],
        },
        [False, True],
    ),
}


@pytest.mark.parametrize("name", BATCHES)
async def test_3_batches(pep: Pep, name: str) -> None:
    body, expected = BATCHES[name]
    answer = await pep.post(EVALUATIONS, body)
    assert answer.status == 200
    assert "decision" not in answer.json
    decisions = [item["decision"] for item in answer.json["evaluations"]]
    assert len(decisions) == len(expected)
    for got, wanted in zip(decisions, expected, strict=True):
        assert isinstance(got, bool)
        assert wanted is None or got is wanted


async def test_3_2_7_an_entity_is_replaced_whole(pep: Pep) -> None:
    body = {**asked(ALICE, READ, FIRST), "evaluations": [{"resource": {"id": "record-2"}}]}
    (item,) = (await pep.post(EVALUATIONS, body)).json["evaluations"]
    assert item["decision"] is False
    assert item["context"]["error"]["status"] == 400


@pytest.mark.parametrize("more", [{}, {"evaluations": []}])
async def test_3_4_2_without_evaluations_it_is_one(pep: Pep, more: dict[str, Any]) -> None:
    answer = (await pep.post(EVALUATIONS, {**VALID, **more})).json
    assert answer["decision"] is True
    assert "evaluations" not in answer


@pytest.mark.parametrize(
    "more", [{"evaluations": {}}, {"evaluations": [{}], "options": {"evaluations_semantic": "some"}}]
)
async def test_a_batch_that_cannot_be_read_is_400(pep: Pep, more: dict[str, Any]) -> None:
    assert (await pep.post(EVALUATIONS, {**VALID, **more})).status == 400


SEARCHES: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "4.2.1-S1": (SUBJECT, asked({"type": "user"}, READ, FIRST), {"alice", "bob"}),
    "4.2.2": (SUBJECT, asked({"type": "user"}, READ, FIRST, context=CONTEXT), {"alice", "bob"}),
    "4.2.3": (SUBJECT, asked(ALICE, READ, FIRST), {"alice", "bob"}),
    "4.2.4-S4": (SUBJECT, asked({"type": "user"}, WRITE, ARCHIVED), {"bob"}),
    "4.3.1-S2": (RESOURCE, asked(ALICE, READ, {"type": "record"}), {"record-1"}),
    "4.3.2": (RESOURCE, asked(ALICE, READ, {"type": "record"}, context=CONTEXT), {"record-1"}),
    "4.3.3": (RESOURCE, asked(ALICE, READ, FIRST), {"record-1", "record-2"}),
    "4.3.4-S5": (RESOURCE, asked(ADMIN, WRITE, {"type": "record"}), {"record-2"}),
    "4.4.1-S3": (ACTION, {"subject": ALICE, "resource": FIRST}, {"read", "write"}),
    "4.4.2": (ACTION, {"subject": ALICE, "resource": FIRST, "context": CONTEXT}, {"read", "write"}),
    "4.4.3-S6": (ACTION, {"subject": ADMIN, "resource": ARCHIVED}, {"write"}),
}


@pytest.mark.parametrize("name", SEARCHES)
async def test_4_searches(pep: Pep, name: str) -> None:
    path, body, expected = SEARCHES[name]
    answer = await pep.post(path, body)
    assert answer.status == 200
    results = answer.json["results"]
    assert {entry.get("id", entry.get("name")) for entry in results} >= expected
    wanted = {SUBJECT: "user", RESOURCE: "record"}.get(path)
    assert all(entry.get("type") == wanted for entry in results)


async def test_4_searches_are_exact(pep: Pep) -> None:
    writers = (await pep.post(SUBJECT, asked({"type": "user"}, WRITE, FIRST))).json["results"]
    assert writers == [{"type": "user", "id": "alice"}]
    does = (await pep.post(ACTION, {"subject": BOB, "resource": FIRST})).json["results"]
    assert does == [{"name": "read"}]


async def test_4_5_paging(pep: Pep) -> None:
    body = asked({"type": "user"}, READ, FIRST)
    everyone = [entry["id"] for entry in (await pep.post(SUBJECT, body)).json["results"]]
    assert len(everyone) > 3
    seen: list[str] = []
    page: dict[str, Any] = {"limit": 2}
    while True:
        answer = await pep.post(SUBJECT, {**body, "page": page})
        assert next(iter(answer.json)) == "page"
        assert answer.json["page"]["count"] == len(answer.json["results"]) <= 2
        seen += [entry["id"] for entry in answer.json["results"]]
        token = answer.json["page"]["next_token"]
        if not token:
            break
        page = {"token": token}
    assert seen == everyone


async def test_4_5_a_token_belongs_to_its_query(pep: Pep) -> None:
    body = asked({"type": "user"}, READ, FIRST, page={"limit": 1})
    token = (await pep.post(SUBJECT, body)).json["page"]["next_token"]
    changed = asked({"type": "user"}, WRITE, FIRST, page={"token": token})
    assert (await pep.post(SUBJECT, changed)).status == 400
    assert (
        await pep.post(RESOURCE, asked(ALICE, READ, {"type": "record"}, page={"token": token}))
    ).status == 400
    flipped = ("A" if token[-5] != "A" else "B").join((token[:-5], token[-4:]))
    for wrong in (flipped, "x", "é", 7):
        assert (await pep.post(SUBJECT, {**body, "page": {"token": wrong}})).status == 400
    for limit in (0, -1, "2", True):
        assert (await pep.post(SUBJECT, {**body, "page": {"limit": limit}})).status == 400


UNKNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "4.6.1-action": (ACTION, {"subject": {"type": "user", "id": "nonexistent-user"}, "resource": FIRST}),
    "4.6.1-subject": (SUBJECT, asked({"type": "user"}, READ, {"type": "record", "id": "nowhere"})),
    "4.6.1-resource": (RESOURCE, asked({"type": "user", "id": "nobody"}, READ, {"type": "record"})),
    "4.6.2-subject": (SUBJECT, asked({"type": "spaceship"}, READ, FIRST)),
    "4.6.2-resource": (RESOURCE, asked(ALICE, READ, {"type": "spaceship"})),
    "4.6.2-action": (ACTION, {"subject": ALICE, "resource": {"type": "spaceship", "id": "x"}}),
    "unknown-action": (SUBJECT, asked({"type": "user"}, {"name": "fly"}, FIRST)),
}


@pytest.mark.parametrize("name", UNKNOWN)
async def test_4_6_nothing_found_is_no_error(pep: Pep, name: str) -> None:
    answer = await pep.post(*UNKNOWN[name])
    assert (answer.status, answer.json) == (200, {"results": []})


INCOMPLETE: dict[str, tuple[str, dict[str, Any]]] = {
    "4.7.1-subject": (SUBJECT, {"subject": {"type": "user"}, "resource": FIRST}),
    "4.7.1-resource": (RESOURCE, {"action": READ, "resource": {"type": "record"}}),
    "4.7.1-action": (ACTION, {"subject": ALICE}),
    "4.7.2-subject": (SUBJECT, asked({"type": "user"}, READ, {"type": "record"})),
    "4.7.2-resource": (RESOURCE, asked({"type": "user"}, READ, {"type": "record"})),
    "4.7.2-action": (ACTION, {"subject": {"type": "user"}, "resource": FIRST}),
    "4.7.2-action-resource": (ACTION, {"subject": ALICE, "resource": {"type": "record"}}),
}


@pytest.mark.parametrize("name", INCOMPLETE)
async def test_4_7_what_is_given_must_be_whole(pep: Pep, name: str) -> None:
    assert (await pep.post(*INCOMPLETE[name])).status == 400


async def test_6_discovery(pep: Pep) -> None:
    answer = await pep.send("GET", "/.well-known/authzen-configuration", authorization="", x_request_id="r-3")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-request-id"] == "r-3"
    own = f"http://127.0.0.1:{pep.plane.port}"
    assert answer.json["policy_decision_point"] == own
    assert answer.json["access_evaluation_endpoint"] == own + EVALUATION
    assert answer.json["access_evaluations_endpoint"] == own + EVALUATIONS
    for kind in ("subject", "resource", "action"):
        assert answer.json[f"search_{kind}_endpoint"] == f"{own}/access/v1/search/{kind}"
    assert all(isinstance(urn, str) and urn.startswith("urn:") for urn in answer.json["capabilities"])


def todo(kind: str) -> list[Any]:
    file = DATA / "todo-decisions.json"
    if not file.exists():
        return []
    cases: list[Any] = json.loads(file.read_text("utf-8"))[kind]
    return cases


async def test_todo_interop_decisions(pep: Pep) -> None:
    single, batches = todo("evaluation"), todo("evaluations")
    if not single:
        pytest.skip("the interop decisions are not on this machine")
    assert (len(single), len(batches)) == (40, 3)
    for case in single:
        answer = await pep.post(EVALUATION, case["request"])
        assert answer.json["decision"] is case["expected"], case
    for case in batches:
        answer = await pep.post(EVALUATIONS, case["request"])
        got = [{"decision": item["decision"]} for item in answer.json["evaluations"]]
        assert got == case["expected"], case
