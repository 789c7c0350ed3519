"""Keep who may open the console: one-time links, passkeys, sessions (port `AccountRepository`)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from doorward.core.accounts import ConsoleSession, LinkKind, OneTimeLink, Passkey
from doorward.core.errors import ConflictError
from doorward.store import tables
from doorward.store.factors import SqlFactors

if TYPE_CHECKING:
    from doorward.core.model import EntityUid


class SqlAccounts(SqlFactors):
    """Keep links, passkeys and sessions in SQL."""

    def create_link(self, link: OneTimeLink) -> None:
        """Store a link; earlier links of the same kind stop working, those long over are forgotten."""
        columns = tables.links.c
        same = columns.principal.is_(None) if link.principal is None else columns.principal == link.principal
        superseded = (columns.kind == link.kind.value) & columns.used.is_(None) & same
        with self._database.write() as connection:
            connection.execute(delete(tables.links).where(superseded | (columns.expires <= link.created)))
            connection.execute(
                insert(tables.links).values(
                    hash=link.hash,
                    kind=link.kind.value,
                    operator=link.operator,
                    created=link.created,
                    expires=link.expires,
                    principal=link.principal,
                )
            )

    def link(self, digest: str, now: datetime) -> OneTimeLink | None:
        """Return an unused, unexpired link without using it."""
        columns = tables.links.c
        usable = (columns.hash == digest) & columns.used.is_(None) & (columns.expires > now)
        with self._database.read() as connection:
            row = connection.execute(select(tables.links).where(usable)).one_or_none()
        return None if row is None else _link(row)

    def redeem_link(self, digest: str, now: datetime) -> OneTimeLink | None:
        """Use up a link: the one statement that marks it is the one that finds it unused."""
        columns = tables.links.c
        usable = (columns.hash == digest) & columns.used.is_(None) & (columns.expires > now)
        with self._database.write() as connection:
            marked = connection.execute(update(tables.links).where(usable).values(used=now))
            if marked.rowcount != 1:
                return None
            return _link(connection.execute(select(tables.links).where(columns.hash == digest)).one())

    def add_passkey(self, passkey: Passkey) -> None:
        """Store a passkey; raise ConflictError if its credential id is known."""
        try:
            with self._database.write() as connection:
                connection.execute(
                    insert(tables.passkeys).values(
                        credential_id=passkey.credential_id,
                        principal=passkey.principal,
                        public_key=passkey.public_key,
                        sign_count=passkey.sign_count,
                        created=passkey.created,
                    )
                )
        except IntegrityError as error:
            raise ConflictError("this passkey is enrolled already", hint="Sign in with it.") from error

    def list_passkeys(self, principal: EntityUid | None = None) -> list[Passkey]:
        """Return the passkeys of one user, or all, oldest first."""
        query = select(tables.passkeys).order_by(tables.passkeys.c.created)
        if principal is not None:
            query = query.where(tables.passkeys.c.principal == principal)
        with self._database.read() as connection:
            return [Passkey(**row) for row in connection.execute(query).mappings()]

    def update_sign_count(self, credential_id: bytes, sign_count: int) -> None:
        """Keep the authenticator's counter; it never goes back."""
        columns = tables.passkeys.c
        newer = (columns.credential_id == credential_id) & (columns.sign_count < sign_count)
        with self._database.write() as connection:
            connection.execute(update(tables.passkeys).where(newer).values(sign_count=sign_count))

    def create_session(self, session: ConsoleSession) -> None:
        """Store a session, and forget those whose time is over."""
        with self._database.write() as connection:
            connection.execute(delete(tables.sessions).where(tables.sessions.c.expires <= session.created))
            connection.execute(
                insert(tables.sessions).values(
                    hash=session.hash,
                    principal=session.principal,
                    operator=session.operator,
                    method=session.method,
                    created=session.created,
                    last_seen=session.last_seen,
                    expires=session.expires,
                    mfa_at=session.mfa_at,
                    zone=session.zone,
                    browser=session.browser,
                )
            )

    def session(self, digest: str) -> ConsoleSession | None:
        """Return a session that was not ended, whether or not its time is over."""
        query = select(tables.sessions).where(tables.sessions.c.hash == digest)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else ConsoleSession(**row)

    def touch_session(self, digest: str, now: datetime) -> None:
        """Keep when the session was last used."""
        touched = update(tables.sessions).where(tables.sessions.c.hash == digest).values(last_seen=now)
        with self._database.write() as connection:
            connection.execute(touched)

    def end_session(self, digest: str) -> None:
        """Forget a session at once; ending it twice is no error."""
        with self._database.write() as connection:
            connection.execute(delete(tables.sessions).where(tables.sessions.c.hash == digest))

    def sessions(self, now: datetime, principal: EntityUid | None = None) -> list[ConsoleSession]:
        """Return the sessions that are not over, of one user or all, oldest first."""
        columns = tables.sessions.c
        query = select(tables.sessions).where(columns.expires > now).order_by(columns.created)
        if principal is not None:
            query = query.where(columns.principal == principal)
        with self._database.read() as connection:
            return [ConsoleSession(**row) for row in connection.execute(query).mappings()]

    def remove_passkey(self, credential_id: bytes, principal: EntityUid) -> bool:
        """Forget one passkey of a user; return whether there was one."""
        columns = tables.passkeys.c
        hers = (columns.credential_id == credential_id) & (columns.principal == principal)
        with self._database.write() as connection:
            return bool(connection.execute(delete(tables.passkeys).where(hers)).rowcount)


def _link(row: Row[Any]) -> OneTimeLink:
    return OneTimeLink(
        hash=row.hash,
        kind=LinkKind(row.kind),
        operator=row.operator,
        created=row.created,
        expires=row.expires,
        principal=row.principal,
    )
