"""Who calls the decision point: the Service behind a key, and what policies let it do."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from fastapi import Request

from doorward.console.authorise import peer_uid
from doorward.console.incoming import key_shown, peer_of, wire_request
from doorward.console.services import Services
from doorward.core.context import Context, DeviceContext, NetworkContext, SessionContext
from doorward.core.decision import AccessRequest
from doorward.core.errors import DeniedError, InvalidConfigError, UnauthenticatedError, UnavailableError
from doorward.core.identity import Caller
from doorward.core.model import Action, EntityUid
from doorward.core.wire import Peer
from doorward.decisions.authzen_scope import PEP_FILE, Scope, read_scopes, undeclared
from doorward.decisions.point import Standpoint
from doorward.identity import api_keys, credential, refusals
from doorward.identity.credential import Kind

# What the local operator may state of circumstances: everything `can` takes.
_EVERYTHING = frozenset(Context.__struct_fields__)


@dataclass(frozen=True, slots=True)
class Pep:
    """One enforcement point: its name in records, what it may ask about, what else it may do."""

    name: str
    scope: Scope
    searches: bool
    reasons: bool
    credential: str = ""


async def caller_of(request: Request, services: Services) -> Pep:
    """Return the calling enforcement point.

    Raises UnauthenticatedError without a key that verifies, DeniedError for a caller without the right.
    """
    uid = peer_uid(request)
    shown = "authorization" in request.headers or "x-api-key" in request.headers
    if uid is not None and not shown:
        name = f"operator:{uid}"
        return Pep(name, undeclared(name, context=_EVERYTHING), searches=True, reasons=True)
    caller = authenticated(request, services)
    return await asyncio.to_thread(_pep, services, caller, request)


def authenticated(request: Request, services: Services) -> Caller:
    """Return the service behind a key; raise UnauthenticatedError."""
    peer = peer_of(request)
    found = credential.find(wire_request(request, peer))
    if found is None:
        raise UnauthenticatedError(
            "this needs the key of a service", hint="Make one: doorward key create --service NAME."
        )
    record = key_shown(found.text if found.kind is Kind.KEY else "", ip=peer.ip, services=services)
    if record.subject.kind != "Service":
        raise UnauthenticatedError(
            "the key is not that of a service", hint="Make one: doorward key create --service NAME."
        )
    return _with_device(api_keys.caller_of(record), peer, services)


def _with_device(caller: Caller, peer: Peer, services: Services) -> Caller:
    """Return the caller with the device that its client certificate proves, if it showed one."""
    if peer.certificate is None:
        return caller
    registry = services.directory.snapshot
    fingerprint = hashlib.sha256(peer.certificate).hexdigest()
    device = registry.device_of_certificate(fingerprint, services.clock.now())
    if device is None or not registry.is_active(device):
        raise refusals.certificate_refused("certificate_unknown_or_revoked")
    if caller.device not in {None, device}:
        raise refusals.certificate_refused("certificate_of_another_device")
    return msgspec.structs.replace(caller, device=device, device_proven=True, certificate=fingerprint)


def _device(caller: Caller, standpoint: Standpoint) -> DeviceContext:
    found = None if caller.device is None else standpoint.snapshot.entity(caller.device)
    return DeviceContext.of(found, proven=caller.device_proven)


def context_of(services: Services, caller: Caller, request: Request, standpoint: Standpoint) -> Context:
    """Return the circumstances under which a service calls."""
    ip = request.client.host if request.client else ""
    return Context(
        now=services.clock.now(),
        network=NetworkContext(zone=standpoint.snapshot.zone_of(ip)) if ip else NetworkContext(),
        session=SessionContext(method=caller.method),
        device=_device(caller, standpoint),
    )


def _pep(services: Services, caller: Caller, request: Request) -> Pep:
    standpoint = services.point.pin()
    context = context_of(services, caller, request, standpoint)

    def may(control: str) -> bool:
        resource = EntityUid.of("Control", control)
        if not all(bounds.permits(Action.INSPECT.value, resource) for bounds in caller.bounds):
            return False
        asked = AccessRequest(caller.principal, Action.INSPECT.uid, resource, context)
        return standpoint.decide(asked).allowed

    if not may("policies"):
        raise DeniedError(
            f"{caller.principal} may not have requests evaluated",
            hint='Permit it to inspect Control::"policies".',
        )
    scope = _scopes(services).get(caller.principal.id) or undeclared(caller.principal.id)
    name = str(caller.principal)
    return Pep(name, scope, may("directory"), may("audit"), caller.credential)


def _scopes(services: Services) -> Mapping[str, Scope]:
    """Read `pep.toml` afresh: a scope that was narrowed holds from the next request on."""
    file = services.settings.resolve(services.settings.policies.path) / PEP_FILE
    try:
        return read_scopes(file.read_text("utf-8"), str(file))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, InvalidConfigError) as reason:
        raise UnavailableError(
            "what enforcement points may ask cannot be read, so nothing is answered",
            hint=f"See {PEP_FILE} in the policies directory.",
        ) from reason
