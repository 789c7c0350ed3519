"""Findings of the shadow check, kept in a file that every deciding process reads before it decides."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from doorward import __version__
from doorward.core.shadow import Finding, Measure, stricter

_FILE: Final = "shadow-findings.json"
# One per slice and measure; past this the shadow check has long become the smaller problem.
MOST: Final = 10_000
_decoder = msgspec.json.Decoder(tuple[Finding, ...])
_log = structlog.get_logger()


def read(data: Path) -> tuple[Finding, ...]:
    """Return what stands against this version of Doorward; raises ValueError for a file that is damaged."""
    try:
        content = (data / _FILE).read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as reason:
        raise ValueError(f"{data / _FILE} cannot be read: {reason.strerror or reason}") from reason
    return tuple(one for one in _decoder.decode(content) if one.engine == __version__)


def write(data: Path, findings: Iterable[Finding]) -> None:
    """Replace the file, durably. Raises OSError."""
    fresh = data / f"{_FILE}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(tuple(findings)))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(data / _FILE)
    directory = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def measures(findings: Iterable[Finding]) -> Mapping[str, Measure]:
    """Return the strictest measure that stands on each slice."""
    found: dict[str, Measure] = {}
    for finding in findings:
        found[finding.slice] = stricter(found.get(finding.slice), finding.measure) or finding.measure
    return found
