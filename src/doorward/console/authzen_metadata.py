"""What a decision point says of itself (AuthZEN 1.0, section 9), plain and signed by its own key.

The identifier is the configured public address. Without one, a caller on loopback is named the
address it used itself, if that is one we listen on: the two must be identical (section 9.2.3).
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from doorward.identity.custody import KeyUse
from doorward.identity.signing_key import SigningKey
from doorward.settings import is_loopback, split_listen

if TYPE_CHECKING:
    from datetime import datetime

    from doorward.console.services import Services

BASE = "/access/v1"
WELL_KNOWN = "/.well-known/authzen-configuration"
KEYS = f"{BASE}/jwks"
ENDPOINTS = {
    "access_evaluation_endpoint": "evaluation",
    "access_evaluations_endpoint": "evaluations",
    "search_subject_endpoint": "search/subject",
    "search_resource_endpoint": "search/resource",
    "search_action_endpoint": "search/action",
}
CAPABILITIES = (
    "urn:doorward:authzen:evaluations-semantics",
    "urn:doorward:authzen:obligations-draft",
    "urn:doorward:authzen:search-paging",
)
# The obligations profile (draft): what we may issue; `custom` carries those the draft does not name.
SUPPORTED_OBLIGATIONS = ("step-up", "notification", "custom")
TYPE = "authzen-metadata+jwt"
LIFETIME = timedelta(days=1)
_RENEW = timedelta(hours=1)


class Metadata:
    """Make the metadata document; signatures are kept for an hour, for the few names we have."""

    def __init__(self, services: Services) -> None:
        """Read settings and clock; the key is made when it is first needed."""
        self._services = services
        self._lock = threading.Lock()
        self._keys: dict[int, SigningKey] = {}
        self._signed: dict[str, tuple[datetime, str]] = {}

    def document(self, authority: str) -> dict[str, Any]:
        """Return the metadata for a caller that used this Host; nothing in it is ever empty."""
        own = self._named(authority)
        claims = _claims(own)
        return {**claims, "signed_metadata": self._statement(own, claims)}

    def keys(self) -> dict[str, Any]:
        """Return the public key that signs metadata (RFC 7517)."""
        custodian, now = self._services.custodian, self._services.clock.now()
        counting = custodian.honoured(KeyUse.PDP_METADATA, overlap=LIFETIME, now=now)
        return {"keys": [self._signing_key(number).public() for number in counting]}

    def _named(self, authority: str) -> str:
        settings = self._services.settings
        host, port = split_listen(settings.control.listen)
        if settings.control.public_url is None and is_loopback(host):
            used = authority.lower()
            if used == f"localhost:{port}":
                return f"{'https' if settings.control.tls else 'http'}://{used}"
        return settings.control_url

    def _statement(self, own: str, claims: dict[str, Any]) -> str:
        now = self._services.clock.now()
        key = self._signing_key()
        with self._lock:
            made, text = self._signed.get(own, (now, ""))
            if text and timedelta() <= now - made < _RENEW:
                return text
        issued = int(now.timestamp())
        said = {**claims, "iss": own, "iat": issued, "exp": issued + int(LIFETIME.total_seconds())}
        text = key.sign(said, typ=TYPE)
        with self._lock:
            self._signed[own] = (now, text)
        return text

    def _signing_key(self, generation: int | None = None) -> SigningKey:
        custodian = self._services.custodian
        number = custodian.generation(KeyUse.PDP_METADATA) if generation is None else generation
        with self._lock:
            key = self._keys.get(number)
            if key is None:
                key = self._keys[number] = SigningKey(custodian.p256(KeyUse.PDP_METADATA, number))
                self._signed.clear()
            return key


def _claims(own: str) -> dict[str, Any]:
    endpoints = {name: f"{own}{BASE}/{path}" for name, path in ENDPOINTS.items()}
    return {
        "policy_decision_point": own,
        **endpoints,
        "jwks_uri": f"{own}{KEYS}",
        "capabilities": list(CAPABILITIES),
        "supported_obligations": list(SUPPORTED_OBLIGATIONS),
    }
