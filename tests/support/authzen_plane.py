"""A control plane with the AuthZEN pack applied, and an enforcement point that calls it with its key."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from doorward.core.model import EntityUid
from doorward.identity import api_keys
from support import console_plane
from support.console_plane import POLICIES, Plane

EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Pep:
    plane: Plane
    key: str

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Send JSON, or bytes as they are; a keyword names a header, an empty one leaves it out."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.send("POST", path, raw, **headers)

    async def send(self, method: str, path: str, raw: bytes | None = None, **headers: str) -> Answer:
        sent = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {name: value for name, value in sent.items() if value}
        return await asyncio.to_thread(self._send, method, path, raw, kept)

    def _send(self, method: str, path: str, raw: bytes | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.plane.port, timeout=20)
        try:
            connection.request(method, path, raw, headers)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    async def records(self) -> list[dict[str, Any]]:
        return list(await asyncio.to_thread(lambda: self.plane.services.reader.latest(200).records))


def key_for(plane: Plane, subject: EntityUid) -> str:
    services = plane.services
    record, text = api_keys.create(subject=subject, key_id=services.ids.new(), now=services.clock.now())
    services.directory.add_key(record)
    return text.reveal()


@asynccontextmanager
async def running(*, policies: str = POLICIES, public_url: str | None = None) -> AsyncIterator[Pep]:
    async with console_plane.running(policies=policies, issues=True, public_url=public_url) as plane:
        directory = plane.data / "policies"
        directory.mkdir()
        (directory / "test.cedar").write_text(policies)
        status, answer = await plane.operator("POST", "/api/v1/packs/authzen", {})
        assert status == 200, answer
        yield Pep(plane, key_for(plane, EntityUid.of("Service", "authzen-pep")))
