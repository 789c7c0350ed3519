"""A whole control plane on loopback: real store, directory, decisions, audit log; two listeners."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import socket
import ssl
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from doorward.app import certificates
from doorward.app.signals import hearing
from doorward.audit.reader import AuditReader
from doorward.audit.writer import AuditWriter
from doorward.cedar.admission import PolicySource, admit
from doorward.console.app import build
from doorward.console.serve import serve
from doorward.console.services import Services
from doorward.core.clock import SystemClock
from doorward.core.ids import IdSource
from doorward.core.onetime import MemoryOneTime
from doorward.core.record import DecisionRecord
from doorward.decisions.point import DecisionPoint
from doorward.directory.administration import Directory
from doorward.identity.custody import Custodian
from doorward.identity.device_authority import DeviceAuthority
from doorward.identity.issuer import LocalIssuer
from doorward.policies.workspace import Workspace, packaged_schema
from doorward.settings import Settings
from doorward.store.opened import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

POLICIES = """
@id("admins-govern")
permit(principal in Doorward::Role::"admin", action in Doorward::Action::"govern", resource)
  when { context.session.mfa };
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Plane:
    services: Services
    data: Path
    port: int

    @property
    def url(self) -> str:
        scheme = "https" if self.services.settings.control.tls else "http"
        return f"{scheme}://localhost:{self.port}"

    @property
    def ca(self) -> Path:
        """Return the installation's own CA, which vouches for the listener of a `secure` plane."""
        return self.data / "tls" / "ca.pem"

    async def decide(self, request_id: str, **fields: Any) -> None:
        """Put one decision on record, as a gateway would."""
        now = self.services.clock.now()
        values: dict[str, Any] = {
            "decision": "allow", "code": "allowed", "principal": 'User::"dana"', "action": "read",
            "resource": 'Dataset::"store/training/a.csv"', "upstream": "store",
            "determining": ("fraud-scientists-read-training",), **fields,
        }  # fmt: skip
        record = DecisionRecord(
            id=self.services.ids.new(),
            kind="decision",
            time=f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z",
            request_id=request_id,
            **values,
        )
        await self.services.audit.write(record)

    async def operator(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await asyncio.to_thread(self._operator, method, path, body)

    def _operator(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        connection = _Unix(self.data / "control.sock")
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, json.loads(content) if content else None

    async def link(self, kind: str) -> str:
        status, answer = await self.operator("POST", "/api/v1/admin/link", {"kind": kind})
        assert status == 200, answer
        return str(answer["url"])


@asynccontextmanager
async def running(  # noqa: PLR0913 -- what a test may set
    *,
    local_operator: str | None = None,
    policies: str = POLICIES,
    upstreams: tuple[str, ...] = ("llm", "store"),
    tls: ssl.SSLContext | None = None,
    issues: bool = False,
    test_minting: bool = False,
    public_url: str | None = None,
    secure: bool = False,
    provisioning: Sequence[dict[str, Any]] = (),
    directory_source: Sequence[dict[str, Any]] = (),
    issuers: Sequence[dict[str, Any]] = (),
    signals: Sequence[dict[str, Any]] = (),
) -> AsyncIterator[Plane]:
    data = Path(tempfile.mkdtemp(prefix="dw", dir="/tmp"))
    port = free_port()
    settings = Settings(
        control={
            "listen": f"127.0.0.1:{port}",
            "local_operator": local_operator,
            "tls": "auto" if tls or secure else None,
            "public_url": public_url,
        },
        upstream=[{"name": name, "kind": "http", "url": "http://127.0.0.1:9"} for name in upstreams],
        identity={"test_minting": test_minting},
        provisioning=provisioning,
        directory_source=directory_source,
        issuer=issuers,
        signals=signals,
        data=data,
        base=data,
    )
    clock = SystemClock()
    ids = IdSource(clock)
    store = Store.open(settings.control.database, data)
    directory = Directory(store, clock, ids)
    point = DecisionPoint()
    point.publish(admit([PolicySource("test.cedar", policies)], packaged_schema()))
    point.advance(directory.snapshot)
    directory.subscribe(lambda _delta: point.advance(directory.snapshot))
    issuer: Any = SimpleNamespace(
        jwks=lambda: {"keys": []}, issuer="urn:doorward:test", audience="urn:doorward:gate"
    )
    nothing: Any = None
    custodian, authority = Custodian.open("file:keys", data), nothing
    if issues or secure:
        authority = DeviceAuthority(custodian, clock)
        if secure:
            certificates.issue(settings, authority, clock)
            tls = certificates.context(settings, certificates.CONTROL)
        issuer = LocalIssuer(
            custodian, issuer=settings.control_url, audience="http://127.0.0.1:8640",
            clock=clock, ids=ids, test_minting=test_minting,
        )  # fmt: skip
    stop = asyncio.Event()
    ready = asyncio.Event()
    async with AuditWriter(data / "audit", "control", clock=clock, ids=ids, settings=settings.audit) as audit:
        services = Services(
            settings=settings, clock=clock, ids=ids, directory=directory, custodian=custodian,
            issuer=issuer, device_authority=authority, point=point, audit=audit,
            reader=AuditReader(data / "audit"), workspace=Workspace(data / "policies"),
            one_time=MemoryOneTime(clock),
        )  # fmt: skip
        app = build(services)
        task = asyncio.create_task(
            serve(
                app,
                listen=settings.control.listen,
                socket_path=data / "control.sock",
                stop=stop,
                tls=tls,
                on_ready=lambda _port: ready.set(),
            )
        )
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            if task.done():
                await task
            async with hearing(services) as pollers:
                polling = [asyncio.create_task(poller) for poller in pollers]
                try:
                    yield Plane(services, data, port)
                finally:
                    for each in polling:
                        each.cancel()
                    await asyncio.gather(*polling, return_exceptions=True)
        finally:
            stop.set()
            await task
            store.close()
    shutil.rmtree(data)
