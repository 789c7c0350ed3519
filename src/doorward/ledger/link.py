"""A client's connection to the owner: bytes to messages, and whose process it is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final

import msgspec

from doorward import peer
from doorward.core.errors import UnavailableError
from doorward.ledger import messages as said
from doorward.ledger.messages import Frames

_MOST_UNSENT: Final = 4 << 20
_decoder = msgspec.msgpack.Decoder(said.FromOwner)


class Link(asyncio.Protocol):
    """The connection to the owner, which must run under our own uid."""

    def __init__(self, heard: Callable[[said.FromOwner], None], lost: asyncio.Future[None]) -> None:
        """Tell `heard` every message; `lost` fails when the connection ends."""
        self._heard, self._lost = heard, lost
        self._frames = Frames()
        self._transport: Any = None

    @property
    def clogged(self) -> bool:
        """Return whether the owner does not take what it is sent."""
        return self._transport is None or self._transport.get_write_buffer_size() > _MOST_UNSENT

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse an owner of another account."""
        self._transport = transport
        uid = peer.uid_of(transport.get_extra_info("socket"))
        if uid != os.geteuid():
            self._fail(UnavailableError(f"the counters are kept by uid {uid}, not by our own"))

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        try:
            for body in self._frames.feed(data):
                self._heard(_decoder.decode(body))
        except Exception as error:  # noqa: BLE001 -- whatever is wrong, begin anew with a whole account
            self._fail(UnavailableError(f"the counters' owner cannot be understood: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self._transport = None
        if not self._lost.done():
            self._lost.set_exception(exc or ConnectionResetError("the owner of the counters is gone"))

    def send(self, data: bytes) -> None:
        """Send, if there is a connection."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """End after what was sent."""
        if self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_exception(error)
        self.drop()
