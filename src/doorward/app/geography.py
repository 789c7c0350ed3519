"""The geo file of a gateway: read at the start, and again whenever it changes."""

from __future__ import annotations

import asyncio

import structlog

from doorward.core.errors import InvalidConfigError
from doorward.core.feed import Place
from doorward.directory.geo import GeoMap, Stamp, read, stamp_of
from doorward.settings import Settings

_LOOK_EVERY = 2.0
_log = structlog.get_logger()


class Geography:
    """Hold the newest geo file that could be read."""

    def __init__(self, settings: Settings) -> None:
        """Read the file, if one is configured; raise InvalidConfigError with its line."""
        configured = settings.network.geo
        self._path = None if configured is None else settings.resolve(configured)
        self._seen: Stamp | None = None
        self._map: GeoMap | None = None
        if self._path is not None:
            self._map = read(self._path)
            self._seen = stamp_of(self._path)

    def place_of(self, ip: str) -> Place:
        """Return where the file says an address lies."""
        return Place() if self._map is None else self._map.place_of(ip)

    @property
    def size(self) -> int | None:
        """Return how many networks are known, None without a file."""
        return None if self._map is None else self._map.size

    async def keep_read(self) -> None:
        """Read the file again when it changes, until cancelled; a broken one changes nothing."""
        while self._path is not None:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                if (now := stamp_of(self._path)) == self._seen:
                    continue
                self._seen = now
                self._map = await asyncio.to_thread(read, self._path)
            except (OSError, InvalidConfigError) as reason:
                _log.error("geo_file_not_read", reason=str(getattr(reason, "message", reason)))
            else:
                _log.info("geo_file_read", networks=self._map.size)
