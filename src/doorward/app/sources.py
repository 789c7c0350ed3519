"""Beside the control role: what sources outside said grows old, and followed directories are followed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from doorward.core.errors import DoorwardError

if TYPE_CHECKING:
    from doorward.directory.administration import Directory

_LOOK_EVERY = 1.0
_log = structlog.get_logger()


async def keep_aging(directory: Directory) -> None:
    """Let what nobody renews lose its worth, within a second of its time; runs until cancelled."""
    while True:
        try:
            changed = await asyncio.to_thread(directory.age)
        except DoorwardError as error:  # a disk that is full now may have space again
            _log.warning("aging_failed", error=error.message)
        else:
            if changed:
                _log.warning("statements_aged", entities=changed)
        await asyncio.sleep(_LOOK_EVERY)
