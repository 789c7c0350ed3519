"""The open store: one database, one repository per concern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from doorward.store.accounts import SqlAccounts
from doorward.store.database import Database
from doorward.store.history import SqlHistory
from doorward.store.provisioning import SqlSources
from doorward.store.sign_ins import SqlSignIns

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Store:
    """Everything kept in SQL."""

    database: Database
    history: SqlHistory
    accounts: SqlAccounts
    sources: SqlSources
    sign_ins: SqlSignIns

    @classmethod
    def open(cls, url: str, data: Path) -> Store:
        """Open and migrate the database at `url`; errors as `Database.open`."""
        database = Database.open(url, data)
        return cls(
            database,
            SqlHistory(database),
            SqlAccounts(database),
            SqlSources(database),
            SqlSignIns(database),
        )

    def close(self) -> None:
        """Close all connections."""
        self.database.close()
