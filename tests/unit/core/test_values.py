from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.core.context import Context
from doorward.core.errors import InvalidRequestError
from doorward.core.model import Entity, EntityUid
from doorward.core.values import entity_from_json, entity_to_json, from_json, to_json

uids = st.builds(EntityUid, st.just("Doorward::User"), st.text())
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(),
    uids,
    st.integers(0, 4_000_000_000_000).map(lambda ms: datetime.fromtimestamp(ms / 1000, UTC)),
    st.integers(-(10**12), 10**12).map(lambda ms: timedelta(milliseconds=ms)),
    st.integers(-(10**10), 10**10).map(lambda n: Decimal(n) / 10_000),
    st.sampled_from([ip_interface("10.0.0.0/8"), ip_interface("192.168.7.9"), ip_interface("::1")]),
)
keys = st.text().filter(lambda key: key not in {"__entity", "__extn"})
values = st.recursive(
    scalars, lambda inner: st.one_of(st.frozensets(scalars), st.dictionaries(keys, inner)), max_leaves=8
)


def _to_millisecond(value: object) -> object:
    if isinstance(value, datetime):
        return value.replace(microsecond=value.microsecond // 1000 * 1000)
    if isinstance(value, frozenset):
        return frozenset(_to_millisecond(item) for item in value)
    if isinstance(value, dict):
        return {key: _to_millisecond(item) for key, item in value.items()}
    return value


@given(values)
def test_every_value_survives_the_wire(value) -> None:
    assert from_json(to_json(value)) == _to_millisecond(value)


@pytest.mark.parametrize("bad", [1.5, None, {"a": None}, [2.0], {"__extn": {"fn": "shell", "arg": "x"}}])
def test_floats_nulls_and_unknown_extensions_are_refused(bad: object) -> None:
    with pytest.raises(InvalidRequestError):
        from_json(bad)


def test_an_entity_survives_the_wire() -> None:
    entity = Entity(
        EntityUid.of("User", 'da"na'),
        {"purposes": frozenset({"a", "b"}), "owner": EntityUid.of("User", "x")},
        frozenset({EntityUid.of("Role", "r")}),
        {"k": "v"},
    )
    assert entity_from_json(entity_to_json(entity)) == entity


def test_optional_circumstances_that_are_unknown_are_absent() -> None:
    record = Context(now=datetime(2026, 1, 1, tzinfo=UTC)).to_record()
    assert "purpose" not in record
    assert record["network"] == {"zone": "unknown"}
    assert record["session"] == {"method": "none", "acr": "", "mfa": False, "age": 0, "minted": False}
