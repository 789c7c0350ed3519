"""A credential's own bounds are an upper bound of whatever policies allow."""

from __future__ import annotations

import json
from typing import Any

import pytest

from doorward.core.identity import Bounds, Caller
from doorward.core.model import EntityUid

DANA = EntityUid.of("User", "dana")
MODEL = EntityUid.of("Model", "llm/smollm2")
SECRET = EntityUid.of("Model", "llm/secret")


def bound(*bounds: Bounds) -> Caller:
    return Caller(DANA, "key-1", "api-key", bounds=bounds)


@pytest.mark.parametrize(
    ("bounds", "allowed"),
    [
        (Bounds(), True),
        (Bounds(actions=("invoke",)), True),
        (Bounds(actions=("view", "read")), False),
        (Bounds(upstreams=("llm",)), True),
        (Bounds(upstreams=("store",)), False),
        (Bounds(upstreams=("ll",)), False),
        (Bounds(resources=(MODEL,)), True),
        (Bounds(resources=(EntityUid.of("Model", "llm"),)), True),
        (Bounds(resources=(EntityUid.of("Dataset", "llm"),)), False),
        (Bounds(resources=(EntityUid.of("Model", "llm/smollm"),)), False),
        (Bounds(("invoke",), ("llm",), (SECRET,)), False),
    ],
)
async def test_a_bound_denies_what_policies_allow(stage: Any, bounds: Bounds, allowed: bool) -> None:  # noqa: FBT001 -- a table
    stage.authenticator.caller = bound(bounds)
    stage.point.allow(DANA, "invoke", MODEL)
    stage.answers(b"hello")
    answer, body = await stage.play()
    assert answer.status == (200 if allowed else 403)
    if not allowed:
        assert stage.upstream.seen == []
        assert "bound to less than you may" in json.loads(body)["detail"]
        assert stage.log.records[0].determining == ("credential:bounds",)


async def test_every_bound_must_hold(stage: Any) -> None:
    stage.authenticator.caller = bound(Bounds(actions=("invoke",)), Bounds(upstreams=("store",)))
    stage.point.allow(DANA, "invoke", MODEL)
    assert (await stage.play())[0].status == 403


async def test_a_bound_allows_nothing_that_policies_deny(stage: Any) -> None:
    stage.authenticator.caller = bound(Bounds(("invoke",), ("llm",), (MODEL,)))
    answer, _ = await stage.play()
    assert (answer.status, stage.log.records[0].determining) == (403, ("forbid-it",))


async def test_what_is_hidden_stays_hidden_behind_a_bound(stage: Any) -> None:
    stage.authenticator.caller = bound(Bounds(actions=("view",)))
    stage.point.hidden.add(SECRET)
    answer, _ = await stage.play(body=b'{"model":"secret"}')
    assert answer.status == 404
