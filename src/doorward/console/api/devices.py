"""Devices and the certificates that prove them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from doorward.console import issuance
from doorward.console.authorise import Actor, govern
from doorward.console.paging import Listing, tagged
from doorward.core.errors import NotFoundError
from doorward.core.identity import DeviceCertificate
from doorward.core.model import Action, Entity, EntityUid
from doorward.core.provisioning import Statement
from doorward.directory import views
from doorward.identity.certificates import MAX_CSR

if TYPE_CHECKING:
    from doorward.console.services import Services

# The source of what is stated through this API.
MANAGEMENT = "management"
_SHOWN = ("active", "managed", "compliant", "owner", "platform", "environment")


class PostureRequest(BaseModel):
    """What is known of a device; `max_age` is for how many seconds it counts, without one for good."""

    model_config = ConfigDict(extra="forbid")

    managed: bool | None = None
    compliant: bool | None = None
    active: bool | None = None
    platform: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    max_age: Annotated[int, Field(gt=0)] | None = None


class CertificateRequest(BaseModel):
    """Give a PKCS #10 request in PEM, or nothing to have the key made as well."""

    model_config = ConfigDict(extra="forbid")

    csr: Annotated[str, Field(max_length=MAX_CSR)] | None = None


class CertificateAnswer(BaseModel):
    """A device's certificate and the authority to trust; `key` only if it was made here."""

    device: str
    certificate: str
    key: str | None = None
    ca: str
    fingerprint: str
    expires: datetime


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["devices"])

    @routes.get("/devices")
    def list_devices(
        _: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))],
        listing: Annotated[Listing, Depends()],
    ) -> list[dict[str, Any]]:
        """Return every device with its posture and its certificates."""
        certificates = services.directory.snapshot.certificates.values()
        found = listing.page(services.directory.devices(), views.position)
        return [_shown(device, certificates) for device in found]

    @routes.get("/devices/{name:path}", dependencies=[Depends(tagged)])
    def one_device(
        name: str, _actor: Annotated[Actor, Depends(govern(Action.INSPECT, "directory"))]
    ) -> dict[str, Any]:
        """Return the device of this name: its id alone, or in full where two share it."""
        found = views.only(services.directory.devices(), name)
        return _one(services, found)

    @routes.patch("/devices/{name:path}")
    async def set_posture(
        name: str,
        wanted: PostureRequest,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ASSIGN, "directory"))],
    ) -> dict[str, Any]:
        """State a device's posture, beside what files and device managers state; the strictest holds."""
        device = views.only(services.directory.devices(), name).uid
        said = wanted.model_dump(exclude={"max_age"}, exclude_unset=True, exclude_none=True)
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.ASSIGN,
            resource=device,
            detail=f"the posture of {device}",
            changes={**said, "max_age": wanted.max_age},
        )
        before = services.directory.registry.stated(device).get(MANAGEMENT)
        statement = Statement(
            uid=device,
            source=MANAGEMENT,
            seen=services.clock.now(),
            attrs={**(before.attrs if before is not None else {}), **said},
            max_age=wanted.max_age,
        )
        await asyncio.to_thread(services.directory.state, statement, operator=actor.name)
        return _one(services, views.only(services.directory.devices(), name))

    @routes.post("/devices/{name:path}/certificate", status_code=201)
    async def enrol_device(
        name: str,
        wanted: CertificateRequest,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ISSUE, "keys"))],
    ) -> CertificateAnswer:
        """Issue a client certificate that proves the device."""
        device = issuance.named(services.directory.snapshot, "Device", name)
        authority = services.device_authority
        enrolment = await asyncio.to_thread(authority.enrol, device.id, wanted.csr, now=services.clock.now())
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.ISSUE,
            resource=device,
            detail=f"a certificate for {device}",
            changes={"fingerprint": enrolment.fingerprint, "expires": enrolment.expires.isoformat()},
        )
        bound = DeviceCertificate(enrolment.fingerprint, device, enrolment.expires)
        await asyncio.to_thread(services.directory.bind_certificate, bound, operator=actor.name)
        return CertificateAnswer(
            device=device.id,
            certificate=enrolment.certificate,
            key=None if enrolment.key is None else enrolment.key.reveal(),
            ca=authority.ca_pem,
            fingerprint=enrolment.fingerprint,
            expires=enrolment.expires,
        )

    @routes.delete("/devices/{name:path}/certificate")
    async def revoke_device(
        name: str,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.CONTAIN, "keys"))],
    ) -> dict[str, Any]:
        """Revoke every certificate of a device; connections that use one end within a second."""
        device = EntityUid.of("Device", name)
        held = services.directory.snapshot.certificates.values()
        if all(certificate.device != device for certificate in held):
            raise NotFoundError(f"{device} has no certificate", hint="See `doorward devices list`.")
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.CONTAIN,
            resource=device,
            detail=f"revoke the certificates of {device}",
            changes={},
        )
        revoked = await asyncio.to_thread(services.directory.revoke_certificates, device, operator=actor.name)
        return {"device": name, "revoked": revoked}

    return routes


def _one(services: Services, device: Entity) -> dict[str, Any]:
    shown = _shown(device, services.directory.snapshot.certificates.values())
    return shown | {"sources": services.directory.sources(device.uid)}


def _shown(device: Entity, certificates: Any) -> dict[str, Any]:
    attributes = {name: device.attrs.get(name) for name in _SHOWN}
    return {
        "name": device.uid.id,
        **{k: str(v) if isinstance(v, EntityUid) else v for k, v in attributes.items()},
        "certificates": [
            {"fingerprint": held.fingerprint, "expires": held.expires.isoformat()}
            for held in certificates
            if held.device == device.uid
        ],
    }
