"""A record drafted in one go is, byte for byte, what the long way makes of it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.audit import canonical
from doorward.audit.draft import Draft
from doorward.core.errors import AuditUnavailableError
from doorward.core.record import AdminRecord, Check, DecisionRecord, LogRecord, OutcomeRecord

PREVIOUS = "ab" * 32
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
loose = st.dictionaries(
    st.sampled_from(["hash", "prev", "seq", "writer", "ip", "path", "é", "ms"]), values, max_size=4
)


def the_long_way(record):
    document = canonical.plain(msgspec.to_builtins(record))
    return canonical.sealed(document, seq=7, writer="gateway-1", previous=PREVIOUS)


def drafted(record):
    return Draft(record).sealed(seq=7, writer="gateway-1", previous=PREVIOUS)


def decision(**fields):
    return DecisionRecord(
        id="r1", kind="decision", time="2026-11-23T12:00:00.000Z", request_id="q1",
        decision="allow", code="allowed",
        checks=(Check('User::"dana"', "invoke", 'Model::"llm/m"', "allow", ("p1", "p2")),), **fields,
    )  # fmt: skip


@given(loose, loose, st.text(max_size=20))
def test_a_decision_is_written_the_same_either_way(network, request, text):
    record = decision(network=network, request=request, detail=text, context={"now": 1, "hash": {"seq": "x"}})
    assert drafted(record) == the_long_way(record)


@given(loose)
def test_an_outcome_is_written_the_same_either_way(outcome):
    record = OutcomeRecord(id="r2", kind="outcome", time="t", request_id="q1", outcome=outcome)
    assert drafted(record) == the_long_way(record)


@given(loose)
def test_other_records_are_written_the_same_either_way(facts):
    record = LogRecord(id="r3", kind="log", time="t", request_id="", event="opened", facts=facts)
    assert drafted(record) == the_long_way(record)
    changed = AdminRecord(
        id="r4", kind="admin", time="t", request_id="", decision="allow", principal="p",
        action="a", resource="r", changes=facts,
    )  # fmt: skip
    assert drafted(changed) == the_long_way(changed)


@given(loose)
def test_what_is_written_reads_back_and_its_hash_holds(request):
    line, digest = drafted(decision(request=request))
    document = canonical.opened(line[:-1])
    assert (document["seq"], document["writer"], document["hash"]) == (7, "gateway-1", digest)
    assert canonical.hash_of(document) == digest


def test_a_record_that_changes_after_it_was_handed_over_is_written_as_it_was():
    request = {"path": "/a"}
    draft = Draft(decision(request=request))
    request["path"] = "/b"
    assert b'"/a"' in draft.sealed(seq=1, writer="w", previous=PREVIOUS)[0]


def test_a_record_nested_too_deeply_is_refused():
    deep = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(AuditUnavailableError):
        Draft(decision(request={"x": deep}))
