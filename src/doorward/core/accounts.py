"""Who may open the console: one-time links, passkeys, sessions, and the port that keeps them.

Secrets (link tokens, session cookies) are kept only as their SHA-256 in hex.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from doorward.core.model import EntityUid


class LinkKind(StrEnum):
    """Say what a one-time link opens."""

    ENROL = "enrol"
    SESSION = "session"


class OneTimeLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link that works once, before `expires`; `operator` is who asked for it.

    `principal` is whose passkey or authenticator app it enrols (None: the first admin's).
    """

    hash: str
    kind: LinkKind
    operator: str
    created: datetime
    expires: datetime
    principal: EntityUid | None = None


class Passkey(msgspec.Struct, frozen=True, kw_only=True):
    """A WebAuthn credential of one user; `public_key` is COSE."""

    credential_id: bytes
    principal: EntityUid
    public_key: bytes
    sign_count: int
    created: datetime


class ConsoleSession(msgspec.Struct, frozen=True, kw_only=True):
    """One sign-in: `principal` is the user, None for an operator's link (`method` = `link`).

    `mfa_at` is when MFA was shown. `zone` and `browser` (a digest) are where it was opened: from
    anywhere else it counts no more.
    """

    hash: str
    principal: EntityUid | None
    operator: str
    method: str
    created: datetime
    last_seen: datetime
    expires: datetime
    mfa_at: datetime | None = None
    zone: str = ""
    browser: str = ""


class Authenticator(msgspec.Struct, frozen=True, kw_only=True):
    """A user's authenticator app (RFC 6238): `sealed` is its secret, encrypted under the custodian's key.

    `last_step` is the newest time step used; a step is used once. After failures it is `locked` for a while.
    """

    principal: EntityUid
    sealed: bytes
    generation: int
    created: datetime
    last_step: int = 0
    failures: int = 0
    locked: datetime | None = None


class AccountRepository(Protocol):
    """Keep links, passkeys and sessions. Safe to call from several threads."""

    def create_link(self, link: OneTimeLink) -> None:
        """Store a link; earlier unused links of the same kind stop working."""

    def link(self, digest: str, now: datetime) -> OneTimeLink | None:
        """Return an unused, unexpired link without using it."""

    def redeem_link(self, digest: str, now: datetime) -> OneTimeLink | None:
        """Use up a link in one atomic step: of any number of callers exactly one gets it."""

    def add_passkey(self, passkey: Passkey) -> None:
        """Store a passkey; raise ConflictError if its credential id is known."""

    def list_passkeys(self, principal: EntityUid | None = None) -> list[Passkey]:
        """Return the passkeys of one user, or all."""

    def update_sign_count(self, credential_id: bytes, sign_count: int) -> None:
        """Keep the authenticator's counter after a sign-in."""

    def create_session(self, session: ConsoleSession) -> None:
        """Store a session."""

    def session(self, digest: str) -> ConsoleSession | None:
        """Return a session that was not ended, whether or not its time is over."""

    def touch_session(self, digest: str, now: datetime) -> None:
        """Keep when the session was last used."""

    def end_session(self, digest: str) -> None:
        """Forget a session at once; ending it twice is no error."""

    def sessions(self, now: datetime, principal: EntityUid | None = None) -> list[ConsoleSession]:
        """Return the sessions that are not over, of one user or all, oldest first."""

    def holders(self) -> frozenset[EntityUid]:
        """Return the users who have a factor to sign in with."""

    def remove_passkey(self, credential_id: bytes, principal: EntityUid) -> bool:
        """Forget one passkey of a user; return whether there was one."""

    def set_authenticator(self, authenticator: Authenticator) -> None:
        """Keep a user's authenticator app, in place of an earlier one."""

    def authenticator(self, principal: EntityUid) -> Authenticator | None:
        """Return a user's authenticator app."""

    def use_step(self, principal: EntityUid, step: int) -> bool:
        """Use up a time step in one atomic act: False if it, or a later one, was used before."""

    def begin_try(
        self, principal: EntityUid, now: datetime, locked_after: Callable[[int], datetime | None]
    ) -> Authenticator | None:
        """Count a try before it is judged, in one atomic act; return the app as it was found.

        `locked_after(tries)` is until when that many in a row lock it. A locked app counts no try.
        """

    def end_tries(self, principal: EntityUid) -> None:
        """Forget the tries of a user who showed a right code."""

    def remove_authenticator(self, principal: EntityUid) -> bool:
        """Forget a user's authenticator app; return whether there was one."""

    def set_recovery_codes(self, principal: EntityUid, digests: Sequence[str], now: datetime) -> None:
        """Keep these recovery codes of a user (SHA-256, hex), and no others."""

    def use_recovery_code(self, principal: EntityUid, digest: str) -> bool:
        """Use a code up: of any number of callers exactly one gets True."""

    def recovery_codes(self, principal: EntityUid) -> int:
        """Return how many codes a user has left."""
