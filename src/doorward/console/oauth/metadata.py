"""What the local issuer can do, as a stock OAuth client learns it (RFC 8414): all of it, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doorward.console import session as sessions
from doorward.console.oauth import clients, token
from doorward.console.oauth.limits import DETAILS_TYPE, SCOPES
from doorward.identity.key_sets import PROOF_ALGORITHMS

if TYPE_CHECKING:
    from doorward.console.services import Services


def authorization_server(services: Services) -> dict[str, Any]:
    """Return the metadata document."""
    issuer, people = services.issuer.issuer, sessions.base_url(services)
    secret = [method for method in clients.METHODS if method != "none"]
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/jwks",
        "token_endpoint": f"{issuer}/oauth/token",
        "token_endpoint_auth_methods_supported": list(clients.METHODS),
        "token_endpoint_auth_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "revocation_endpoint_auth_methods_supported": list(clients.METHODS),
        "revocation_endpoint_auth_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "introspection_endpoint": f"{issuer}/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": secret,
        "introspection_endpoint_auth_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "authorization_endpoint": f"{people}/oauth/authorize",
        "device_authorization_endpoint": f"{issuer}/oauth/device_authorization",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "grant_types_supported": list(token.GRANTS),
        "scopes_supported": list(SCOPES),
        "authorization_details_types_supported": [DETAILS_TYPE],
        "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "protected_resources": [services.issuer.audience, issuer],
    }
