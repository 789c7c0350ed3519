"""What the control process tells gateways: one snapshot, then deltas in order, over a Unix socket.

Entities travel as Cedar JSON (see `core.values`). A gap in `version` means: connect again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from doorward.core.identity import DeviceCertificate, IdentityLink, KeyRecord, SignOut


class PolicyText(msgspec.Struct, frozen=True):
    """One admitted policy: its `@id`, Cedar text, and where it stands (`file:line`).

    `tree` is the same policy as Cedar JSON: what decision points load, so that they never parse text.
    """

    id: str
    text: str
    place: str = ""
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    effect: str = "permit"
    tree: dict[str, Any] = msgspec.field(default_factory=dict)


class Bundle(msgspec.Struct, frozen=True):
    """An immutable, content-addressed set of policies, guardrails and schema.

    `digest` is `sha256:<hex>` of the canonical JSON of the other fields.
    """

    digest: str
    schema: str
    policies: tuple[PolicyText, ...]
    guardrails: tuple[PolicyText, ...] = ()


class Place(msgspec.Struct, frozen=True):
    """Where on earth a zone lies: ISO 3166 country, degrees north and east; what is not known is None."""

    country: str | None = None
    latitude: float | None = None
    longitude: float | None = None


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a gateway needs to authenticate and decide, at one version.

    `zones` maps a zone name to CIDRs, `places` to where it lies.
    `issuer_jwks` holds the local issuer's public keys.
    `lowered` names assets whose owner, on record, allowed less sensitivity than the parent's.
    """

    version: int
    entities: tuple[dict[str, Any], ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    identities: tuple[IdentityLink, ...] = ()
    certificates: tuple[DeviceCertificate, ...] = ()
    zones: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    places: dict[str, Place] = msgspec.field(default_factory=dict)
    revoked_tokens: tuple[str, ...] = ()
    issuer_jwks: dict[str, Any] = msgspec.field(default_factory=dict)
    lowered: tuple[str, ...] = ()
    sign_outs: tuple[SignOut, ...] = ()


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """Change `Known` from `version - 1` to `version`; removals name uids, key ids, fingerprints."""

    version: int
    entities: tuple[dict[str, Any], ...] = ()
    entities_removed: tuple[dict[str, str], ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    keys_removed: tuple[str, ...] = ()
    identities: tuple[IdentityLink, ...] = ()
    identities_removed: tuple[tuple[str, str], ...] = ()
    certificates: tuple[DeviceCertificate, ...] = ()
    certificates_removed: tuple[str, ...] = ()
    tokens_revoked: tuple[str, ...] = ()
    zones: dict[str, tuple[str, ...]] | None = None
    places: dict[str, Place] = msgspec.field(default_factory=dict)
    lowered: tuple[str, ...] | None = None
    sign_outs: tuple[SignOut, ...] = ()


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the feed: exactly one field is set; an empty message is a heartbeat."""

    known: Known | None = None
    delta: Delta | None = None
    bundle: Bundle | None = None
    bundle_error: str | None = None
