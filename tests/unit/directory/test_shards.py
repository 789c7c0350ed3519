from hypothesis import given
from hypothesis import strategies as st

from doorward.directory.shards import Shards

keys = st.integers(0, 500)
changes = st.lists(st.tuples(st.dictionaries(keys, st.integers(), max_size=300), st.lists(keys, max_size=40)))


@given(start=st.dictionaries(keys, st.integers()), steps=changes)
def test_every_version_equals_a_plain_dict_and_earlier_ones_stay_as_they_were(start, steps) -> None:
    table, plain = Shards.of(start), dict(start)
    history = [(table, dict(plain))]
    for put, removed in steps:
        table = table.changed(put, removed)
        for key in removed:
            plain.pop(key, None)
        plain.update(put)
        history.append((table, dict(plain)))
    for version, expected in history:
        assert dict(version) == expected
        assert len(version) == len(expected)
        assert all((key in version) == (key in expected) for key in range(501))
        assert all(version.get(key) == expected.get(key) for key in range(501))


def test_a_change_shares_all_that_did_not_change() -> None:
    table = Shards.of({number: number for number in range(100_000)})
    after = table.changed({5: 6}, [7])
    shared = sum(mine is theirs for mine, theirs in zip(table.parts, after.parts, strict=True))
    assert len(table.parts) - shared <= 2
    assert table.changed({}, []) is table


def test_a_table_that_grew_is_dealt_out_anew() -> None:
    table: Shards[int, int] = Shards.of({})
    for number in range(3000):
        table = table.changed({number: number})
    assert len(table) == 3000
    assert max(len(part) for part in table.parts) < 1000
