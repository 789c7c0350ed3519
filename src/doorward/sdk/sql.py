"""Filter a table of your own by the policies, in the database (`pip install 'doorward[sql]'`).

```python
from doorward.sdk.sql import Columns, allowed

mine = allowed(
    point, principal='User::"dana"', action='Shop::Action::"read"', resource_type="Shop::order",
    table=orders, columns=Columns(id=orders.c.id, attributes={"owner": orders.c.owner_id}),
    dialect=connection.dialect.name,
)
for id, total in mine.rows(connection, orders.c.id, orders.c.total): ...
```
What SQL can say of the policies is its WHERE clause, with bound parameters only. What it cannot say is
decided row by row, by the same engine: a condition is never dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from doorward.sdk.asking import Name
from doorward.sdk.embedded import DecisionPoint

try:
    from doorward.store.row_fields import Converted, Members
    from doorward.store.row_filter import Columns, Doubts, Parents, row_filter
    from doorward.store.row_selection import Selection
except ModuleNotFoundError as missing:
    raise ImportError("doorward.sdk.sql needs SQLAlchemy: pip install 'doorward[sql]'") from missing

if TYPE_CHECKING:
    from doorward.store.row_selection import FromClause

__all__ = ["Columns", "Converted", "Members", "Parents", "Selection", "allowed"]


def allowed(  # noqa: PLR0913 -- one question, one table
    point: DecisionPoint,
    *,
    principal: Name,
    action: str,
    resource_type: str,
    table: FromClause,
    columns: Columns,
    dialect: str,
    context: Mapping[str, Any] | None = None,
    keeps: Collection[str] = (),
) -> Selection:
    """Return the rows of a table that a principal may do this to now.

    A row is a resource: it is what `columns` say and nothing else, and one that does not fit the schema
    is denied. Where the directory knows its name, or covers it, the directory's word counts instead.
    `keeps` names the obligations this program fulfils; a row with any other is denied. `dialect` is
    `connection.dialect.name`: sqlite or postgresql.

    Raises InvalidConfigError where a column cannot hold its attribute exactly or an attribute every
    resource has is not named, InvalidRequestError for a question that cannot be read.
    """
    listing = point.listing(principal, action, resource_type, context=context, keeps=keeps)
    names = listing.doubted(prefix=columns.prefix)
    if not listing.sound(frozenset(one.type for one in columns.parents)):
        names = None
    found = row_filter(
        listing.bounds,
        shape=listing.shape,
        columns=columns,
        dialect=dialect,
        doubts=None if names is None else Doubts(names, listing.covers),
        under=listing.under,
    )
    return Selection(found, listing.allows, table=table, dialect=dialect)
