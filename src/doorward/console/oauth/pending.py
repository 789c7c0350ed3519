"""What waits for somebody: consent, a code to be redeemed, a device to be approved. Bounded, short-lived.

Kept in the memory of the one control process: a restart forgets all of it, and who waited starts again.
Found by the SHA-256 of what was given out; taken out by whoever comes first.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Generic, TypeVar

from doorward.console.oauth.refusal import OAuthError

if TYPE_CHECKING:
    from datetime import datetime

    from doorward.core.clock import Clock
    from doorward.core.identity import Bounds
    from doorward.core.model import EntityUid

T = TypeVar("T")
CODE_SECONDS = 60.0
CONSENT_SECONDS = 600.0
DEVICE_SECONDS = 600.0
INTERVAL = 5
_MOST = 2000
_SECRET_BYTES = 32


class Waiting(Generic[T]):
    """Things that wait under a secret until they are taken or their time is over."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        """Let each wait so long."""
        self._clock, self._seconds = clock, seconds
        self._held: dict[bytes, tuple[float, T]] = {}

    def put(self, value: T, secret: str | None = None) -> str:
        """Keep a value and return the secret it is found under; raise OAuthError if too many wait."""
        now = self._clock.monotonic()
        if len(self._held) >= _MOST:
            self._held = {key: held for key, held in self._held.items() if held[0] > now}
        if len(self._held) >= _MOST:
            busy = HTTPStatus.SERVICE_UNAVAILABLE
            raise OAuthError("temporarily_unavailable", "too many sign-ins are under way", status=busy)
        secret = secret or secrets.token_urlsafe(_SECRET_BYTES)
        self._held[_mark(secret)] = (now + self._seconds, value)
        return secret

    def get(self, secret: str) -> T | None:
        """Return what waits under a secret."""
        found = self._held.get(_mark(secret))
        return None if found is None or found[0] <= self._clock.monotonic() else found[1]

    def take(self, secret: str) -> T | None:
        """Return what waits under a secret and let go of it: of any number of callers one gets it."""
        found = self._held.pop(_mark(secret), None)
        return None if found is None or found[0] <= self._clock.monotonic() else found[1]


def _mark(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a client asks a person for: where it may act for her, and for how much at most."""

    client: str
    resources: tuple[str, ...]
    bounds: Bounds | None = None
    scope: str = ""
    redirect_uri: str = ""
    state: str | None = None
    challenge: str = ""
    proof_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who agreed, and how she had signed in."""

    principal: EntityUid
    signed_in_at: datetime
    acr: str
    amr: tuple[str, ...]


@dataclass(slots=True)
class Code:
    """An authorization code: what was agreed to by whom; once used, the sign-in that came of it."""

    asked: Asked
    person: Person
    used: bool = False
    reused: bool = False
    sign_in: str = ""


@dataclass(slots=True)
class Device:
    """A device that waits: its code for people, where it asked from, and what was said."""

    asked: Asked
    user_code: str
    asked_from: str
    asked_at: datetime
    interval: int = INTERVAL
    polled: float = field(default=float("-inf"))
    person: Person | None = None
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Consent:
    """A question on a page of one session; `device` is the device's secret, if one asked."""

    asked: Asked
    session: str
    device: Device | None = None
