from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from doorward.audit.writer import AuditWriter
from doorward.cli import audit, why
from doorward.core.clock import ManualClock
from doorward.core.ids import IdSource
from doorward.core.record import DecisionRecord
from doorward.settings import AuditSettings

# CR/LF, ANSI, an OSC title, a right-to-left override, line separators, a spreadsheet formula, DEL, a C1 CSI.
NASTY = 'x\r\n\x1b[31mred\x1b]0;owned\x07\u202eevil\u2028next\u0085=cmd|"/C calc"!A0\x7f\x9b2J'
FORBIDDEN = set("\r\x1b\x07\u202e\u2028\u0085\x7f\x9b")


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    audit.register(app)
    why.register(app)
    return app


@pytest.fixture
def data(tmp_path: Path) -> Path:
    clock = ManualClock(datetime(2026, 11, 23, 8, tzinfo=UTC))
    ids = IdSource(clock)

    def record(**fields: Any) -> DecisionRecord:
        base = {
            "id": ids.new(), "kind": "decision", "time": "2026-11-23T08:00:00.000Z", "code": "allowed",
            "decision": "allow", "principal": 'User::"dana"', "action": "read",
            "resource": 'Dataset::"store/a"',
        }  # fmt: skip
        return DecisionRecord(**{**base, **fields})

    async def fill() -> None:
        settings = AuditSettings()
        async with AuditWriter(tmp_path / "audit", "gateway", clock=clock, ids=ids, settings=settings) as log:
            await log.write(record(request_id="allowed-one", determining=("read-training",)))
            await log.write(
                record(
                    request_id="denied-one", decision="deny", code="denied", detail="Exports need MFA.",
                    would_allow=({"change": "context.session.mfa", "say": "Sign in again with MFA."},),
                )
            )  # fmt: skip
            await log.write(
                record(
                    request_id="nasty", principal=NASTY, resource=NASTY, detail=NASTY, decision="deny",
                    code=NASTY, request={"path": NASTY, "model": NASTY}, determining=(NASTY,),
                    advice=(NASTY,),
                )
            )  # fmt: skip

    asyncio.run(fill())
    return tmp_path


def run(app: typer.Typer, data: Path, *arguments: str, columns: int = 400) -> Any:
    return CliRunner().invoke(app, [*arguments, "--data", str(data)], env={"COLUMNS": str(columns)})


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "tail"), ("audit", "tail", "--wide"), ("audit", "tail", "--json"),
        ("audit", "search"), ("audit", "search", "--json"),
        ("audit", "export", "--json"), ("audit", "verify"), ("audit", "verify", "--json"),
        ("why", "nasty"), ("why", "nasty", "--json"), ("why", NASTY),
    ],
)  # fmt: skip
def test_nothing_a_caller_sent_acts_on_a_terminal(app: typer.Typer, data: Path, arguments: Any) -> None:
    result = run(app, data, *arguments)
    assert not FORBIDDEN & set(result.output)


def test_export_prints_one_record_a_line_with_its_request_id(app: typer.Typer, data: Path) -> None:
    result = run(app, data, "audit", "export", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["request_id"] for record in records] == ["", "allowed-one", "denied-one", "nasty"]
    assert records[-1]["request"]["path"] == NASTY


def test_search_takes_conditions_and_a_number(app: typer.Typer, data: Path) -> None:
    result = run(app, data, "audit", "search", "--decision", "deny", "-n", "1", "--json")
    assert [json.loads(line)["request_id"] for line in result.stdout.splitlines()] == ["nasty"]


def test_tail_shows_a_table(app: typer.Typer, data: Path) -> None:
    result = run(app, data, "audit", "tail", "-n", "3")
    assert "read-training" in result.stdout
    assert "allowed-one" in result.stdout


def test_eighty_columns_hold_one_record_a_line_without_ids(
    app: typer.Typer, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_now", lambda: datetime(2026, 11, 24, tzinfo=UTC))
    lines = run(app, data, "audit", "search", "--principal", "dana", columns=80).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["time", "UTC", "verdict", "who", "action", "what", "why"],
        ["11-23", "08:00", "allow", "dana", "read", "store/a", "read-training"],
        ["11-23", "08:00", "DENY", "dana", "read", "store/a", "denied"],
    ]


def test_the_records_of_today_show_their_second(
    app: typer.Typer, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_now", lambda: datetime(2026, 11, 23, 9, tzinfo=UTC))
    assert "\n08:00:00  allow" in run(app, data, "audit", "tail", columns=80).stdout


def test_wide_shows_whole_ids_and_names(app: typer.Typer, data: Path) -> None:
    shown = run(app, data, "audit", "tail", "--wide", columns=200).stdout
    assert "allowed-one" in shown
    assert 'Dataset::"store/a"' in shown
    assert "2026-11-23 08:00:00" in shown


@pytest.mark.parametrize("command", ["tail", "search", "export"])
def test_a_directory_without_a_log_is_never_an_empty_answer(
    app: typer.Typer, tmp_path: Path, command: str
) -> None:
    answer = run(app, tmp_path / "nowhere", "audit", command)
    assert answer.exit_code == 8
    assert "--data" in answer.stderr


def test_verify_exits_zero_then_seven_and_names_the_record(app: typer.Typer, data: Path) -> None:
    assert run(app, data, "audit", "verify").exit_code == 0
    segment = next((data / "audit/gateway").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"allow"', b'"Allow"', 1))
    result = run(app, data, "audit", "verify")
    assert result.exit_code == 7
    record = json.loads(segment.read_bytes().splitlines()[1])
    assert f"record 2 ({record['id']})" in result.stdout
    answer = json.loads(run(app, data, "audit", "verify", "--json").stdout)
    assert (answer["intact"], answer["broken"][0]["id"]) == (False, record["id"])


def test_a_missing_log_is_exit_seven(app: typer.Typer, tmp_path: Path) -> None:
    assert run(app, tmp_path / "nowhere", "audit", "verify").exit_code == 7


@pytest.mark.parametrize(("request_id", "code"), [("allowed-one", 0), ("denied-one", 1), ("unknown", 2)])
def test_why_exits_like_the_decision(app: typer.Typer, data: Path, request_id: str, code: int) -> None:
    assert run(app, data, "why", request_id).exit_code == code


def test_why_says_what_would_let_in(app: typer.Typer, data: Path) -> None:
    assert "Sign in again with MFA." in run(app, data, "why", "denied-one").stdout
    document = json.loads(run(app, data, "why", "denied-one", "--json").stdout)
    assert document["would_allow"][0]["change"] == "context.session.mfa"
    assert document["decision"] == "deny"


def test_a_time_that_is_none_is_a_usage_error(app: typer.Typer, data: Path) -> None:
    assert run(app, data, "audit", "search", "--since", "soon").exit_code == 2
