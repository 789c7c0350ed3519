"""What clients and the owner say to each other, and what the journal keeps: tagged MessagePack arrays.

A counter's name says its span: `policy|whose|seconds|unit`. A use is (monotonic seconds, amount).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from doorward.core.errors import InvalidRequestError
from doorward.core.sightings import Oddity, Sighting

Use = tuple[float, int]
_LENGTH: Final = struct.Struct("!I")
_LONGEST: Final = 1 << 28


class _Said(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""


class Report(_Said, frozen=True, tag="r"):
    """Account for what was leased: used, used beyond the lease, not used after all, given back.

    `seq` counts one client's reports; one that arrives twice counts once.
    """

    seq: int
    used: dict[str, list[Use]] = {}
    over: dict[str, list[Use]] = {}
    undone: dict[str, list[Use]] = {}
    returned: dict[str, int] = {}


class Hello(_Said, frozen=True, tag="hello"):
    """Begin or resume: besides these reports the client has used nothing and holds nothing but `slots`."""

    session: str
    name: str
    reports: list[Report]
    slots: dict[str, int]


class Wanted(_Said, frozen=True):
    """Ask for `amount` of a counter, and for up to `extra` to use later without asking."""

    counter: str
    seconds: int
    capacity: int
    amount: int
    extra: int


class Acquire(_Said, frozen=True, tag="acquire"):
    """Ask for all of these or none."""

    id: int
    wanted: list[Wanted]


class Claim(_Said, frozen=True, tag="claim"):
    """Ask whether something that works once was used already; times are Unix seconds."""

    id: int
    kind: str
    mark: bytes
    expires: float
    again_within: float


class Enter(_Said, frozen=True, tag="enter"):
    """Ask for one of `most` concurrent places."""

    id: int
    place: str
    most: int


class Leave(_Said, frozen=True, tag="leave"):
    """Give up a place."""

    place: str


class Beat(_Said, frozen=True, tag="beat"):
    """Ask that leases go on counting as ours."""


class Recalled(_Said, frozen=True, tag="recalled"):
    """Say that everything unused of these counters was reported as returned before this."""

    counters: list[str]


class Bye(_Said, frozen=True, tag="bye"):
    """End for good; all was reported."""


class See(_Said, frozen=True, tag="see"):
    """Tell where a credential was used; `id` 0 wants no answer."""

    id: int
    sighting: Sighting


class Still(_Said, frozen=True, tag="still"):
    """Tell a new owner which episodes go on."""

    oddities: list[Oddity]


FromClient = Hello | Report | Acquire | Claim | Enter | Leave | Beat | Recalled | Bye | See | Still


class Welcome(_Said, frozen=True, tag="welcome"):
    """Answer a Hello: reports up to `seq` are kept."""

    seq: int


class Granted(_Said, frozen=True, tag="granted"):
    """Answer an Acquire: the amounts asked for, and these extras; usable before `until`."""

    id: int
    until: float
    extras: list[int]


class Refused(_Said, frozen=True, tag="refused"):
    """Answer an Acquire: the counter at `index` has nothing left for `wait` seconds."""

    id: int
    index: int
    wait: float


class Answered(_Said, frozen=True, tag="answered"):
    """Answer a Claim, an Enter or a See."""

    id: int
    yes: bool


class Failed(_Said, frozen=True, tag="failed"):
    """Say why a question cannot be answered now."""

    id: int
    message: str
    hint: str


class Valid(_Said, frozen=True, tag="valid"):
    """Answer a Beat: leases may be used before `until` (monotonic seconds)."""

    until: float


class Recall(_Said, frozen=True, tag="recall"):
    """Ask for everything unused of these counters: others need it."""

    counters: list[str]


class Acked(_Said, frozen=True, tag="acked"):
    """Say that reports up to `seq` are kept and need not be sent again."""

    seq: int


class Working(_Said, frozen=True, tag="working"):
    """Ask for patience: other clients are asked to give back what this Acquire needs."""

    id: int


class Odd(_Said, frozen=True, tag="odd"):
    """Say what is odd now; `ours` began by what the client it is sent to saw."""

    oddities: list[Oddity]
    ours: bool


class Moved(_Said, frozen=True, tag="moved"):
    """Say at which place another client saw a credential."""

    credential: str
    place: str


FromOwner = Welcome | Granted | Refused | Answered | Failed | Valid | Recall | Acked | Working | Odd | Moved

_encoder = msgspec.msgpack.Encoder()


def framed(message: _Said) -> bytes:
    """Return a message with its length before it (32 bits, network order)."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cut a stream of bytes into message bodies."""

    def __init__(self) -> None:
        """Start with nothing received."""
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies that are whole now; raise InvalidRequestError for one too long to be meant."""
        self._rest += data
        while len(self._rest) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._rest)
            if length > _LONGEST:
                raise InvalidRequestError("a message of this length is never sent")
            end = _LENGTH.size + length
            if len(self._rest) < end:
                return
            body = bytes(self._rest[_LENGTH.size : end])
            del self._rest[:end]
            yield body
