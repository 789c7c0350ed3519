"""A request to the control plane as identity reads it: what verifies credentials knows no web framework."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request

from doorward.core.wire import Peer
from doorward.core.wire import Request as WireRequest


class NoBody:
    """Stands where only the credential of a request is read."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield nothing."""
        nothing: tuple[bytes, ...] = ()
        for chunk in nothing:
            yield chunk


def peer_of(request: Request) -> Peer:
    """Return the other end of the connection."""
    shown = request.scope.get("state", {}).get("client_certificate")
    address = request.client.host if request.client else "127.0.0.1"
    return Peer(address, tls=request.url.scheme == "https", certificate=shown)


def wire_request(request: Request, peer: Peer | None = None) -> WireRequest:
    """Return the request without its body."""
    raw = request.scope.get("raw_path") or request.url.path.encode()
    return WireRequest(
        id=str(request.scope.get("state", {}).get("request_id", "")),
        method=request.method,
        path=request.url.path,
        raw_path=raw.decode("latin-1"),
        query=tuple(request.query_params.multi_items()),
        raw_query=request.url.query,
        headers=tuple((name.lower(), value) for name, value in request.headers.items()),
        peer=peer_of(request) if peer is None else peer,
        body=NoBody(),
    )
