"""Where and with what a credential is used, and what is odd about it: `context.signals`."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec

from doorward.core.locations import Whereabouts


class Signal(StrEnum):
    """Name what may be odd about a credential, or that nobody can tell at the moment."""

    SHARED = "shared-credential"
    TRAVEL = "impossible-travel"
    CLIENT = "client-changed"
    UNKNOWN = "signals-unknown"


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """One use of a credential, by an identifier, never the secret; `client` is a product's name.

    `many`: it may be in several places at once (a service runs on many hosts).
    """

    credential: str
    principal: str
    where: Whereabouts
    client: str
    tls: bool = False
    many: bool = False
    request_id: str = ""


class Seen(msgspec.Struct, frozen=True):
    """A sighting, and when: Unix seconds."""

    sighting: Sighting
    time: float


class Oddity(msgspec.Struct, frozen=True, kw_only=True):
    """What one credential did, and what is odd about it; one episode, which ends at `until`.

    `until` is in monotonic seconds of this machine. `odd` is a sentence for people.
    """

    signal: Signal
    before: Seen
    now: Seen
    odd: str
    until: float

    @property
    def credential(self) -> str:
        """Return which credential it is about."""
        return self.now.sighting.credential


class Lookout(Protocol):
    """Tell what is odd about credentials, whichever gateway saw them. Owner gone: `signals-unknown`."""

    @property
    def changed(self) -> int:
        """Return a number that grows whenever a signal appears or cannot be told any more."""

    async def see(self, sighting: Sighting) -> None:
        """Take note of a use; what it shows is in `signals` once this returned."""

    def signals(self, credential: str) -> frozenset[str]:
        """Return what is odd about a credential now."""
