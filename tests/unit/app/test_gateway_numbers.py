from __future__ import annotations

from doorward.app import gateway
from doorward.cedar.admission import PolicySource, admit
from doorward.core.context import Context
from doorward.decisions.point import DecisionPoint
from doorward.directory.org import offline_snapshot, parse
from doorward.gateway.metrics import GatewayMetrics
from doorward.policies.workspace import packaged_schema
from support.policies import NOW, ORG, Action, ask


def test_generated_functions_are_counted_where_operators_look() -> None:
    point = DecisionPoint()
    metrics = GatewayMetrics(open_answers=lambda: 0, staleness=lambda: 0.0)
    for gauge, text, read in gateway._tier_1(point):  # noqa: SLF001 -- what the role shows is the point
        metrics.gauge(gauge, text, read)
    assert b"doorward_slices_generated 0.0" in metrics.text()
    text = '@id("a") permit (principal, action == Doorward::Action::"view", resource);'
    point.publish(admit([PolicySource("a.cedar", text)], packaged_schema()))
    point.advance(offline_snapshot(parse(ORG, "org.yaml")))
    asked = ask('User::"dana"', Action.VIEW, 'Dataset::"store/training"', context=Context(now=NOW))
    for _ in range(50):
        assert point.pin().decide(asked).allowed
    assert point.settle()
    assert b"doorward_slices_generated 1.0" in metrics.text()
    assert b"doorward_slices_failed 0.0" in metrics.text()
    assert point.pin().decide(asked).allowed
