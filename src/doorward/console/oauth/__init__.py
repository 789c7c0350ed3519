"""The local issuer as an OAuth 2.1 authorization server, for the CLI, services and agents of the directory.

Written here rather than on Authlib: its server speaks to Flask and Django only, its RFC 8693 is empty and
DPoP is not in it, while most of what is served here is what OAuth 2.1 leaves after taking away. What
remains is strict: one reading of a form, registered clients only, exact redirect URIs, S256 only.
Authlib is the client that the tests follow our metadata with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from doorward.console.oauth import authorize, device, revocation, token
from doorward.console.oauth.server import AuthorizationServer

if TYPE_CHECKING:
    from doorward.console.services import Services


def router(services: Services) -> APIRouter:
    """Build the routes under /oauth."""
    server = AuthorizationServer.of(services)
    routes = APIRouter(prefix="/oauth", tags=["issuer"])
    for part in (token, revocation, authorize, device):
        part.add(routes, server)
    return routes
