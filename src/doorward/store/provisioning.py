"""Keep what sources outside state, the objects they provision, and how the followed directories stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import bindparam, delete, insert, select

from doorward.core.model import EntityUid
from doorward.core.provisioning import ObjectKey, Provisioned, SourceState, Statement
from doorward.core.values import from_json, to_json, uid_from_json, uid_to_json
from doorward.store import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from doorward.store.database import Database


class ProvisioningChange(msgspec.Struct, frozen=True, kw_only=True):
    """What one change says of statements and provisioned objects, beside what gateways hear.

    `forgotten` are users who lose the console: their passkeys and sessions go.
    """

    statements: tuple[Statement, ...] = ()
    statements_removed: tuple[tuple[EntityUid, str], ...] = ()
    objects: tuple[Provisioned, ...] = ()
    objects_removed: tuple[ObjectKey, ...] = ()
    forgotten: tuple[EntityUid, ...] = ()


class SqlSources:
    """Keep how each followed directory stands."""

    def __init__(self, database: Database) -> None:
        """Take an open database."""
        self._database = database

    def load(self) -> dict[str, SourceState]:
        """Return what is kept, by the source's name."""
        with self._database.read() as connection:
            rows = connection.execute(select(tables.sources)).mappings()
            return {row["name"]: SourceState(**row) for row in rows}

    def save(self, state: SourceState) -> None:
        """Keep how one source stands now."""
        with self._database.write() as connection:
            _replace(connection, tables.sources, [msgspec.structs.asdict(state)])


def load_statements(connection: Connection) -> tuple[Statement, ...]:
    """Return every statement."""
    return tuple(
        Statement(
            uid=row.uid,
            source=row.source,
            seen=row.seen,
            attrs={name: from_json(value) for name, value in row.attrs.items()},
            parents=frozenset(map(uid_from_json, row.parents)),
            tags=row.tags,
            max_age=row.max_age,
        )
        for row in connection.execute(select(tables.statements))
    )


def load_provisioned(connection: Connection) -> tuple[Provisioned, ...]:
    """Return every provisioned object, those that are gone as well."""
    rows = connection.execute(select(tables.provisioned)).mappings()
    return tuple(
        Provisioned(**{**row, "link": None if row["link"] is None else tuple(row["link"])}) for row in rows
    )


def write_provisioning(connection: Connection, change: ProvisioningChange) -> None:
    """Write one change, inside the caller's transaction."""
    _replace(
        connection,
        tables.statements,
        [_statement(one) for one in change.statements],
        [{"uid": uid, "source": source} for uid, source in change.statements_removed],
    )
    _replace(
        connection,
        tables.provisioned,
        [msgspec.structs.asdict(one) for one in change.objects],
        [dict(zip(("source", "kind", "id"), key, strict=True)) for key in change.objects_removed],
    )


def _statement(statement: Statement) -> dict[str, Any]:
    return {
        "uid": statement.uid,
        "source": statement.source,
        "attrs": {name: to_json(value) for name, value in sorted(statement.attrs.items())},
        "parents": [uid_to_json(uid) for uid in sorted(statement.parents)],
        "tags": dict(statement.tags),
        "seen": statement.seen,
        "max_age": statement.max_age,
    }


def _replace(
    connection: Connection, table: Table, rows: list[dict[str, Any]], gone: Iterable[dict[str, Any]] = ()
) -> None:
    """Delete `gone` and the keys of `rows`, then insert `rows`."""
    keys = [column.name for column in table.primary_key]
    doomed = [{f"k_{key}": row[key] for key in keys} for row in (*gone, *rows)]
    if doomed:
        matching = (table.c[key] == bindparam(f"k_{key}", type_=table.c[key].type) for key in keys)
        connection.execute(delete(table).where(*matching), doomed)
    if rows:
        connection.execute(insert(table), rows)
