"""Protected resource metadata (RFC 9728): where an OAuth client learns who issues tokens for this gateway.

This is the one path of the data port that is answered without a credential; it says nothing that the
configuration does not make public, and the same to everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from doorward.core.wire import Answer, Request

PATH = "/.well-known/oauth-protected-resource"
_SCHEMES = ("Bearer ", "DPoP ")


class ProtectedResources:
    """Describe the gateway and each upstream behind it as OAuth resources."""

    def __init__(
        self,
        url: str,
        *,
        upstreams: Iterable[str],
        authorization_servers: Sequence[str],
        proof_algorithms: Sequence[str],
        client_certificates: bool,
    ) -> None:
        """Take the gateway's own URL, without a path."""
        self._url, self._upstreams = url, frozenset(upstreams)
        self._shared: dict[str, Any] = {
            "authorization_servers": list(authorization_servers),
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": list(proof_algorithms),
            "dpop_bound_access_tokens_required": False,
            "tls_client_certificate_bound_access_tokens": client_certificates,
            "resource_name": "Doorward",
        }

    def answer(self, request: Request) -> Answer | None:
        """Return the metadata a request asks for, None for any other path; an unknown resource is 404."""
        if not request.path.startswith(PATH):
            return None
        resource = request.path.removeprefix(PATH)
        if resource and not (resource.startswith("/") and self._is_known(resource)):
            return _plain(404, {"error": "not_found"})
        if request.method not in {"GET", "HEAD"}:
            return _plain(405, {"error": "method_not_allowed"}, ("Allow", "GET, HEAD"))
        return _plain(200, {"resource": f"{self._url}{resource}", **self._shared})

    def pointed_to(self, challenge: str, path: str) -> str:
        """Return a challenge that says where the metadata of what was asked for is (RFC 9728, 5.1)."""
        resource = self._resource_of(path)
        scheme = next((scheme for scheme in _SCHEMES if challenge.startswith(scheme)), None)
        if scheme is None or "resource_metadata=" in challenge:
            return challenge
        told = challenge.removeprefix(scheme)
        return f'{scheme}resource_metadata="{self._url}{PATH}{resource}", {told}'

    def _resource_of(self, path: str) -> str:
        name = path.split("/", 2)[1] if path.startswith("/") else ""
        # An MCP client asks for a token of exactly the URL it speaks to.
        if name in self._upstreams:
            return f"/{name}/mcp" if path == f"/{name}/mcp" else f"/{name}"
        return ""

    def _is_known(self, resource: str) -> bool:
        _, name, *below = resource.split("/")
        return name in self._upstreams and below in ([], ["mcp"])


def _plain(status: int, document: dict[str, Any], *headers: tuple[str, str]) -> Answer:
    body = msgspec.json.encode(document)
    shared = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    caching = ("Cache-Control", "max-age=300" if status == 200 else "no-store")  # noqa: PLR2004 -- HTTP's OK
    return Answer(status=status, headers=[*shared, caching, *headers], body=body)
