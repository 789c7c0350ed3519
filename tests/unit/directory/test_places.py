"""Zones may say where on earth they lie: read, kept, sent to gateways, and nothing made up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidConfigError
from doorward.core.feed import Place
from doorward.core.ids import IdSource
from doorward.directory.administration import Directory
from doorward.directory.org import offline_snapshot, parse
from doorward.directory.snapshot import Snapshot
from doorward.store.opened import Store

PLACED = """
zones:
  office: { networks: [10.0.0.0/8], country: DE, coordinates: [52.52, -13.4] }
  lab: [11.0.0.0/8]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    return Directory(Store.open("sqlite:///state.db", tmp_path), clock, IdSource(clock))


def test_a_zone_with_a_place_has_it_and_the_others_have_none() -> None:
    snapshot = offline_snapshot(parse(PLACED, "org.yaml"))
    assert snapshot.place_of("10.1.1.1") == Place("DE", 52.52, -13.4)
    assert snapshot.place_of("11.1.1.1") == snapshot.place_of("8.8.8.8") == Place()
    assert snapshot.zone_of("10.1.1.1") == "office"


def test_places_are_kept_and_reach_gateways(directory: Directory, tmp_path: Path) -> None:
    heard = []
    directory.subscribe(heard.append)
    gateway = Snapshot.of(directory.known())
    directory.apply(parse(PLACED, "org.yaml"))
    for delta in heard:
        gateway = gateway.with_delta(delta)
    assert gateway.known == directory.known()
    assert gateway.place_of("10.1.1.1").country == "DE"
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    again = Directory(Store.open("sqlite:///state.db", tmp_path), clock, IdSource(clock))
    assert again.known() == directory.known()
    assert directory.apply(parse(PLACED, "org.yaml")).items == ()


def test_a_place_alone_changes_and_goes(directory: Directory) -> None:
    directory.apply(parse("zones: { office: [10.0.0.0/8], lab: [11.0.0.0/8] }", "org.yaml"))
    moved = directory.apply(parse(PLACED, "org.yaml"))
    assert [(item.kind, item.name) for item in moved.items] == [("Zone", "office")]
    directory.apply(parse("zones: { lab: [11.0.0.0/8] }", "org.yaml"))
    assert directory.snapshot.place_of("10.1.1.1").country == "DE"
    directory.apply(parse("zones: { office: [10.0.0.0/8] }", "org.yaml"))
    assert directory.snapshot.place_of("10.1.1.1") == Place()


@pytest.mark.parametrize(
    "zone",
    [
        "{ country: DE }",
        "{ networks: [10.0.0.0/8], country: Germany }",
        "{ networks: [10.0.0.0/8], coordinates: [91, 0] }",
        "{ networks: [10.0.0.0/8], coordinates: [1] }",
        "{ networks: [10.0.0.0/8], coordinates: [north, 0] }",
        "{ networks: [10.0.0.0/8], coordinates: [nan, 0] }",
        "{ networks: [10.0.0.0/8], countri: DE }",
    ],
)
def test_what_is_no_place_is_refused(zone: str) -> None:
    with pytest.raises(InvalidConfigError):
        parse(f"zones: {{ office: {zone} }}", "org.yaml")
