from __future__ import annotations

import csv
import json
import struct
from pathlib import Path

import pytest

from doorward.demo import data


@pytest.fixture
def store(tmp_path: Path) -> Path:
    data.write_store(tmp_path / "store")
    return tmp_path / "store"


def rows(store: Path) -> list[dict[str, str]]:
    with (store / data.BUCKET / data.CUSTOMERS).open(newline="") as file:
        return list(csv.DictReader(file))


def test_cards_pass_the_luhn_check_and_belong_to_nobody(store: Path) -> None:
    for row in rows(store):
        digits = [int(digit) for digit in reversed(row["card"])]
        doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
        assert (sum(digits[::2]) + doubled) % 10 == 0
        assert row["card"].startswith("400000")
        assert row["email"].endswith("@example.com")
        assert row["phone"].startswith("+1-555-01")


@pytest.mark.parametrize(("digits", "check"), [("7992739871", "3"), ("400000000000000", "2"), ("0", "0")])
def test_the_check_digit_is_that_of_the_standard(digits: str, check: str) -> None:
    assert data.luhn_digit(digits) == check


def test_the_same_seed_makes_the_same_store(store: Path, tmp_path: Path) -> None:
    data.write_store(tmp_path / "again")
    for path in store.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(store)).read_bytes()


def test_there_are_eight_weight_files_in_the_safetensors_format(store: Path) -> None:
    files = sorted((store / data.WEIGHTS_BUCKET).iterdir())
    assert [file.name for file in files] == sorted(data.WEIGHTS)
    assert len(files) == 8
    for file in files:
        content = file.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        assert header["w"]["data_offsets"][1] == len(content) - 8 - length
