"""Ports between rooms on one line: what a room needs of its neighbours, plugged by `app`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from doorward.core.identity import KeyRecord, SignOut
from doorward.core.model import EntityUid
from doorward.core.obligation import Budget, Limit
from doorward.core.record import Record


class CredentialRegistry(Protocol):
    """Look up what a credential must match; on a miss, answer None (the caller is refused)."""

    def key_by_hash(self, digest: str) -> KeyRecord | None:
        """Return the live key with this SHA-256 (hex)."""

    def key_by_access_key_id(self, access_key_id: str) -> KeyRecord | None:
        """Return the live key with this S3 access key id."""

    def key_by_id(self, key_id: str) -> KeyRecord | None:
        """Return the live key with this id."""

    def principal_of(self, issuer: str, subject: str) -> EntityUid | None:
        """Return the principal explicitly linked to (issuer, subject)."""

    def device_of_certificate(self, fingerprint: str, now: datetime) -> EntityUid | None:
        """Return the device an unrevoked, unexpired certificate (SHA-256 of DER, hex) is bound to."""

    def token_revoked(self, jti: str) -> bool:
        """Return whether a token of the local issuer was revoked."""

    def sign_out_of(self, principal: EntityUid) -> SignOut | None:
        """Return what ended the principal's earlier sign-ins, if anything did."""

    def is_active(self, principal: EntityUid) -> bool:
        """Return whether the principal is known and active."""


class Arrivals(Protocol):
    """Tell the directory what an issuer says of somebody who came in, where the settings map or provision."""

    async def announce(self, token: str) -> None:
        """Return once it shows here; raise ConflictError if refused, UnavailableError if unknown in time."""


class AuditLog(Protocol):
    """Make records durable. On failure or past the deadline: raise AuditUnavailableError."""

    async def write(self, record: Record) -> None:
        """Return once the record is on disk (group commit)."""

    def write_soon(self, record: Record) -> None:
        """Queue a record whose durability nobody waits for (outcomes)."""


class Reservation(Protocol):
    """Hold what a request reserved until it is known whether it happened."""

    async def release(self) -> None:
        """Give it back: the request never reached the upstream."""

    async def settle(self, used: int) -> None:
        """Keep it, corrected to what was really used (budgets)."""


class LimitExceeded(Exception):  # noqa: N818 -- a verdict, not a fault
    """Say which obligation is exhausted and when to come back."""

    def __init__(self, obligation: Limit | Budget, retry_after: float) -> None:
        """Keep the obligation and the seconds to wait."""
        super().__init__(f"limit of policy {obligation.policy} reached")
        self.obligation = obligation
        self.retry_after = retry_after


class LimitStore(Protocol):
    """Count sliding windows exactly. Owner gone: raise UnavailableError (the request is 503)."""

    async def reserve(self, keys: tuple[tuple[str, Limit | Budget], ...], *, amount: int = 1) -> Reservation:
        """Reserve for every (counter key, obligation), all or none; raise LimitExceeded.

        A limit is used once. A budget is reserved `amount` of its unit: the most the request can use, if
        it must never be exceeded; `settle` corrects it.
        """


class Places(Protocol):
    """Bound what goes on at the same time. Owner gone: raise UnavailableError."""

    async def enter(self, place: str, *, most: int) -> Callable[[], None] | None:
        """Take one of `most` places of this name; return what gives it up, None if all are taken.

        A process that ends gives up all of its own.
        """


class OneTimeStore(Protocol):
    """Let each thing be used once in the whole installation, whichever process sees it.

    A proof's `jti`, a TOTP code, an enrolment link, a signed write. Owner gone, or no room to
    remember: raise UnavailableError (the request is 503); never answer without knowing.
    """

    async def claim(self, kind: str, key: str, *, expires: float, again_within: float = 0.0) -> bool:
        """Return whether this is the first claim of (kind, key); once it returned, the claim is on disk.

        `expires` (Unix seconds) is when the thing cannot be used any more: until then it is remembered,
        afterwards no claim succeeds. A repeated claim within `again_within` seconds of the first succeeds,
        too. `kind` is a short fixed word; `key` may be secret: only a hash of it leaves the process.
        """
