"""A request to the control plane as identity reads it: what verifies credentials knows no web framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request

from doorward.core.wire import NoBody, Peer
from doorward.core.wire import Request as WireRequest
from doorward.identity import api_keys, refusals

if TYPE_CHECKING:
    from doorward.console.services import Services
    from doorward.core.identity import KeyRecord


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


def key_shown(text: str, *, ip: str, services: Services) -> KeyRecord:
    """Return the API key with this text, if it may be used now from there; raise UnauthenticatedError."""
    registry = services.directory.snapshot
    digest = api_keys.digest_of(text)
    record = None if digest is None else registry.key_by_hash(digest)
    if record is None:
        raise refusals.key_refused("key_unknown")
    fault = api_keys.fault_of(record, ip=ip, now=services.clock.now(), registry=registry)
    if fault is not None:
        raise refusals.key_refused(fault)
    return record
