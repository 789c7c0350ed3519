"""Open the database: SQLite with full durability, private to its owner, at the schema's version."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.pool import StaticPool

from doorward.core.errors import DoorwardError, InvalidConfigError, UnavailableError

_BUSY_MS: Final = 5_000
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_PRIVATE: Final = 0o600
_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {_BUSY_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
)

log = structlog.get_logger()


class Database:
    """Hold the engine and give out transactions, one writer at a time."""

    def __init__(self, engine: Engine, *, shared_connection: bool) -> None:
        """Wrap an engine; with one connection for all threads, readers wait for the writer too."""
        self._engine = engine
        self._writing = threading.RLock()
        self._shared = shared_connection

    @classmethod
    def open(cls, url: str, data: Path) -> Database:
        """Open (a relative SQLite path lies in `data`) and migrate to the code's version.

        Raises InvalidConfigError for a URL that cannot be used, a file that others may read, and a
        database that a newer Doorward wrote; UnavailableError when it cannot be opened.
        """
        try:
            target = make_url(url)
        except ArgumentError as error:
            raise InvalidConfigError(
                "the database URL cannot be read", hint='Write "sqlite:///state.db".'
            ) from error
        if target.get_backend_name() != "sqlite":
            raise InvalidConfigError(
                f"databases of kind `{target.get_backend_name()}` are not supported yet",
                hint='Set [control] database = "sqlite:///state.db".',
            )
        in_memory = target.database in {None, "", ":memory:"}
        if not in_memory:
            target = target.set(database=str(_private_file(data / str(target.database))))
        database = cls(_engine(target, in_memory=in_memory), shared_connection=in_memory)
        try:
            database._migrate()
        except DatabaseError as error:
            database.close()
            raise UnavailableError(
                f"the database cannot be opened: {error.orig}",
                hint="Restore it from a backup, or name another data directory.",
            ) from error
        except DoorwardError:
            database.close()
            raise
        return database

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run one transaction that may write: committed whole or not at all (UnavailableError)."""
        writer = self._engine.connect
        try:
            with self._writing, writer().execution_options(immediate=True) as connection, connection.begin():
                yield connection
        except OperationalError as error:
            raise UnavailableError(
                f"the database could not be written: {error.orig}",
                hint="Check that its disk has space and that no other process holds it.",
            ) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Run one transaction that only reads: it sees one state."""
        if self._shared:
            with self.write() as connection:
                yield connection
        else:
            with self._engine.connect() as connection, connection.begin():
                yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        script = ScriptDirectory.from_config(config)
        with self.write() as connection:
            current = MigrationContext.configure(connection).get_current_heads()
            known = {revision.revision for revision in script.walk_revisions()}
            if not known.issuperset(current):
                raise InvalidConfigError(
                    f"the database is at version {', '.join(current)}, which this Doorward does not know",
                    hint="A newer Doorward wrote it: run that one, or restore an older backup.",
                )
            if set(current) != set(script.get_heads()):
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                log.info("database_migrated", before=current, after=script.get_heads())


def _engine(url: URL, *, in_memory: bool) -> Engine:
    pool: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {}
    engine = create_engine(url, connect_args={"check_same_thread": False}, hide_parameters=True, **pool)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        # SQLAlchemy begins transactions itself (below); the driver must not.
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes the lock at once: no upgrade from reader to writer that could fail half-way.
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _private_file(path: Path) -> Path:
    """Create the file 0600, or refuse one that others can read or that is no regular file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE))
        status = path.lstat()
    except OSError as error:
        raise UnavailableError(
            f"the database {path} cannot be opened: {error.strerror}",
            hint="Check the directory's owner and free space.",
        ) from error
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode) or mode & 0o077 or status.st_uid != os.geteuid():
        raise InvalidConfigError(
            f"the database {path} must be a file of uid {os.geteuid()} that nobody else can read"
            f" (it is {mode:04o}, uid {status.st_uid})",
            hint=f"chmod 600 {path}",
        )
    return path
