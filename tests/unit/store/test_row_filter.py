"""A filter rendered to SQL says what deciding each row says, on SQLite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Connection, create_engine

from support import row_cases

seen = Counter[str]()


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
