"""Who asks: what a verified credential says, and what the registry holds to verify it against."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from doorward.core.model import Action, EntityUid


class Method(StrEnum):
    """Say how a caller showed who it is; also `context.session.method`."""

    API_KEY = "api-key"
    SIGNATURE = "s3-signature"
    TOKEN = "token"  # noqa: S105 -- a word, no secret
    CERTIFICATE = "certificate"
    SVID = "svid"


class Bounds(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bound what a credential may be used for, below what its principal may; an empty one bounds nothing.

    `actions` are names of actions, `upstreams` names of upstreams, `resources` uids that cover what
    lies under them by path segment. `max_tokens` is the most a call of a model may ask for; `arguments`
    are what a call of a tool must say, flattened: `path.0` -> text.
    """

    actions: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    resources: tuple[EntityUid, ...] = ()
    max_tokens: int | None = None
    arguments: tuple[tuple[str, str], ...] = ()

    def permits(self, action: str, resource: EntityUid) -> bool:
        """Return whether one action on one resource lies within."""
        return (
            (not self.actions or action in self.actions)
            and (not self.upstreams or resource.id.partition("/")[0] in self.upstreams)
            and (not self.resources or any(_covers(above, resource) for above in self.resources))
        )

    def holds_to(self, action: str, *, max_tokens: int | None, arguments: Mapping[str, str] | None) -> bool:
        """Return whether a request keeps the limits on what it says; one that does not say it does not."""
        if self.max_tokens is not None and action == Action.INVOKE:
            return max_tokens is not None and max_tokens <= self.max_tokens
        if self.arguments and action == Action.CALL:
            said = arguments or {}
            return all(said.get(name) == value for name, value in self.arguments)
        return True


def _covers(above: EntityUid, resource: EntityUid) -> bool:
    same = above.type == resource.type
    return same and (above.id == resource.id or resource.id.startswith(f"{above.id}/"))


class Act(msgspec.Struct, frozen=True):
    """State that an agent acts for whoever a token stands for, and from when until when at most."""

    actor: EntityUid
    since: datetime
    until: datetime


class Descent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Name what a token of the local issuer was made from: it counts only while all of it stands.

    `tokens` are ids of tokens and of the sign-in above it, `keys` ids of keys, `identities` the (issuer,
    subject) behind tokens of others, `acts` the agents, the one that acts now first (RFC 8693, 4.1).
    """

    tokens: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    identities: tuple[tuple[str, str], ...] = ()
    acts: tuple[Act, ...] = ()


class Caller(msgspec.Struct, frozen=True):
    """State who a request comes from, after verification; times are wall clock, in UTC.

    `device` is proven only by possession on this request. `bound_purpose` cannot be overridden.
    `credential` is an identifier for records (key id, `jti`), never the secret.
    `expires` is when the credential ends; an open stream ends with it.
    `issuer` and `subject` are a token's own words; `certificate` is the fingerprint that proved the device.
    `bounds` are the credential's own, an upper bound of whatever policies allow.
    `shown_by` says what a bound token was shown with: `dpop`, `certificate`, or nothing.
    `vouched_by` and `vouched_at` say who stated acr, mfa_at and signed_in_at, and when;
    from `vouched_until` on they count as unknown. Of an `introspected` token its issuer is asked again.
    `actors` are the agents that act for the principal, the one that acts now first; `descent` is what
    the credential was made from.
    A `tied` one may be used from certain networks or by one device only.
    """

    principal: EntityUid
    credential: str
    method: str
    device: EntityUid | None = None
    device_proven: bool = False
    bound_purpose: str | None = None
    actors: tuple[EntityUid, ...] = ()
    acr: str = ""
    signed_in_at: datetime | None = None
    mfa_at: datetime | None = None
    minted: bool = False
    expires: datetime | None = None
    issuer: str = ""
    subject: str = ""
    certificate: str | None = None
    bounds: tuple[Bounds, ...] = ()
    shown_by: str = ""
    vouched_by: str = ""
    vouched_at: datetime | None = None
    vouched_until: datetime | None = None
    introspected: bool = False
    descent: Descent | None = None
    tied: bool = False

    def as_vouched(self, now: datetime) -> Caller:
        """Return the caller with what is known of the sign-in now: past its time, nothing is."""
        if self.vouched_until is None or now < self.vouched_until:
            return self
        return msgspec.structs.replace(self, acr="", mfa_at=None, signed_in_at=None)


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Describe an API key; the key itself is stored nowhere, only its SHA-256 (hex).

    `bounds` is what the key may be used for at most. `successor` is the id of the key that replaces it.
    `s3_secret` exists in memory only (derived from the master), never in the database.
    `public_key` (a JWK) makes it the key of a client that signs assertions: nothing else opens with it,
    and `hash` is that of its thumbprint.
    """

    id: str
    hash: str
    subject: EntityUid
    created: datetime
    expires: datetime | None = None
    device: EntityUid | None = None
    purpose: str | None = None
    networks: tuple[str, ...] = ()
    access_key_id: str = ""
    generation: int = 1
    s3_secret: str | None = None
    bounds: Bounds | None = None
    successor: str = ""
    public_key: dict[str, str] | None = None


class IdentityLink(msgspec.Struct, frozen=True):
    """Link (issuer, subject) of an identity provider to a principal, explicitly."""

    issuer: str
    subject: str
    principal: EntityUid


class SignOut(msgspec.Struct, frozen=True):
    """State that what a principal signed in with before a moment counts no more.

    `before` ends tokens and console sessions; `mfa_before` ends only the MFA shown in them. API keys and
    certificates are no sign-ins: they are revoked singly.
    """

    principal: EntityUid
    before: datetime | None = None
    mfa_before: datetime | None = None

    def joined(self, other: SignOut | None) -> SignOut:
        """Return both together: of two moments the later one."""
        if other is None:
            return self
        return SignOut(
            self.principal,
            _later(self.before, other.before),
            _later(self.mfa_before, other.mfa_before),
        )

    def ends(self, signed_in: datetime) -> bool:
        """Return whether a sign-in of that moment counts no more."""
        return self.before is not None and signed_in <= self.before

    def ends_mfa(self, shown: datetime) -> bool:
        """Return whether MFA shown at that moment counts no more."""
        return self.ends(shown) or (self.mfa_before is not None and shown <= self.mfa_before)


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    given = [moment for moment in (one, other) if moment is not None]
    return max(given, default=None)


class DeviceCertificate(msgspec.Struct, frozen=True):
    """Bind a client certificate (SHA-256 of its DER, hex) to a device until `expires`."""

    fingerprint: str
    device: EntityUid
    expires: datetime
