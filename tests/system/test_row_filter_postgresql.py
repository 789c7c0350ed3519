"""A filter rendered to SQL says what deciding each row says, on a PostgreSQL of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Connection, create_engine

from support import row_cases

PROGRAMS = (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *os.get_exec_path())
BIN = next((path for path in map(Path, PROGRAMS) if (path / "initdb").exists()), None)
pytestmark = pytest.mark.skipif(BIN is None, reason="needs postgresql: make setup-system")
seen = Counter[str]()


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    """Start a server that listens on a Unix socket only; it refuses to run as root."""
    assert BIN is not None
    data = Path(f"/tmp/dw-pg-{os.getpid()}")  # noqa: S108 -- a socket's path must be short
    data.mkdir(mode=0o700)
    as_root = os.geteuid() == 0
    if as_root:
        shutil.chown(data, "nobody")
    user: dict[str, str] = {"user": "nobody"} if as_root else {}

    def run(*command: str) -> None:
        subprocess.run(
            command, check=True, cwd=data, stdout=subprocess.DEVNULL, env={"PATH": str(BIN)}, **user
        )

    try:
        run(f"{BIN}/initdb", "-D", f"{data}/d", "-U", "app", "--auth=trust", "-N", "-E", "UTF8")
        options = f"-c listen_addresses= -k {data} -c fsync=off"
        run(f"{BIN}/pg_ctl", "-D", f"{data}/d", "-w", "-l", f"{data}/log", "-o", options, "start")
        try:
            engine = create_engine(f"postgresql+psycopg://app@/postgres?host={data}")
            row_cases.metadata.create_all(engine)
            with engine.connect() as opened:
                yield opened
            engine.dispose()
        finally:
            run(f"{BIN}/pg_ctl", "-D", f"{data}/d", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(data)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(row_cases.cases)
def test_on_postgresql_too_the_table_filtered_is_the_table_decided(
    connection: Connection, case: row_cases.Case
) -> None:
    try:
        seen.update(row_cases.check(connection, case))
    finally:
        connection.rollback()


def test_the_postgresql_cases_were_not_all_of_one_kind() -> None:
    assert all(seen[kind] > 5 for kind in ("exact", "some", "part", "wide")), seen
