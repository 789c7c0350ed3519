"""What anyone may read: the local issuer's keys and metadata, and the API's description."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from doorward.console.oauth.metadata import authorization_server
from doorward.console.render import page

if TYPE_CHECKING:
    from doorward.console.bearer import Bearers
    from doorward.console.services import Services


def router(services: Services) -> APIRouter:
    """Build the public routes that describe this installation's interfaces."""
    routes = APIRouter()

    @routes.get("/jwks", tags=["issuer"])
    def jwks() -> dict[str, Any]:
        """Return the local issuer's public keys (RFC 7517)."""
        return dict(services.issuer.jwks())

    @routes.get("/.well-known/oauth-authorization-server", tags=["issuer"])
    def metadata() -> dict[str, Any]:
        """Return the local issuer's metadata (RFC 8414)."""
        return authorization_server(services)

    @routes.get("/.well-known/oauth-protected-resource", tags=["issuer"])
    def resource(request: Request) -> dict[str, Any]:
        """Return the management API as an OAuth resource (RFC 9728)."""
        bearers: Bearers = request.app.state.bearers
        return bearers.metadata()

    @routes.get("/docs", include_in_schema=False)
    def docs(request: Request) -> Response:
        """List the management API, from its own description; loads nothing from elsewhere."""
        return page(request, "docs.html", operations=operations(request.app.openapi()))

    return routes


def operations(document: dict[str, Any]) -> list[dict[str, str]]:
    """Return method, path and summary of everything an OpenAPI document describes."""
    return [
        {
            "method": method.upper(),
            "path": path,
            "say": str(operation.get("description") or operation.get("summary", "")).split("\n")[0],
            "tag": str((operation.get("tags") or ["api"])[0]),
        }
        for path, methods in document.get("paths", {}).items()
        for method, operation in methods.items()
    ]
