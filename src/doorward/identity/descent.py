"""Whether everything a token was made from still stands: any ancestor that is gone ends all that came of it.

Asked on every request and, for open answers, on every change: from what is known here, without a call.
"""

from __future__ import annotations

from datetime import datetime

from doorward.core.identity import Bounds, Descent, KeyRecord
from doorward.core.ports import CredentialRegistry
from doorward.identity import api_keys


def fault_of(descent: Descent, registry: CredentialRegistry, *, now: datetime, ip: str | None) -> str | None:
    """Return what no longer stands (for the record), or None.

    `ip` is where the request comes from, None for an answer that is already open.
    """
    # 1. No token above it, and no sign-in, was revoked.
    if any(registry.token_revoked(token) for token in descent.tokens):
        return "ancestor_revoked"
    # 2. Every key it was made with is there, has not ended, and may be used from there.
    for key_id in descent.keys:
        record = registry.key_by_id(key_id)
        if record is None:
            return "ancestor_key_revoked"
        if (fault := _fault_of_key(record, registry, now=now, ip=ip)) is not None:
            return f"ancestor_{fault}"
    # 3. Every agent in the chain is active, and was not signed out since it began to act.
    for act in descent.acts:
        if not registry.is_active(act.actor):
            return "actor_inactive"
        out = registry.sign_out_of(act.actor)
        if out is not None and out.ends(act.since):
            return "actor_signed_out"
    return None


def bounds_of(descent: Descent, registry: CredentialRegistry) -> tuple[Bounds, ...]:
    """Return the bounds of the keys a token was made with, as they are now."""
    records = (registry.key_by_id(key_id) for key_id in descent.keys)
    return tuple(record.bounds for record in records if record is not None and record.bounds is not None)


def unlinked(descent: Descent, registry: CredentialRegistry, principal: object) -> bool:
    """Return whether an identity a token came from is no longer the principal's."""
    return any(registry.principal_of(*identity) != principal for identity in descent.identities)


def _fault_of_key(
    record: KeyRecord, registry: CredentialRegistry, *, now: datetime, ip: str | None
) -> str | None:
    if ip is not None:
        return api_keys.fault_of(record, ip=ip, now=now, registry=registry)
    ended = record.expires is not None and now >= record.expires
    return "key_expired" if ended else None
