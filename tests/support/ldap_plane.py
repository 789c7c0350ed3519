"""A control plane that follows a directory, as `app` makes it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from doorward.app import sources
from doorward.app.follower import Follower
from doorward.core.model import Entity, EntityUid
from support import console_plane, scim_plane
from support.console_plane import Plane
from support.ldap_servers import PASSWORD, Server, until
from support.scim_plane import IDP

os.environ["DOORWARD_TEST_LDAP_PASSWORD"] = PASSWORD
uid = EntityUid.of


@dataclass
class Followed:
    plane: Plane
    follower: Follower

    def entity(self, kind: str, name: str) -> Entity | None:
        return self.plane.services.directory.entity(uid(kind, name))

    def active(self, name: str) -> bool:
        return self.plane.services.directory.snapshot.is_active(uid("User", name))

    def parents(self, name: str, kind: str = "User") -> set[str]:
        found = self.entity(kind, name)
        return set() if found is None else {str(parent) for parent in found.parents}

    async def arrives(self, condition: Any, seconds: float = 20.0) -> float:
        """Wait until a condition holds, and return how long it took."""
        return await until(condition, seconds, what=f"{self.follower.state}")


def section(server: Server, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "corp", "server": kind, "url": server.url, "ca": server.ca, "bind_dn": server.bind_dn,
        "password": "${DOORWARD_TEST_LDAP_PASSWORD}", "base": server.base, "interval": 0.5,
        "roles": {"scientists": ["data-scientist"]}, "clearance": {"cleared": 2}, **more,
    }  # fmt: skip


@asynccontextmanager
async def following(
    server: Server, kind: str, *, org: str = "", policies: str = scim_plane.POLICIES, **more: Any
) -> AsyncIterator[Followed]:
    async with console_plane.running(
        policies=policies,
        directory_source=[section(server, kind, **more)],
        issuers=[{"issuer": IDP, "audience": "https://gate.example"}],
    ) as plane:
        if org:
            status, answer = await plane.operator("POST", "/api/v1/apply", {"org": org})
            assert status == 200, answer
        (follower,) = sources.followers(plane.services)
        job = asyncio.create_task(follower.run())
        try:
            yield Followed(plane, follower)
        finally:
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
