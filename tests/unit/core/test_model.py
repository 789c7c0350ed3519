from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidRequestError
from doorward.core.ids import IdSource
from doorward.core.model import Action, EntityUid
from doorward.core.secret import Secret


@given(st.text())
def test_every_id_survives_being_written_and_read(name: str) -> None:
    uid = EntityUid.of("User", name)
    assert EntityUid.parse(str(uid)) == uid
    assert EntityUid.parse(uid.cedar) == uid


@pytest.mark.parametrize(
    "text",
    ["dana", "User::dana", 'User::"dana', 'User::"da"na"', '::"dana"', 'User::"dana" ', 'User::"a" || true'],
)
def test_what_is_not_an_entity_name_is_refused_unless_it_is_only_padded(text: str) -> None:
    if text.strip() == 'User::"dana"':
        assert EntityUid.parse(text) == EntityUid.of("User", "dana")
        return
    with pytest.raises(InvalidRequestError, match="is not an entity name"):
        EntityUid.parse(text)


def test_an_id_that_looks_like_policy_stays_an_id() -> None:
    name = 'a", action == Action::"x'
    assert EntityUid.parse(str(EntityUid.of("User", name))).id == name


def test_actions_are_entities_of_our_namespace() -> None:
    assert Action.EXPORT.uid.cedar == 'Doorward::Action::"export"'


def test_ids_sort_by_creation_also_within_a_millisecond() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    source = IdSource(clock)
    ids = [source.new() for _ in range(100)]
    clock.advance(0.001)
    ids.append(source.new())
    assert ids == sorted(set(ids))
    assert {len(one) for one in ids} == {26}


def test_a_secret_never_prints_itself() -> None:
    secret = Secret("dw_abc")
    assert "dw_abc" not in f"{secret!r} {secret}"
    assert secret.reveal() == "dw_abc"
