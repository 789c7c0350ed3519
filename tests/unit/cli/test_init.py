from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from doorward.cli import init
from doorward.policies.workspace import Workspace
from doorward.settings import load


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    init.register(app)
    return app


def test_what_it_wrote_is_told_to_programs_and_loads(app: typer.Typer, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, [str(tmp_path / "door"), "--json"])
    written = [Path(file) for file in json.loads(answer.stdout)["written"]]
    assert all(file.exists() for file in written)
    settings = load(tmp_path / "door/doorward.toml")
    assert Workspace(settings.resolve(settings.policies.path)).load().policies


def test_nothing_is_ever_overwritten(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "org.yaml").write_text("users: {}\n")
    answer = CliRunner().invoke(app, [str(tmp_path)])
    assert answer.exit_code == 1
    assert "nothing was written" in answer.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["org.yaml"]
