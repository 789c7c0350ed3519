"""Who asks: what a verified credential says, and what the registry holds to verify it against."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from doorward.core.model import EntityUid


class Method(StrEnum):
    """Say how a caller showed who it is; also `context.session.method`."""

    API_KEY = "api-key"
    SIGNATURE = "s3-signature"
    TOKEN = "token"  # noqa: S105 -- a word, no secret
    CERTIFICATE = "certificate"


class Caller(msgspec.Struct, frozen=True):
    """State who a request comes from, after verification; times are wall clock, in UTC.

    `device` is proven only by possession on this request. `bound_purpose` cannot be overridden.
    `credential` is an identifier for records (key id, `jti`), never the secret.
    `expires` is when the credential ends; an open stream ends with it.
    `issuer` and `subject` are a token's own words; `certificate` is the fingerprint that proved the device.
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


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Describe an API key; the key itself is stored nowhere, only its SHA-256 (hex).

    `s3_secret` exists in memory only (derived from the master), never in the database.
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


class IdentityLink(msgspec.Struct, frozen=True):
    """Link (issuer, subject) of an identity provider to a principal, explicitly."""

    issuer: str
    subject: str
    principal: EntityUid


class DeviceCertificate(msgspec.Struct, frozen=True):
    """Bind a client certificate (SHA-256 of its DER, hex) to a device until `expires`."""

    fingerprint: str
    device: EntityUid
    expires: datetime
