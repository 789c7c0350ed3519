"""What the journal keeps: each change of the book as it happened, or its whole state at once."""

from __future__ import annotations

import msgspec

from doorward.ledger.messages import Report, Use


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """Base of all entries. Counters carry their span in seconds where they may be new to the book."""


class Anchor(_Kept, frozen=True, tag="anchor"):
    """Tie the monotonic clock of one boot to the wall clock (Unix seconds)."""

    boot: str
    monotonic: float
    wall: float


class Leased(_Kept, frozen=True, tag="lease"):
    """Note amounts handed to a session: (counter, seconds, amount)."""

    session: str
    parts: tuple[tuple[str, int, int], ...]


class Extended(_Kept, frozen=True, tag="until"):
    """Note until when a session may use what it holds (monotonic seconds)."""

    session: str
    until: float


class Reported(_Kept, frozen=True, tag="report"):
    """Note what a session said of its leases."""

    session: str
    report: Report


class Resumed(_Kept, frozen=True, tag="resume"):
    """Note that a session holds nothing any more, except these places."""

    session: str
    slots: dict[str, int]


class Parted(_Kept, frozen=True, tag="part"):
    """Note that a session's connection ended: what it held counts as used at `until`, its leases' end."""

    session: str
    at: float
    until: float


class Ended(_Kept, frozen=True, tag="end"):
    """Note that a session ended in order and holds nothing."""

    session: str


class Claimed(_Kept, frozen=True, tag="claim"):
    """Note that something that works once was used (Unix seconds)."""

    kind: str
    mark: bytes
    expires: float
    at: float


class Placed(_Kept, frozen=True, tag="place"):
    """Note that a session took (1) or left (-1) a concurrent place."""

    session: str
    place: str
    change: int


class Counted(_Kept, frozen=True, tag="counter"):
    """State everything that counts in one window."""

    counter: str
    seconds: int
    uses: list[Use]


class Held(_Kept, frozen=True, tag="session"):
    """State everything about one session."""

    session: str
    until: float
    seq: int
    parted: float | None
    parts: tuple[tuple[str, int, int], ...]
    slots: dict[str, int]


Entry = Anchor | Leased | Extended | Reported | Resumed | Parted | Ended | Claimed | Placed | Counted | Held
