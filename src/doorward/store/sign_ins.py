"""Keep sign-ins and their refresh tokens (port `SignInRepository`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, insert, select, update

from doorward.core.identity import Bounds
from doorward.core.sign_ins import Continued, SignIn
from doorward.store import tables

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from doorward.core.model import EntityUid
    from doorward.store.database import Database

_TOKENS, _SIGN_INS = tables.refresh_tokens, tables.sign_ins


class SqlSignIns:
    """Keep them in SQL; a refresh token is used up by the statement that looks for an unused one."""

    def __init__(self, database: Database) -> None:
        """Take an open database."""
        self._database = database

    def begin(self, sign_in: SignIn, refresh: str) -> None:
        """Keep a sign-in and the hash of its first refresh token; forget those whose time is over."""
        over = select(_SIGN_INS.c.id).where(_SIGN_INS.c.expires <= sign_in.created)
        with self._database.write() as connection:
            connection.execute(delete(_TOKENS).where(_TOKENS.c.sign_in.in_(over)))
            connection.execute(delete(_SIGN_INS).where(_SIGN_INS.c.expires <= sign_in.created))
            connection.execute(insert(_SIGN_INS).values(**_row(sign_in)))
            connection.execute(insert(_TOKENS).values(hash=refresh, sign_in=sign_in.id))

    def find(self, refresh: str, now: datetime) -> SignIn | None:
        """Return the sign-in a refresh token, used or not, belongs to; None if it is over or unknown."""
        with self._database.read() as connection:
            return _found(connection, refresh, now)

    def redeem(self, refresh: str, following: str, now: datetime) -> Continued | None:
        """Use a refresh token up and keep the next one, in one atomic step."""
        unused = (_TOKENS.c.hash == refresh) & _TOKENS.c.used.is_(None)
        with self._database.write() as connection:
            sign_in = _found(connection, refresh, now)
            if sign_in is None:
                return None
            marked = connection.execute(update(_TOKENS).where(unused).values(used=now))
            if marked.rowcount != 1:
                return Continued(sign_in, stolen=True)
            connection.execute(insert(_TOKENS).values(hash=following, sign_in=sign_in.id))
            return Continued(sign_in, stolen=False)

    def end(self, sign_in: str) -> None:
        """Forget a sign-in with its refresh tokens; ending it twice is no error."""
        with self._database.write() as connection:
            connection.execute(delete(_TOKENS).where(_TOKENS.c.sign_in == sign_in))
            connection.execute(delete(_SIGN_INS).where(_SIGN_INS.c.id == sign_in))

    def of(self, principal: EntityUid, now: datetime) -> list[SignIn]:
        """Return a user's sign-ins that are not over, oldest first."""
        hers = (_SIGN_INS.c.principal == principal) & (_SIGN_INS.c.expires > now)
        query = select(_SIGN_INS).where(hers).order_by(_SIGN_INS.c.created)
        with self._database.read() as connection:
            return [_sign_in(row) for row in connection.execute(query).mappings()]


def forget(connection: Connection, principal: EntityUid) -> None:
    """End all sign-ins of a user who is gone."""
    hers = select(_SIGN_INS.c.id).where(_SIGN_INS.c.principal == principal)
    connection.execute(delete(_TOKENS).where(_TOKENS.c.sign_in.in_(hers)))
    connection.execute(delete(_SIGN_INS).where(_SIGN_INS.c.principal == principal))


def _found(connection: Connection, refresh: str, now: datetime) -> SignIn | None:
    joined = _SIGN_INS.join(_TOKENS, _TOKENS.c.sign_in == _SIGN_INS.c.id)
    live = (_TOKENS.c.hash == refresh) & (_SIGN_INS.c.expires > now)
    query = select(_SIGN_INS).select_from(joined).where(live)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _sign_in(row)


def _row(sign_in: SignIn) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(sign_in),
        "resources": list(sign_in.resources),
        "amr": list(sign_in.amr),
        "bounds": None if sign_in.bounds is None else msgspec.to_builtins(sign_in.bounds),
    }


def _sign_in(row: Any) -> SignIn:
    bounds = row["bounds"]
    return SignIn(
        **{
            **row,
            "resources": tuple(row["resources"]),
            "amr": tuple(row["amr"]),
            "bounds": None if bounds is None else msgspec.convert(bounds, Bounds),
        }
    )
