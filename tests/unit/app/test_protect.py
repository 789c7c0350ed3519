from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from doorward.app import probe as probing
from doorward.app import protect
from doorward.cli import protect as command
from doorward.core.context import Context
from doorward.core.decision import AccessRequest
from doorward.core.errors import ConflictError, InvalidConfigError, InvalidRequestError
from doorward.core.model import Action, EntityUid
from doorward.decisions.point import DecisionPoint
from doorward.directory.org import offline_snapshot, parse
from doorward.policies.workspace import Workspace
from doorward.settings import load

URLS = {"openai": "http://127.0.0.1:8000", "mlflow": "unix:/run/mlflow.sock", "s3": "http://127.0.0.1:9000"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "doorward.toml"


def planned(config: Path, kind: str = "openai", **changes: Any) -> protect.Plan:
    chosen = {"url": URLS[kind], "name": protect.DEFAULT_NAMES[kind], "config": config, **changes}
    return protect.plan(kind, chosen.pop("url"), **chosen)


@pytest.mark.parametrize("kind", URLS)
def test_what_is_written_loads_and_is_admitted(
    config: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planned(config, kind).write() == [
        config.parent / "policies" / f"{protect.DEFAULT_NAMES[kind]}.cedar", config,
    ]  # fmt: skip
    monkeypatch.setenv("LLM_KEY", "k")
    monkeypatch.setenv("STORE_SECRET", "s")
    upstream = load(config).upstream[0]
    assert (upstream.kind, upstream.url, upstream.environment) == (kind, URLS[kind], "production")
    assert Workspace(config.parent / "policies").load().policies


def test_the_first_policy_lets_its_role_in_and_nobody_else(config: Path, clock_now: Any) -> None:
    planned(config).write()
    known = offline_snapshot(
        parse(
            "users: { ann: { roles: [llm-user] }, bob: { roles: [other] } }\n"
            "assets: { 'Model::\"llm\"': { sensitivity: 1, environment: production } }\n",
            "org.yaml",
        )
    )
    point = DecisionPoint()
    point.publish(Workspace(config.parent / "policies").load())
    point.advance(known)
    for name, allowed in (("ann", True), ("bob", False)):
        request = AccessRequest(
            EntityUid.of("User", name),
            Action.INVOKE.uid,
            EntityUid.of("Model", "llm/tiny"),
            Context(now=clock_now),
        )
        assert point.pin().decide(request).allowed is allowed


@pytest.fixture
def clock_now() -> Any:
    return datetime(2026, 11, 23, tzinfo=UTC)


def test_no_secret_is_ever_written(config: Path) -> None:
    for kind in URLS:
        planned(config, kind).write()
    document = tomllib.loads(config.read_text())
    assert document["upstream"][0]["credential"]["value"] == "Bearer ${LLM_KEY}"
    assert document["upstream"][2]["credential"]["s3"]["secret_access_key"] == "${STORE_SECRET}"


def test_doing_it_again_changes_nothing(config: Path) -> None:
    planned(config).write()
    before = config.read_bytes()
    again = planned(config)
    assert again.done
    assert again.write() == []
    assert config.read_bytes() == before


def test_an_edited_policy_is_kept(config: Path) -> None:
    planned(config).write()
    policy = config.parent / "policies/llm.cedar"
    policy.write_text("// mine now\n")
    assert planned(config).write() == []
    assert policy.read_text() == "// mine now\n"


def test_a_section_is_added_and_the_rest_is_kept_to_the_byte(config: Path) -> None:
    config.write_text('[policies]\npath = "rules"   # ours\n')
    planned(config).write()
    assert config.read_text().startswith('[policies]\npath = "rules"   # ours\n\n[[upstream]]\n')
    assert (config.parent / "rules/llm.cedar").exists()


def test_another_upstream_of_that_name_is_not_overwritten(config: Path) -> None:
    planned(config).write()
    before = config.read_bytes()
    with pytest.raises(ConflictError, match="already has an upstream"):
        planned(config, url="http://127.0.0.1:9999")
    assert config.read_bytes() == before


def test_a_policy_file_that_is_there_is_not_overwritten(config: Path) -> None:
    (config.parent / "policies").mkdir()
    (config.parent / "policies/llm.cedar").write_text("// something else\n")
    with pytest.raises(ConflictError, match="says something else"):
        planned(config)
    assert not config.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "http://10.0.0.1:8000"}, "plain HTTP is refused off loopback"),
        ({"url": "ftp://127.0.0.1"}, "is not http"),
        ({"url": "http://user:secret@127.0.0.1"}, "no user"),
        ({"name": "../../etc"}, "name"),
        ({"name": 'x"\ncredential = 1'}, "name"),
        ({"environment": "prod"}, "environment"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    config: Path, changes: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        planned(config, **changes)
    assert not list(config.parent.iterdir())


def test_a_url_cannot_smuggle_configuration(config: Path) -> None:
    url = 'http://127.0.0.1/"\n[control]\nlocal_operator = "full'
    try:
        planned(config, url=url).write()
    except InvalidRequestError:
        return
    assert "control" not in tomllib.loads(config.read_text())


def test_a_broken_configuration_is_named(config: Path) -> None:
    config.write_text("[gateway\n")
    with pytest.raises(InvalidConfigError, match=r"doorward\.toml"):
        planned(config)


@pytest.mark.parametrize("door", list(probing.Door))
def test_the_command_says_what_it_found(
    config: Path, door: probing.Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "probe", lambda _kind, _url: probing.Finding(door, "seen \x1b[31m"))
    app = typer.Typer()
    command.register(app)
    app.callback()(lambda: None)
    result = CliRunner().invoke(app, ["protect", "s3", URLS["s3"], "--config", str(config)])
    assert result.exit_code == (8 if door is probing.Door.UNREACHABLE else 0)
    assert config.exists() is (door is not probing.Door.UNREACHABLE)
    assert ("OPEN" in result.output) is (door is probing.Door.OPEN)
    assert "\x1b" not in result.stdout
