"""Distances over ground, and the geo file: the narrowest network counts, a bad line refuses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from doorward.core.errors import InvalidConfigError
from doorward.core.feed import Place
from doorward.core.locations import kilometres
from doorward.directory.geo import read


def test_distances_are_those_over_ground() -> None:
    amsterdam, new_york = (52.37, 4.9), (40.71, -74.0)
    assert 5800 < kilometres(amsterdam, new_york) < 5920
    assert kilometres(amsterdam, amsterdam) == 0
    assert 20_000 < kilometres((0, 0), (0, 180)) < 20_040
    assert kilometres((10, 179.9), (10, -179.9)) < 25


def geo(folder: Path, text: str) -> Path:
    file = folder / "geo.csv"
    file.write_text(text)
    return file


def test_the_narrowest_network_of_the_file_counts(tmp_path: Path) -> None:
    found = read(
        geo(
            tmp_path,
            "network,country,lat,lon\n# ours\n\n192.0.2.0/24,NL,52.1,5.1\n192.0.2.128/25,US,40,-74\n"
            "2001:db8::/32,DE,,\n198.51.100.0/24,,1,2\n",
        )
    )
    assert found.size == 4
    assert found.place_of("192.0.2.1") == Place("NL", 52.1, 5.1)
    assert found.place_of("192.0.2.200") == Place("US", 40.0, -74.0)
    assert found.place_of("2001:db8::1") == Place("DE")
    assert found.place_of("198.51.100.9") == Place(None, 1.0, 2.0)
    assert found.place_of("::ffff:192.0.2.1") == Place("NL", 52.1, 5.1)
    assert found.place_of("203.0.113.1") == found.place_of("nonsense") == Place()


@pytest.mark.parametrize(
    "line",
    [
        "192.0.2.1/24,NL,52.1,5.1",
        "office,NL,52.1,5.1",
        "192.0.2.0/24,NL,52.1",
        "192.0.2.0/24,NL,52.1,5.1,more",
        "192.0.2.0/24,Nl,52.1,5.1",
        "192.0.2.0/24,NL,52.1,",
        "192.0.2.0/24,NL,nan,5.1",
        "192.0.2.0/24,NL,91,5.1",
        '192.0.2.0/24,"NL,52.1,5.1',
        "10.0.0.0/8,DE,1,1",
    ],
)
def test_a_bad_line_refuses_the_file_and_is_named(tmp_path: Path, line: str) -> None:
    file = geo(tmp_path, f"network,country,lat,lon\n10.0.0.0/8,NL,52.1,5.1\n{line}\n")
    with pytest.raises(InvalidConfigError, match=r"geo\.csv:3: "):
        read(file)


def test_a_file_that_is_no_text_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "geo.csv").write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "geo.csv", tmp_path / "none.csv"):
        with pytest.raises(InvalidConfigError, match="cannot be read"):
            read(file)
