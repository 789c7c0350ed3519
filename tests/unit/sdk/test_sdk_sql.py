"""`doorward.sdk.sql`: the worked example of the docs, what wins over a row, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    CHAR,
    JSON,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    insert,
)
from sqlalchemy.orm import Session

from doorward.core.errors import InvalidConfigError, InvalidRequestError
from doorward.core.model import EntityUid
from doorward.policies.workspace import packaged_schema
from doorward.sdk import DecisionPoint
from doorward.sdk.sql import Columns, Parents, allowed

DOCS = (Path(__file__).parents[3] / "docs/asking.md").read_text()
EXAMPLE = dict(
    re.findall(r"```(\w+)\n(.*?)```", DOCS.partition("## A list in your own database")[2], re.DOTALL)
)
ORG = """
users:
  dana: { roles: [reader] }
assets:
  Dataset::"shop/secret": { sensitivity: 3, live: false }
"""
SCOPE = '(principal is Doorward::User, action == Doorward::Action::"read", resource is Doorward::Dataset)'
READ, AGAIN = f'@id("a") permit{SCOPE}', f'@id("b") permit{SCOPE}'

datasets = Table(
    "datasets",
    MetaData(),
    Column("name", Text, primary_key=True),
    Column("level", Integer),
    Column("live", Boolean),
    Column("uses", JSON),
    Column("place", Text),
    Column("code", CHAR(8)),
    Column("weight", Float),
)
ALL = {"sensitivity": datasets.c.level, "live": datasets.c.live, "purposes": datasets.c.uses,
       "environment": datasets.c.place}  # fmt: skip


@pytest.fixture
def point_of(tmp_path: Path) -> Callable[..., DecisionPoint]:
    def build(policies: str, org: str = ORG, schema: str = "") -> DecisionPoint:
        folder = tmp_path / "policies"
        folder.mkdir(exist_ok=True)
        (folder / "a.cedar").write_text(policies)
        (folder / "schema.cedarschema").write_text(packaged_schema() + schema)
        (tmp_path / "org.yaml").write_text(org)
        return DecisionPoint(folder, tmp_path / "org.yaml")

    return build


@pytest.fixture
def connection() -> Any:
    engine = create_engine("sqlite://")
    rows = [("public", 0), ("inner", 2), ("secret", 0), ("secret/part", 0), ("secretive", 0), ("odd", 9)]
    with engine.begin() as opened:
        datasets.metadata.create_all(opened)
        for name, level in rows:
            place = "production" if name != "odd" else "nowhere"
            opened.execute(insert(datasets).values(name=name, level=level, live=True, uses=[], place=place))
        yield opened
    engine.dispose()


def ask(point: DecisionPoint, connection: Connection, **changed: Any) -> Any:
    asked: dict[str, Any] = {
        "principal": 'User::"dana"',
        "action": "read",
        "resource_type": "Dataset",
        "table": datasets,
        "columns": Columns(id=datasets.c.name, attributes=ALL, prefix="shop/"),
        "dialect": connection.dialect.name,
        **changed,
    }
    return allowed(point, **asked)


def names(selection: Any, connection: Any) -> list[str]:
    return [name for (name,) in selection.rows(connection, datasets.c.name, order_by=[datasets.c.name])]


def test_the_example_of_the_docs_does_what_it_says(
    point_of: Callable[..., DecisionPoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_of(EXAMPLE["cedar"], EXAMPLE["yaml"], EXAMPLE["cedarschema"])
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLE["python"], "docs/asking.md", "exec"), {})  # noqa: S102 -- our own docs


def test_the_directory_wins_over_a_row_it_knows_or_covers(
    point_of: Callable[..., DecisionPoint], connection: Connection
) -> None:
    selection = ask(point_of(f"{READ} when {{ resource.sensitivity < 2 }};"), connection)
    # `secret` says 0 of itself; the directory says 3, and covers what lies under it. `odd` fits no schema.
    assert names(selection, connection) == ["public", "secretive"]
    assert not selection.exact
    apart = ask(
        point_of(f"{READ} when {{ resource.sensitivity < 2 }};"),
        connection,
        columns=Columns(id=datasets.c.name, attributes=ALL, prefix="other/"),
    )
    assert apart.exact
    assert names(apart, connection) == ["public", "secret", "secret/part", "secretive"]
    covered = ask(
        point_of(f"{READ} when {{ resource.sensitivity < 2 }};"),
        connection,
        columns=Columns(id=datasets.c.name, attributes=ALL, prefix="shop/secret/"),
    )
    assert names(covered, connection) == []


def test_an_orm_session_reads_the_same_and_limits_count_shown_rows(
    point_of: Callable[..., DecisionPoint], connection: Connection
) -> None:
    selection = ask(point_of(f"{READ} when {{ resource.sensitivity + 0 < 1 }};"), connection)
    with Session(connection) as session:
        assert names(selection, session) == ["public", "secretive"]
    assert len(list(selection.rows(connection, limit=1))) == 1
    assert [*selection.rows(connection, datasets.c.name, order_by=[datasets.c.name.desc()], limit=1)] == [
        ("secretive",)
    ]


def test_an_obligation_the_program_does_not_keep_denies_the_row(
    point_of: Callable[..., DecisionPoint], connection: Connection
) -> None:
    point = point_of(
        f'@mask("email") {READ} when {{ resource.sensitivity < 1 }};'
        f"{AGAIN} when {{ resource.sensitivity > 1 }};"
    )
    other = Columns(id=datasets.c.name, attributes=ALL, prefix="other/")
    assert names(ask(point, connection, columns=other), connection) == ["inner"]
    kept = ask(point, connection, columns=other, keeps={"mask"})
    assert len(names(kept, connection)) == 5


@pytest.mark.parametrize("who", ['User::"nobody"', 'Device::"x"'])
def test_nobody_unknown_sees_a_row(
    point_of: Callable[..., DecisionPoint], connection: Connection, who: str
) -> None:
    assert names(ask(point_of(f"{READ};"), connection, principal=who), connection) == []


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": datasets.c.name}, "no column is named"),
        ({"id": datasets.c.weight, "attributes": ALL}, "exactly"),
        ({"id": datasets.c.code, "attributes": ALL}, "exactly"),
        ({"id": datasets.c.name, "attributes": {**ALL, "sensitivity": datasets.c.weight}}, "exactly"),
        ({"id": datasets.c.name, "attributes": {**ALL, "sensitivity": "2"}}, "cannot be"),
        (
            {"id": datasets.c.name, "attributes": {**ALL, "environment": EntityUid.of("Environment", "x")}},
            "cannot be",
        ),
        ({"id": datasets.c.name, "attributes": {**ALL, "sensitivity": datasets.c.level + 1}}, "expression"),
        ({"id": datasets.c.name, "attributes": {**ALL, "colour": datasets.c.name}}, "no attribute"),
        (
            {
                "id": datasets.c.name,
                "attributes": ALL,
                "parents": (Parents("Doorward::Role", datasets.c.name),),
            },
            "lies above",
        ),
    ],
)
def test_a_mapping_that_is_not_exact_is_refused(
    point_of: Callable[..., DecisionPoint], connection: Connection, columns: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidConfigError, match=said):
        ask(point_of(f"{READ};"), connection, columns=Columns(**columns))


def test_a_filter_is_for_one_kind_of_database(
    point_of: Callable[..., DecisionPoint], connection: Connection
) -> None:
    point = point_of(f"{READ};")
    with pytest.raises(InvalidConfigError, match="not written for `mysql`"):
        ask(point, connection, dialect="mysql")
    with pytest.raises(InvalidConfigError, match="for postgresql, not for sqlite"):
        names(ask(point, connection, dialect="postgresql"), connection)
    with pytest.raises(InvalidRequestError, match="no resources of the type"):
        ask(point, connection, resource_type="Nothing")


def test_constants_of_a_policy_never_stand_in_the_text_of_the_statement(
    point_of: Callable[..., DecisionPoint], connection: Connection
) -> None:
    evil = "x' OR 1=1 --"
    point = point_of(f'{READ} when {{ resource has digest && resource.digest == "{evil}" }};')
    columns = Columns(id=datasets.c.name, attributes={**ALL, "digest": datasets.c.name}, prefix="other/")
    selection = ask(point, connection, columns=columns)
    assert evil not in str(selection.query(datasets.c.name).compile(connection.engine))
    assert names(selection, connection) == []


def test_the_sdk_alone_brings_no_sql_and_says_what_is_missing() -> None:
    code = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.partition('.')[0] == 'sqlalchemy': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from doorward.sdk import DecisionPoint, Client, guard\n"
        "try:\n    import doorward.sdk.sql\n"
        "except ImportError as said: print(said)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'doorward[sql]'" in result.stdout
