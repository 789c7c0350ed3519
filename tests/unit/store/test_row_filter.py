"""A filter rendered to SQL says what deciding each row says, on SQLite."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    create_engine,
    insert,
    text,
)

from doorward.core.model import EntityUid
from doorward.store.row_filter import Columns, Parents
from support import row_cases

seen = Counter[str]()
ALL = ("permit", "", "when", row_cases.tree_of("true"), False)


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    row_cases.metadata.create_all(engine)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(row_cases.cases)
def test_the_table_filtered_by_sql_is_the_table_decided_row_by_row(
    connection: Connection, case: row_cases.Case
) -> None:
    seen.update(row_cases.check(connection, case))


def test_the_cases_were_not_all_of_one_kind() -> None:
    assert all(seen[kind] > 10 for kind in ("exact", "some", "part", "wide")), seen


def test_texts_are_compared_by_byte_whatever_the_column_says(connection: Connection) -> None:
    loose = Table(
        "loose",
        MetaData(),
        Column("id", Text(collation="NOCASE"), primary_key=True),
        Column("state", Text(collation="NOCASE")),
        Column("owner", Text(collation="RTRIM")),
    )
    loose.create(connection)
    for number, (state, owner) in enumerate([("done", "dana"), ("Done", "dana "), ("DONE", "Dana")]):
        connection.execute(insert(loose).values(id="abc"[number], state=state, owner=owner))
    rest = {"level": 1, "open": True, "marks": frozenset(), "place": EntityUid.of("Environment", "testing")}
    columns = Columns(
        id=loose.c.id,
        attributes={"state": loose.c.state, "owner": loose.c.owner, "made": 1, **rest},
        prefix="o/",
    )
    for atom, expected in (
        ('resource.state == "done"', ["a"]),
        ('["Done"].contains(resource.state)', ["b"]),
        ('resource.state like "D*"', ["b", "c"]),
        ("resource.owner == principal", ["a"]),
        ('resource == Shop::Order::"o/B"', []),
        ('resource in Shop::Order::"o/b"', ["b"]),
    ):
        drawn = [("permit", "", "when", row_cases.tree_of(atom), False)]
        listing = row_cases.listing_of(row_cases.standing(list(row_cases.texts(drawn))))
        selection = row_cases.selected(listing, dialect="sqlite", columns=columns)
        assert [name for (name,) in selection.rows(connection, loose.c.id)] == expected, atom


def test_what_sqlite_holds_of_another_type_denies_the_row(connection: Connection) -> None:
    listing = row_cases.listing_of(row_cases.standing(list(row_cases.texts([ALL]))))
    columns = msgspec.structs.replace(row_cases.COLUMNS, prefix="o/")
    selection = row_cases.selected(listing, dialect="sqlite", columns=columns)
    good = {"level": 1, "open": 1, "state": "s", "marks": "[]", "place": "testing"}
    bad: list[dict[str, Any]] = [
        {"level": "1x"}, {"level": 1.5}, {"open": 2}, {"open": "yes"}, {"state": b"s"}, {"state": "a\0b"},
        {"marks": "{"}, {"marks": '{"a": 1}'}, {"marks": "[1]"}, {"due": "yesterday"}, {"due": 5},
        {"place": "Testing"}, {"id": b"x"}, {"id": "a\0b"},
    ]  # fmt: skip
    for table in (row_cases.regions, row_cases.people, row_cases.orders):
        connection.execute(table.delete())
    for number, one in enumerate([{}, *bad]):
        values = {"id": f"{number:02}", **good, **one}
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        connection.execute(text(f"INSERT INTO orders ({names}) VALUES ({places})"), values)  # noqa: S608 -- our own names
    assert [name for (name,) in selection.rows(connection, row_cases.orders.c.id)] == ["00"]
    assert selection.exact


def test_a_time_without_a_fraction_is_the_same_time(connection: Connection) -> None:
    stored = {
        "1": "2026-06-01 12:00:00",
        "2": "2026-06-01 12:00:00.000999",
        "3": "2026-06-01 12:00:00.001000",
    }
    connection.execute(row_cases.orders.delete())
    for name, due in stored.items():
        values = {
            "id": name,
            "level": 1,
            "open": 1,
            "state": "s",
            "marks": "[]",
            "place": "testing",
            "due": due,
        }
        names, places = ", ".join(values), ", ".join(f":{key}" for key in values)
        connection.execute(text(f"INSERT INTO orders ({names}) VALUES ({places})"), values)  # noqa: S608 -- our own names
    columns = msgspec.structs.replace(row_cases.COLUMNS, prefix="o/")
    for atom, expected in (
        ("resource.due == context.now", ["1", "2"]),
        ("resource.due > context.now", ["3"]),
        ("resource.due >= context.now", ["1", "2", "3"]),
        ("resource.due < context.now", []),
        ("resource.due != context.now", ["3"]),
    ):
        drawn = [("permit", "", "when", row_cases.tree_of(atom), False)]
        listing = row_cases.listing_of(row_cases.standing(list(row_cases.texts(drawn))))
        selection = row_cases.selected(listing, dialect="sqlite", columns=columns)
        query = selection.query(row_cases.orders.c.id).order_by(row_cases.orders.c.id)
        assert connection.scalars(query).all() == expected, atom


@pytest.mark.parametrize("kind", ["numbers", "uuids"])
def test_ids_may_be_numbers_or_uuids(connection: Connection, kind: str) -> None:
    one, other = uuid.UUID(int=1), uuid.UUID(int=2)
    ids, column = ([1, 20], Integer()) if kind == "numbers" else ([one, other], Uuid())
    table = Table(kind, MetaData(), Column("id", column, primary_key=True), Column("next", column))
    table.create(connection)
    connection.execute(insert(table), [{"id": ids[0], "next": ids[1]}, {"id": ids[1], "next": None}])
    rest = {"level": 1, "open": True, "marks": frozenset(), "place": EntityUid.of("Environment", "testing")}
    columns = Columns(
        id=table.c.id, attributes={"state": "s", "made": 1, **rest}, prefix="o/",
        parents=(Parents("Shop::Shelf", table.c.next),),
    )  # fmt: skip
    for atom, expected in (
        (f'resource == Shop::Order::"o/{ids[0]}"', [ids[0]]),
        (f'resource in Shop::Shelf::"{ids[1]}"', [ids[0]]),
        ('resource == Shop::Order::"o/01"', []),
        (f'resource == Shop::Order::"o/{str(ids[0]).replace("-", "")}x"', []),
        (f'resource == Shop::Order::"{ids[0]}"', []),
        ('resource == Shop::Order::"o/99999999999999999999"', []),
        ('resource == Shop::Order::"o/\u0661"', []),
    ):
        drawn = [("permit", "", "when", row_cases.tree_of(atom), False)]
        listing = row_cases.listing_of(row_cases.standing(list(row_cases.texts(drawn))))
        selection = row_cases.selected(listing, dialect="sqlite", columns=columns)
        assert [name for (name,) in selection.rows(connection, table.c.id)] == expected, atom


def rows_shown(connection: Connection, atom: str, drawn: list[dict[str, Any]], *, amount: bool) -> list[str]:
    plain = {
        "owner_id": None, "level": 1, "open": True, "note": None, "state": "s", "due": None, "marks": [],
        "sizes": None, "place": "testing", "amount": None, "shelf": None, "tag": None, "people": (),
        "regions": (),
    }  # fmt: skip
    row_cases.fill(connection, [{**plain, **one} for one in drawn])
    found = row_cases.standing(
        list(row_cases.texts([("permit", "", "when", row_cases.tree_of(atom), False)]))
    )
    columns = row_cases.with_amount() if amount else row_cases.COLUMNS
    selection = row_cases.selected(row_cases.listing_of(found), dialect="sqlite", columns=columns)
    return [name for (name,) in selection.rows(connection, row_cases.orders.c.id)]


def test_a_row_that_a_policy_names_to_read_it_is_decided_by_itself(connection: Connection) -> None:
    drawn: list[dict[str, Any]] = [{}, {"note": "here"}, {}]
    assert rows_shown(connection, 'Shop::Order::"1" has note', drawn, amount=False) == ["1"]
    assert rows_shown(connection, '!(Shop::Order::"1" has note)', drawn, amount=False) == ["0", "2"]


def test_what_only_a_program_can_read_denies_the_row_it_cannot_be_read_in(connection: Connection) -> None:
    drawn: list[dict[str, Any]] = [{"amount": "no"}, {"amount": "1.5"}, {}]
    assert rows_shown(connection, "resource.open", drawn, amount=True) == ["1", "2"]
    assert rows_shown(connection, "resource.open", drawn, amount=False) == ["0", "1", "2"]
