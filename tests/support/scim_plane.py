"""A control plane with a provisioning client: its service, its key, its rules."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from doorward.audit.query import Query
from doorward.core.model import EntityUid
from support import console_plane
from support.authzen_plane import key_for
from support.console_plane import Plane

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
DEVICE = "urn:ietf:params:scim:schemas:core:2.0:Device"
POSTURE = "urn:doorward:params:scim:schemas:extension:posture:1.0:Device"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
IDP = "https://idp.example"
POLICIES = """
@id("admins-govern")
permit(principal in Doorward::Role::"admin", action in Doorward::Action::"govern", resource)
  when { context.session.mfa };
@id("platform-team-publishes")
permit(principal in Doorward::Group::"platform", action == Doorward::Action::"publish", resource);
@id("provisioners-provision")
permit(
  principal is Doorward::Service in Doorward::Role::"provisioner",
  action in [Doorward::Action::"inspect", Doorward::Action::"assign"],
  resource == Doorward::Control::"directory"
);
"""
CLIENT: dict[str, Any] = {
    "service": "okta", "issuer": IDP, "domain": "example.com", "roles": {"scientists": ["data-scientist"]},
    "clearance": {"cleared": 2}, "posture_max_age": 3600,
}  # fmt: skip
ORG = """
services:
  okta: { roles: [provisioner], environment: production }
  other: { roles: [provisioner], environment: production }
  stranger: { environment: production }
users:
  root: { roles: [admin] }
"""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    json: Any


@dataclass
class Client:
    plane: Plane
    key: str

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return await asyncio.to_thread(self._send, method, path, body, headers)

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"Content-Type": "application/scim+json", "Authorization": f"Bearer {self.key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.plane.port, timeout=30)
        try:
            connection.request(method, f"/scim/v2{path}", raw, {k: v for k, v in sent.items() if v})
            answer = connection.getresponse()
            content = answer.read()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, json.loads(content) if content else None)
        finally:
            connection.close()

    async def make(self, path: str, body: Any) -> dict[str, Any]:
        answer = await self.send("POST", path, body)
        assert answer.status == 201, answer
        return dict(answer.json)

    async def user(self, name: str, **more: Any) -> dict[str, Any]:
        return await self.make("/Users", {"schemas": [USER], "userName": name, **more})

    async def group(self, name: str, *members: str) -> dict[str, Any]:
        listed = [{"value": one} for one in members]
        return await self.make("/Groups", {"schemas": [GROUP], "displayName": name, "members": listed})

    async def device(self, name: str, **posture: Any) -> dict[str, Any]:
        body = {"schemas": [DEVICE, POSTURE], "displayName": name, "active": True, POSTURE: posture}
        return await self.make("/Devices", body)

    async def patch(self, path: str, *operations: dict[str, Any], **headers: str) -> Answer:
        return await self.send("PATCH", path, {"schemas": [PATCH], "Operations": operations}, **headers)

    def service(self, name: str) -> Client:
        return Client(self.plane, key_for(self.plane, EntityUid.of("Service", name)))

    async def records(self) -> list[dict[str, Any]]:
        reader = self.plane.services.reader
        page = await asyncio.to_thread(reader.latest, 500, Query(kind="admin"))
        return list(page.records)


@asynccontextmanager
async def running(*, policies: str = POLICIES, org: str = ORG, **client: Any) -> AsyncIterator[Client]:
    sections = [{**CLIENT, **client}, {"service": "other"}]
    issuers = [{"issuer": IDP, "audience": "https://gate.example"}]
    async with console_plane.running(policies=policies, provisioning=sections, issuers=issuers) as plane:
        status, answer = await plane.operator("POST", "/api/v1/apply", {"org": org})
        assert status == 200, answer
        yield Client(plane, key_for(plane, EntityUid.of("Service", "okta")))
