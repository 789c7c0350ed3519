"""Findings on file: durable, private, and read back whole or not at all."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from doorward.core.errors import UnavailableError
from doorward.core.shadow import Finding, Measure
from doorward.decisions import findings
from doorward.decisions.shadow_link import ShadowLink
from doorward.decisions.watching import Samples

FOUND = Finding(
    slice="s1",
    measure=Measure.EXACT,
    engine=findings.__version__,
    time="2026-06-01T12:00:00.000Z",
    record="01",
    bundle="sha256:00",
    entities="v1",
    policies=("a",),
    principal='User::"dana"',
    action="read",
    resource='Dataset::"d"',
    said={"live": "allow []"},
)


def test_what_is_written_is_read_and_private(tmp_path: Path) -> None:
    assert findings.read(tmp_path) == ()
    findings.write(tmp_path, [FOUND])
    assert findings.read(tmp_path) == (FOUND,)
    assert (tmp_path / "shadow-findings.json").stat().st_mode & 0o777 == 0o600


def test_another_version_of_doorward_starts_afresh(tmp_path: Path) -> None:
    findings.write(tmp_path, [msgspec.structs.replace(FOUND, engine="0.0.1")])
    assert findings.read(tmp_path) == ()


def test_the_strictest_measure_of_a_slice_rules() -> None:
    several = [msgspec.structs.replace(FOUND, measure=one) for one in (Measure.DENY, *Measure)]
    assert findings.measures(several) == {"s1": Measure.DENY}
    assert findings.measures(several[1:3]) == {"s1": Measure.ORACLE}


async def test_a_deciding_process_has_them_before_it_decides(tmp_path: Path) -> None:
    findings.write(tmp_path, [FOUND])
    told: list[dict] = []
    ShadowLink(tmp_path, Samples(1), told.append)
    assert told == [{"s1": Measure.EXACT}]


async def test_a_damaged_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "shadow-findings.json").write_text("[{")
    with pytest.raises(UnavailableError, match="findings"):
        ShadowLink(tmp_path, Samples(1), lambda _: None)
