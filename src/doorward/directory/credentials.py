"""What a snapshot knows of credentials: keys, identities, certificates, revocations, sign-outs."""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import TYPE_CHECKING

from doorward.core.identity import DeviceCertificate, KeyRecord, SignOut
from doorward.core.model import EntityUid

if TYPE_CHECKING:
    from doorward.directory.key_table import KeyTable
    from doorward.directory.shards import Shards


class Credentials:
    """The look-ups of port `CredentialRegistry` that need only their own tables."""

    __slots__ = ()
    _keys: KeyTable
    _identities: Shards[tuple[str, str], EntityUid]
    _certificates: Shards[str, DeviceCertificate]
    _sign_outs: Shards[EntityUid, SignOut]
    _revoked: frozenset[str]

    def key_by_hash(self, digest: str) -> KeyRecord | None:
        """Return the unrevoked key with this SHA-256 (hex), in constant time; its expiry is not judged."""
        key = self._keys.by_hash.get(digest)
        return key if key is not None and hmac.compare_digest(key.hash, digest) else None

    def key_by_access_key_id(self, access_key_id: str) -> KeyRecord | None:
        """Return the unrevoked key with this S3 access key id; its expiry is not judged."""
        return self._keys.by_access_key_id.get(access_key_id)

    def key_by_id(self, key_id: str) -> KeyRecord | None:
        """Return the unrevoked key with this id; its expiry is not judged."""
        return self._keys.by_id.get(key_id)

    def principal_of(self, issuer: str, subject: str) -> EntityUid | None:
        """Return the principal explicitly linked to (issuer, subject)."""
        return self._identities.get((issuer, subject))

    def device_of_certificate(self, fingerprint: str, now: datetime) -> EntityUid | None:
        """Return the active device a certificate (SHA-256 of DER, hex) is bound to and not past `now`."""
        certificate = self._certificates.get(fingerprint)
        if certificate is None or now >= certificate.expires or not self.is_active(certificate.device):
            return None
        return certificate.device

    def sign_out_of(self, principal: EntityUid) -> SignOut | None:
        """Return what ended the principal's earlier sign-ins, if anything did."""
        return self._sign_outs.get(principal)

    def token_revoked(self, jti: str) -> bool:
        """Return whether a token of the local issuer was revoked."""
        return jti in self._revoked

    def is_active(self, principal: EntityUid) -> bool:
        """Return whether the principal is known and active; the snapshot knows."""
        raise NotImplementedError
