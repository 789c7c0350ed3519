"""What a decision point says of itself (AuthZEN 1.0, section 9), plain and signed by its own key.

The identifier is the configured public address. Without one, a caller on loopback is named the
address it used itself, if that is one we listen on: the two must be identical (section 9.2.3).
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from doorward.identity.custody import KeyUse
from doorward.identity.signing_key import SigningKeys
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
        self._keys = SigningKeys(services.custodian, KeyUse.PDP_METADATA)
        self._signed: dict[str, tuple[datetime, str, str]] = {}

    def document(self, authority: str) -> dict[str, Any]:
        """Return the metadata for a caller that used this Host; nothing in it is ever empty."""
        own = self._named(authority)
        claims = _claims(own)
        return {**claims, "signed_metadata": self._statement(own, claims)}

    def keys(self) -> dict[str, Any]:
        """Return the public key that signs metadata (RFC 7517)."""
        return {"keys": self._keys.public(overlap=LIFETIME, now=self._services.clock.now())}

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
        with self._lock:
            key = self._keys.newest()
            made, kid, text = self._signed.get(own, (now, "", ""))
            if kid == key.kid and timedelta() <= now - made < _RENEW:
                return text
        issued = int(now.timestamp())
        said = {**claims, "iss": own, "iat": issued, "exp": issued + int(LIFETIME.total_seconds())}
        text = key.sign(said, typ=TYPE)
        with self._lock:
            self._signed[own] = (now, key.kid, text)
        return text


def _claims(own: str) -> dict[str, Any]:
    endpoints = {name: f"{own}{BASE}/{path}" for name, path in ENDPOINTS.items()}
    return {
        "policy_decision_point": own,
        **endpoints,
        "jwks_uri": f"{own}{KEYS}",
        "capabilities": list(CAPABILITIES),
        "supported_obligations": list(SUPPORTED_OBLIGATIONS),
    }
