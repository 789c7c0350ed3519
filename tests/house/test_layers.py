"""The house rules hold, and a breach is caught."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("decisions/planted.py", "from doorward import console\n", "Rooms import downwards only"),
        ("directory/planted.py", "from doorward import audit\n", "Rooms import downwards only"),
        ("decisions/planted.py", "import cedarpy\n", "Only `cedar` speaks to cedarpy"),
        ("directory/planted.py", "import sqlalchemy\n", "Only `store` speaks SQL"),
        ("gateway/planted.py", "from doorward import store\n", "A gateway never reaches the database"),
    ],
)
def test_a_planted_import_is_caught(tmp_path: Path, file: str, line: str, contract: str) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "vendor"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src/doorward" / file).write_text(f'"""Planted."""\n\n{line}')
    result = lint_imports(tmp_path)
    assert result.returncode != 0
    assert re.search(rf"{re.escape(contract)}.*BROKEN", result.stdout), result.stdout


def test_every_file_stays_readable() -> None:
    long = {
        str(file.relative_to(ROOT)): count
        for file in (ROOT / "src").rglob("*.py")
        if (count := len(file.read_text().splitlines())) > 400
    }
    assert not long, f"rooms over 400 lines: {long}"


@pytest.mark.parametrize(("lock", "budget"), [("server", 95), ("gateway", 25), ("sdk", 12)])
def test_the_install_stays_within_its_budget(lock: str, budget: int) -> None:
    pinned = re.findall(r"^[\w.-]+==", (ROOT / f"requirements/{lock}.txt").read_text(), re.MULTILINE)
    assert 0 < len(pinned) <= budget


def test_locks_are_pinned_by_hash_and_name_no_index() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "index-url" not in text
        assert "://" not in text
        for requirement in re.split(r"\n(?=\S)", text.strip()):
            assert "--hash=sha256:" in requirement, f"{lock.name}: {requirement.splitlines()[0]}"
