"""Who may open the console: one-time links, passkeys, sessions, and the port that keeps them.

Secrets (link tokens, session cookies) are kept only as their SHA-256 in hex.
"""

from __future__ import annotations

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
    """A link that works once, before `expires`; `operator` is who asked for it."""

    hash: str
    kind: LinkKind
    operator: str
    created: datetime
    expires: datetime


class Passkey(msgspec.Struct, frozen=True, kw_only=True):
    """A WebAuthn credential of one user; `public_key` is COSE."""

    credential_id: bytes
    principal: EntityUid
    public_key: bytes
    sign_count: int
    created: datetime


class ConsoleSession(msgspec.Struct, frozen=True, kw_only=True):
    """One sign-in: `principal` for a passkey, None for an operator's link (`method` = `link`)."""

    hash: str
    principal: EntityUid | None
    operator: str
    method: str
    created: datetime
    last_seen: datetime
    expires: datetime


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
