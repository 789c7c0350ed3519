"""Faults: an upstream that cannot be reached, and how a fault of our own stands in the log."""

from __future__ import annotations

import traceback
from pathlib import Path

from doorward.core.errors import UnavailableError


class UnreachableError(UnavailableError):
    """No connection to the upstream could be made: nothing was sent (HTTP 502)."""

    code = "upstream_unavailable"


def origin_of(error: BaseException) -> str:
    """Return `Kind at file:line` of the innermost frame; messages may quote requests, so they stay out."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
