"""Keep second factors: authenticator apps and recovery codes (part of port `AccountRepository`)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, func, insert, select, update

from doorward.core.accounts import Authenticator
from doorward.store import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doorward.core.model import EntityUid
    from doorward.store.database import Database


class SqlFactors:
    """Keep them in SQL; what may be used once is used up by the statement that looks for it."""

    def __init__(self, database: Database) -> None:
        """Take an open database."""
        self._database = database

    def holders(self) -> frozenset[EntityUid]:
        """Return the users who have a factor to sign in with."""
        columns = (tables.passkeys.c.principal, tables.authenticators.c.principal)
        with self._database.read() as connection:
            return frozenset(
                uid for column in columns for uid in connection.execute(select(column)).scalars()
            )

    def set_authenticator(self, authenticator: Authenticator) -> None:
        """Keep a user's authenticator app, in place of an earlier one."""
        hers = tables.authenticators.c.principal == authenticator.principal
        with self._database.write() as connection:
            connection.execute(delete(tables.authenticators).where(hers))
            connection.execute(insert(tables.authenticators).values(**msgspec.structs.asdict(authenticator)))

    def authenticator(self, principal: EntityUid) -> Authenticator | None:
        """Return a user's authenticator app."""
        query = select(tables.authenticators).where(tables.authenticators.c.principal == principal)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else Authenticator(**row)

    def use_step(self, principal: EntityUid, step: int) -> bool:
        """Use up a time step in one atomic act: False if it, or a later one, was used before."""
        columns = tables.authenticators.c
        unused = (columns.principal == principal) & (columns.last_step < step)
        used = update(tables.authenticators).where(unused).values(last_step=step, failures=0, locked=None)
        with self._database.write() as connection:
            return connection.execute(used).rowcount == 1

    def begin_try(
        self, principal: EntityUid, now: datetime, locked_after: Callable[[int], datetime | None]
    ) -> Authenticator | None:
        """Count a try before it is judged, in one atomic act; return the app as it was found."""
        hers = tables.authenticators.c.principal == principal
        with self._database.write() as connection:
            row = connection.execute(select(tables.authenticators).where(hers).with_for_update())
            found = row.mappings().one_or_none()
            held = None if found is None else Authenticator(**found)
            if held is not None and (held.locked is None or held.locked <= now):
                tries = held.failures + 1
                counted = update(tables.authenticators).where(hers)
                connection.execute(counted.values(failures=tries, locked=locked_after(tries)))
        return held

    def end_tries(self, principal: EntityUid) -> None:
        """Forget the tries of a user who showed a right code."""
        hers = tables.authenticators.c.principal == principal
        with self._database.write() as connection:
            connection.execute(update(tables.authenticators).where(hers).values(failures=0, locked=None))

    def remove_authenticator(self, principal: EntityUid) -> bool:
        """Forget a user's authenticator app; return whether there was one."""
        hers = tables.authenticators.c.principal == principal
        with self._database.write() as connection:
            return bool(connection.execute(delete(tables.authenticators).where(hers)).rowcount)

    def set_recovery_codes(self, principal: EntityUid, digests: Sequence[str], now: datetime) -> None:
        """Keep these recovery codes of a user (SHA-256, hex), and no others."""
        rows = [{"hash": digest, "principal": principal, "created": now} for digest in digests]
        with self._database.write() as connection:
            hers = tables.recovery_codes.c.principal == principal
            connection.execute(delete(tables.recovery_codes).where(hers))
            if rows:
                connection.execute(insert(tables.recovery_codes), rows)

    def use_recovery_code(self, principal: EntityUid, digest: str) -> bool:
        """Use a code up: of any number of callers exactly one gets True."""
        columns = tables.recovery_codes.c
        hers = (columns.principal == principal) & (columns.hash == digest)
        with self._database.write() as connection:
            return connection.execute(delete(tables.recovery_codes).where(hers)).rowcount == 1

    def recovery_codes(self, principal: EntityUid) -> int:
        """Return how many codes a user has left."""
        hers = tables.recovery_codes.c.principal == principal
        query = select(func.count()).select_from(tables.recovery_codes).where(hers)
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())
