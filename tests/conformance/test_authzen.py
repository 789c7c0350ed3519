"""AuthZEN 1.0: the todo interop decisions over HTTP, and bodies that two readers could read differently.

The rules of the certification stand in `test_authzen_rules_*`.
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

DATA = Path(os.environ.get("DOORWARD_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "authzen"
WHOLE = b'{"subject": {"type": "user", "id": "alice"}, "action": {"name": "read"}, %b}'
AMBIGUOUS = {
    "not-utf8": WHOLE % b'"resource": {"type": "record", "id": "record-1\xff"}',
    "surrogate": WHOLE % b'"resource": {"type": "record", "id": "\\ud800"}',
    "name-twice": WHOLE % b'"resource": {"type": "record", "id": "record-9", "id": "record-1"}',
    "name-twice-at-the-top": WHOLE
    % b'"action": {"name": "write"}, "resource": {"type": "record", "id": "record-1"}',
    "two-documents": (WHOLE % b'"resource": {"type": "record", "id": "record-1"}') * 2,
    "nested-deep": b'{"a":' * 100_000,
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pep() -> AsyncIterator[Pep]:
    async with authzen_plane.running() as running:
        yield running


@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_a_body_with_more_than_one_reading_is_400(pep: Pep, name: str, path: str) -> None:
    assert (await pep.post(path, AMBIGUOUS[name])).status == 400


async def test_a_batch_of_more_than_a_thousand_is_400(pep: Pep) -> None:
    assert (await pep.post(EVALUATIONS, {"evaluations": [{}] * 1001})).status == 400


@pytest.mark.parametrize("shown", ["Bearer abc", "Basic eDp5", "Bearer dw_wrong"])
async def test_what_is_no_key_of_a_service_is_401(pep: Pep, shown: str) -> None:
    answer = await pep.post(EVALUATION, b"{}", authorization=shown)
    assert answer.status == 401
    assert answer.headers["www-authenticate"]


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
