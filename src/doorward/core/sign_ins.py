"""Sign-ins of people through a client: what its tokens come from, and the refresh token that continues it.

A refresh token is used once. Its text is kept nowhere, only its SHA-256 in hex; used ones are remembered for
as long as the sign-in lives, so that one which turns up again is known to be stolen.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec

from doorward.core.identity import Bounds
from doorward.core.model import EntityUid


class SignIn(msgspec.Struct, frozen=True, kw_only=True):
    """One sign-in: whose, through which client, for which resource servers, how and when she signed in.

    `bounds` is what its tokens may be used for at most, `proof_key` the key its refresh tokens are bound to.
    """

    id: str
    principal: EntityUid
    client: str
    resources: tuple[str, ...]
    signed_in_at: datetime
    acr: str
    amr: tuple[str, ...]
    created: datetime
    expires: datetime
    bounds: Bounds | None = None
    proof_key: str | None = None


class Continued(msgspec.Struct, frozen=True):
    """What a refresh token was found to be: of this sign-in, and `stolen` if it was used before."""

    sign_in: SignIn
    stolen: bool


class SignInRepository(Protocol):
    """Keep sign-ins. Safe to call from several threads."""

    def begin(self, sign_in: SignIn, refresh: str) -> None:
        """Keep a sign-in and the hash of its first refresh token; forget those whose time is over."""

    def find(self, refresh: str, now: datetime) -> SignIn | None:
        """Return the sign-in a refresh token, used or not, belongs to; None if it is over or unknown."""

    def redeem(self, refresh: str, following: str, now: datetime) -> Continued | None:
        """Use a refresh token up and keep the next one, in one atomic step.

        Of any number of callers exactly one is not told `stolen`. None for one that is unknown or over.
        """

    def end(self, sign_in: str) -> None:
        """Forget a sign-in with its refresh tokens; ending it twice is no error."""

    def of(self, principal: EntityUid, now: datetime) -> list[SignIn]:
        """Return a user's sign-ins that are not over, oldest first."""
