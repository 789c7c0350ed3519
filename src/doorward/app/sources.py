"""Beside the control role: what sources outside said grows old, and directories are followed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from doorward.app.follower import Follower
from doorward.core.errors import DoorwardError
from doorward.core.provisioning import Vouched

if TYPE_CHECKING:
    from doorward.console.services import Services
    from doorward.directory.administration import Directory

_LOOK_EVERY = 1.0
# What a source said that no setting names any more still ends.
_UNNAMED_MAX_AGE = 86_400.0
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


def followers(services: Services) -> list[Follower]:
    """Make a follower for each configured directory, and let those that are not configured grow old."""
    kept = services.directory.kept_sources
    made = [Follower(services, section, kept) for section in services.settings.directory_source]
    named = {follower.state.name for follower in made}
    for name, state in kept.load().items():
        if name not in named and state.seen is not None:
            _log.warning("directory_source_unnamed", source=name, max_age=_UNNAMED_MAX_AGE)
            services.directory.vouch(name, Vouched(state.seen, _UNNAMED_MAX_AGE))
    services.followed.update({follower.state.name: follower for follower in made})
    return made
