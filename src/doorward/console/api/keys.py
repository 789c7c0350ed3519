"""API keys: made once and shown once, listed without their secrets, revoked at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from doorward.console import issuance
from doorward.console.authorise import Actor, govern
from doorward.console.paging import Listing, tagged
from doorward.core.errors import ConflictError, InvalidRequestError, NotFoundError
from doorward.core.identity import Bounds, KeyRecord
from doorward.core.model import Action, EntityUid
from doorward.identity import api_keys
from doorward.identity.last_use import last_uses

if TYPE_CHECKING:
    from doorward.console.services import Services

Name = Annotated[str, Field(min_length=1, max_length=300)]


class KeyRequest(BaseModel):
    """Say whom a key is for (exactly one of user, service, agent) and what bounds it.

    With `public_key` (JWK or PEM) nothing secret is made: the service or agent signs assertions with its
    private half to get tokens (`private_key_jwt`).
    """

    model_config = ConfigDict(extra="forbid")

    user: Name | None = None
    service: Name | None = None
    agent: Name | None = None
    device: Name | None = None
    purpose: Name | None = None
    expires: Name | None = None
    networks: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    actions: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    upstreams: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    resources: Annotated[tuple[Name, ...], Field(max_length=256)] = ()
    public_key: Annotated[str, Field(min_length=1, max_length=16_384)] | None = None


class Rotation(BaseModel):
    """Say how long the old key works on beside the new one, and how long the new one lives."""

    model_config = ConfigDict(extra="forbid")

    overlap: Name = "24h"
    expires: Name | None = None


class KeyAnswer(BaseModel):
    """A new key with its secrets, shown this once; a registered public key has none."""

    id: str
    key: str | None
    access_key_id: str | None
    secret_access_key: str | None
    subject: str
    device: str | None
    purpose: str | None
    expires: datetime | None
    replaces: str | None = None


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["keys"])

    @routes.get("/keys")
    def list_keys(
        _: Annotated[Actor, Depends(govern(Action.INSPECT, "keys"))], listing: Annotated[Listing, Depends()]
    ) -> list[dict[str, Any]]:
        """Return every key that is not revoked, without anything secret, oldest first."""
        found, uses = services.directory.keys(), last_uses(services.settings.data)
        return [
            _shown(record, uses) for record in listing.page(found, lambda key: (str(key.created), key.id))
        ]

    @routes.get("/keys/{key_id}", dependencies=[Depends(tagged)])
    def one_key(key_id: str, _: Annotated[Actor, Depends(govern(Action.INSPECT, "keys"))]) -> dict[str, Any]:
        """Return one key, without anything secret."""
        record = services.directory.snapshot.key_by_id(key_id)
        if record is None:
            raise NotFoundError(f"there is no key `{key_id}`", hint="See `doorward key list`.")
        return _shown(record, last_uses(services.settings.data))

    @routes.post("/keys", status_code=201)
    async def create_key(
        wanted: KeyRequest,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ISSUE, "keys"))],
    ) -> KeyAnswer:
        """Make a key; its text and S3 secret are in this answer and nowhere else."""
        record, text = await asyncio.to_thread(_make, services, wanted)
        secret = None if text is None else await asyncio.to_thread(_s3_secret, services, record)
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.ISSUE,
            resource=EntityUid.of("Key", record.id),
            detail=f"a key for {record.subject}",
            changes={name: value for name, value in _shown(record).items() if name != "id"},
        )
        await asyncio.to_thread(services.directory.add_key, record, operator=actor.name)
        return _answer(record, text, secret)

    @routes.post("/keys/{key_id}/rotate", status_code=201)
    async def rotate_key(
        key_id: str,
        wanted: Rotation,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ISSUE, "keys"))],
    ) -> KeyAnswer:
        """Make a key that replaces another; the old one works for the overlap and then no more."""
        record, text, ends = await asyncio.to_thread(_successor, services, key_id, wanted)
        secret = await asyncio.to_thread(_s3_secret, services, record)
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.ISSUE,
            resource=EntityUid.of("Key", record.id),
            detail=f"a key for {record.subject} in place of {key_id}",
            changes={"replaces": key_id, "old_key_ends": ends.isoformat()},
        )
        directory = services.directory
        await asyncio.to_thread(directory.rotate_key, key_id, record, ends=ends, operator=actor.name)
        return _answer(record, text, secret, replaces=key_id)

    @routes.delete("/keys/{key_id}")
    async def revoke_key(
        key_id: str,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.CONTAIN, "keys"))],
    ) -> dict[str, Any]:
        """Revoke a key; requests and streams that use it end within a second."""
        record = services.directory.snapshot.key_by_id(key_id)
        if record is None:
            raise NotFoundError(f"there is no key `{key_id}`", hint="See `doorward key list`.")
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.CONTAIN,
            resource=EntityUid.of("Key", key_id),
            detail=f"revoke the key of {record.subject}",
            changes={"subject": str(record.subject)},
        )
        await asyncio.to_thread(services.directory.revoke_key, key_id, operator=actor.name)
        return {"id": key_id, "revoked": True}

    return routes


def _answer(
    record: KeyRecord, text: str | None, secret: str | None, *, replaces: str | None = None
) -> KeyAnswer:
    return KeyAnswer(
        id=record.id,
        key=text,
        access_key_id=record.access_key_id or None,
        secret_access_key=secret,
        subject=str(record.subject),
        device=None if record.device is None else record.device.id,
        purpose=record.purpose,
        expires=record.expires,
        replaces=replaces,
    )


def _successor(services: Services, key_id: str, wanted: Rotation) -> tuple[KeyRecord, str, datetime]:
    old, now = services.directory.snapshot.key_by_id(key_id), services.clock.now()
    if old is None:
        raise NotFoundError(f"there is no key `{key_id}`", hint="See `doorward key list`.")
    if old.public_key is not None:
        raise ConflictError(
            f"`{key_id}` is a client's public key", hint="Register its next one, then revoke this."
        )
    if old.expires is not None and old.expires <= now:
        raise ConflictError(f"key `{key_id}` has ended already", hint="Create another one.")
    lifetime = None if wanted.expires is None else api_keys.parse_lifetime(wanted.expires)
    record, text = api_keys.successor_of(old, key_id=services.ids.new(), now=now, lifetime=lifetime)
    return record, text.reveal(), now + api_keys.parse_lifetime(wanted.overlap)


def _s3_secret(services: Services, record: KeyRecord) -> str:
    secret = services.custodian.s3_secret(record.id, record.generation, record.created)
    if secret is None:  # its master was distrusted at this very moment
        raise ConflictError("the master key is being rotated", hint="Ask again.")
    return secret


def _make(services: Services, wanted: KeyRequest) -> tuple[KeyRecord, str | None]:
    snapshot = services.directory.snapshot
    subject = issuance.named(snapshot, *_subject_of(wanted))
    device = None if wanted.device is None else issuance.named(snapshot, "Device", wanted.device)
    issuance.require_purpose(snapshot, subject, wanted.purpose)
    if wanted.public_key is not None:
        return _registered(services, wanted, subject), None
    record, text = api_keys.create(
        key_id=services.ids.new(),
        subject=subject,
        now=services.clock.now(),
        lifetime=None if wanted.expires is None else api_keys.parse_lifetime(wanted.expires),
        device=device,
        purpose=wanted.purpose,
        networks=wanted.networks,
        bounds=_bounds(services, wanted),
    )
    return record, text.reveal()


def _registered(services: Services, wanted: KeyRequest, subject: EntityUid) -> KeyRecord:
    if subject.kind == "User" or wanted.device is not None:
        raise InvalidRequestError(
            "a public key is that of a service or an agent", hint="Name one, and no device."
        )
    return api_keys.registered(
        wanted.public_key or "",
        key_id=services.ids.new(),
        subject=subject,
        now=services.clock.now(),
        lifetime=None if wanted.expires is None else api_keys.parse_lifetime(wanted.expires),
        purpose=wanted.purpose,
        networks=wanted.networks,
        bounds=_bounds(services, wanted),
    )


def _bounds(services: Services, wanted: KeyRequest) -> Bounds | None:
    known = {upstream.name for upstream in services.settings.upstream}
    unknown = sorted(set(wanted.upstreams) - known)
    if unknown:
        raise NotFoundError(
            f"there is no upstream `{unknown[0]}`",
            hint=f"Configured are: {', '.join(sorted(known)) or 'none'}.",
        )
    return api_keys.bounds_of(actions=wanted.actions, upstreams=wanted.upstreams, resources=wanted.resources)


def _subject_of(wanted: KeyRequest) -> tuple[str, str]:
    given = [
        (kind, name)
        for kind, name in (("User", wanted.user), ("Service", wanted.service), ("Agent", wanted.agent))
        if name is not None
    ]
    if len(given) != 1:
        raise InvalidRequestError(
            "a key is for exactly one of user, service and agent", hint="Name one: --user dana."
        )
    return given[0]


def _shown(
    record: KeyRecord, uses: Mapping[str, tuple[datetime, str]] = MappingProxyType({})
) -> dict[str, Any]:
    """Return what may be shown of a key: never its hash, never a secret."""
    at, ip = uses.get(record.id, (None, None))
    bounds = record.bounds or Bounds()
    shown: dict[str, Any] = msgspec.to_builtins(
        {
            "id": record.id,
            "subject": str(record.subject),
            "device": None if record.device is None else record.device.id,
            "purpose": record.purpose,
            "networks": record.networks,
            "access_key_id": record.access_key_id,
            "created": record.created,
            "expires": record.expires,
            "actions": bounds.actions,
            "upstreams": bounds.upstreams,
            "resources": tuple(map(str, bounds.resources)),
            "successor": record.successor or None,
            "public_key": record.public_key,
            "last_used": at,
            "last_used_from": ip,
        }
    )
    return shown
