from __future__ import annotations

import json
from pathlib import Path

import pytest

from doorward.app import aggregate
from doorward.app.aggregate import Workers, merged

ONE = """# HELP doorward_requests_total Answers.
# TYPE doorward_requests_total counter
doorward_requests_total{code="allowed",upstream="llm"} 3.0
# HELP doorward_requests_created Answers.
# TYPE doorward_requests_created gauge
doorward_requests_created{code="allowed",upstream="llm"} 1.7e+09
# HELP doorward_open_answers Under way.
# TYPE doorward_open_answers gauge
doorward_open_answers 2.0
# HELP s Seconds.
# TYPE s histogram
s_bucket{le="0.1"} 1.0
s_bucket{le="+Inf"} 3.0
s_count 3.0
s_sum 0.5
"""


def test_counters_and_histograms_are_added_up_and_gauges_labelled():
    text = merged({"gateway-1": ONE, "gateway-2": ONE.replace(" 3.0", " 4.0").replace("1.7e+09", "1.6e+09")})
    lines = text.splitlines()
    assert 'doorward_requests_total{code="allowed",upstream="llm"} 7.0' in lines
    assert 'doorward_open_answers{worker="gateway-1"} 2.0' in lines
    assert 'doorward_open_answers{worker="gateway-2"} 2.0' in lines
    assert 's_bucket{le="+Inf"} 7.0' in lines
    assert "s_sum 1.0" in lines
    assert 'doorward_requests_created{code="allowed",upstream="llm"} 1600000000.0' in lines
    assert len([line for line in lines if line.startswith("# TYPE")]) == 4


async def report(monkeypatch, answers, path="/readyz"):
    async def fetched(socket, _url):
        return answers[socket.stem]

    monkeypatch.setattr(aggregate, "fetched", fetched)
    return await Workers(Path("/data"), lambda: answers).answer(path)


def ready(name: str, *, yes: bool = True) -> tuple[int, bytes]:
    return (200 if yes else 503), json.dumps({"ready": yes, "bundle": f"of {name}"}).encode()


async def test_ready_is_who_is_ready_to_the_last(monkeypatch):
    status, _, body = await report(monkeypatch, {"gateway-1": ready("1"), "gateway-2": ready("2")})
    assert (status, json.loads(body)["ready"], json.loads(body)["bundle"]) == (200, True, "of 1")
    answers = {"gateway-1": ready("1"), "gateway-2": ready("2", yes=False)}
    status, _, body = await report(monkeypatch, answers)
    # The one that is not ready is the one to read about.
    assert (status, json.loads(body)["ready"], json.loads(body)["bundle"]) == (503, False, "of 2")
    assert json.loads(body)["workers"]["gateway-1"]["ready"] is True


@pytest.mark.parametrize(
    "answers", [{}, {"gateway-1": (0, b"")}, {"gateway-1": ready("1"), "gateway-2": (0, b"")}]
)
async def test_nobody_or_a_gateway_that_does_not_answer_is_not_ready(monkeypatch, answers):
    assert (await report(monkeypatch, answers))[0] == 503
    assert (await report(monkeypatch, answers, "/healthz"))[0] == 503


async def test_nothing_else_is_there(monkeypatch):
    assert (await report(monkeypatch, {}, "/keys"))[0] == 404
