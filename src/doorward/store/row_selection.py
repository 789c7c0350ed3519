"""Read the allowed rows of a table: by its filter, and one by one where the filter leaves them open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

from sqlalchemy import Connection, Result, Row, Select, select
from sqlalchemy.sql.selectable import FromClause

from doorward.core.errors import InvalidConfigError
from doorward.core.model import Entity
from doorward.store.row_filter import RowFilter
from doorward.store.row_values import Clause

__all__ = ["FromClause", "Selection"]

# So many rows are fetched at a time.
_PAGE = 500
_SURE, _FACT = "doorward_sure", "doorward_"


class Database(Protocol):
    """What executes a statement: a Connection or an ORM Session."""

    def execute(self, statement: Any, /) -> Result[Any]:
        """Execute it."""


class Selection:
    """The rows of one table that one principal may have shown, at the moment it was made.

    Make it afresh for every question: it rests on the policies, people and circumstances of then.
    """

    def __init__(
        self, found: RowFilter, allows: Callable[[Entity], bool], *, table: FromClause, dialect: str
    ) -> None:
        """Keep the filter, and what decides a resource by itself."""
        self._found, self._allows, self._table, self._dialect = found, allows, table, dialect

    @property
    def where(self) -> Clause:
        """Return the WHERE clause; alone it is the answer only if `exact`, else it lets too many through."""
        return self._found.where

    @property
    def exact(self) -> bool:
        """Return whether `where` alone is the answer."""
        return self._found.exact

    @property
    def sure(self) -> Clause:
        """Return where a row is allowed for certain: within `where`, the others are decided one by one."""
        return self._found.sure

    def rows(
        self, database: Database, *columns: Any, order_by: Sequence[Any] = (), limit: int | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the allowed rows: these columns of each, by default all of the table's.

        Raises InvalidConfigError for a database of another kind than the filter was written for.
        """
        self._check(database)
        wanted = columns or tuple(self._table.c)
        query = self.query(*wanted).order_by(*order_by).execution_options(yield_per=_PAGE)
        if self.exact and limit is not None:
            query = query.limit(limit)
        shown = (
            tuple(row[: len(wanted)]) for row in database.execute(query) if self._shows(row, len(wanted))
        )
        return islice(shown, limit)

    def query(self, *columns: Any) -> Select[Any]:
        """Return the statement `rows` executes: the columns, then what decides the rows that are open."""
        query = select(*columns).select_from(self._table).where(self.where)
        if self.exact:
            return query
        facts = (fact.label(f"{_FACT}{n}") for n, fact in enumerate(self._found.facts))
        return query.add_columns(self.sure.label(_SURE), *facts)

    def _shows(self, row: Row[Any], given: int) -> bool:
        if self.exact or row[given] is True:
            return True
        resource = self._found.resource(row[given + 1 :])
        return resource is not None and self._allows(resource)

    def _check(self, database: Any) -> None:
        bind = database if isinstance(database, Connection) else database.get_bind()
        if bind.dialect.name != self._dialect:
            raise InvalidConfigError(
                f"this filter is written for {self._dialect}, not for {bind.dialect.name}",
                hint="Pass dialect=connection.dialect.name.",
            )
