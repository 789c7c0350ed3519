"""Extension values and comparisons, one by one beside Cedar."""

from __future__ import annotations

import cedarpy
import pytest

from doorward.cedar import corpus, extensions
from doorward.cedar.data import Fault
from doorward.cedar.engine import Engine
from doorward.core.feed import PolicyText
from doorward.core.model import EntityUid
from support import cedar_expressions

_SCHEMA = "entity A; action a appliesTo { principal: [A], resource: [A] };"
_ASKED = {"principal": 'A::"a"', "action": 'Action::"a"', "resource": 'A::"a"', "context": {}}


def _both(conditions: list[str]) -> tuple[set[str], set[str]]:
    """Return which of the conditions hold for us and for Cedar, those that err left out."""
    text = "\n".join(
        f"permit (principal, action, resource) when {{ {condition} }};" for condition in conditions
    )
    theirs = cedarpy.is_authorized(_ASKED, text, [])
    engine = Engine([PolicyText(id=n, text="", tree=t) for n, t in corpus.trees(text).items()], _SCHEMA)
    uids = EntityUid("A", "a"), EntityUid("Action", "a"), EntityUid("A", "a")
    answer = engine.evaluate_record(*uids, {}, loaded=engine.load({}))
    assert len(answer.errors) == len(theirs.diagnostics.errors)
    return set(answer.determining), set(theirs.diagnostics.reasons)


def _good(function: str, texts: list[str]) -> list[str]:
    found = []
    for text in texts:
        try:
            extensions.call(function, [text])
        except Fault:
            continue
        found.append(text)
    return found


def test_ranges_lie_in_ranges_as_cedar_says() -> None:
    texts = [*_good("ip", cedar_expressions.IPS), "10.1.2.3", "10.0.0.0/7", "11.0.0.1/8", "::/1", "8000::/1"]
    ours, theirs = _both([f'ip("{a}").isInRange(ip("{b}"))' for a in texts for b in texts])
    assert ours == theirs
    assert len(ours) > len(texts)


def test_moments_and_spans_are_the_milliseconds_cedar_counts() -> None:
    dates = _good(
        "datetime", [*cedar_expressions.DATES, "0001-01-01", "0400-02-29", "2000-02-29", "2100-03-01"]
    )
    spans = _good("duration", cedar_expressions.SPANS)
    epoch = 'datetime("1970-01-01")'
    checks = [
        f'datetime("{d}") == {epoch}.offset(duration("{extensions.datetime(d).ms}ms"))' for d in dates
    ] + [f'duration("{s}") == duration("{extensions.duration(s).ms}ms")' for s in spans]
    checks += [f'datetime("{d}").toDate() == datetime("{d}")' for d in dates]
    ours, theirs = _both(checks)
    assert ours == theirs
    assert len(ours) >= len(dates) + len(spans)


@pytest.mark.parametrize("sign", ["<", "<=", ">", ">="])
def test_only_values_of_one_ordered_type_are_compared(sign: str) -> None:
    values = [
        "1",
        "true",
        '"a"',
        'datetime("2024-01-01")',
        'duration("1d")',
        'decimal("1.0")',
        'ip("::1")',
        "[1]",
    ]
    ours, theirs = _both([f"{a} {sign} {b}" for a in values for b in values])
    assert ours == theirs
