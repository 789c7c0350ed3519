"""The whole gateway in front of a real S3 store, with real policies; only the feed is left out."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import msgspec
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from doorward.cedar.admission import PolicySource, admit
from doorward.core.clock import SystemClock
from doorward.core.feed import Known
from doorward.core.identity import KeyRecord
from doorward.core.ids import IdSource
from doorward.core.model import EntityUid
from doorward.core.onetime import MemoryOneTime
from doorward.core.record import Record
from doorward.decisions.point import DecisionPoint
from doorward.directory.org import offline_snapshot, parse
from doorward.directory.snapshot import Snapshot
from doorward.gateway.edge import Edge
from doorward.gateway.flow import Flow
from doorward.gateway.protocols.s3 import S3Adapter
from doorward.gateway.streams import OpenAnswers
from doorward.gateway.upstream import HttpUpstream
from doorward.identity.authenticate import Authenticator
from doorward.policies.workspace import packaged_schema
from doorward.settings import GatewaySettings, S3Credential, S3CredentialHolder, UpstreamSettings
from support.adapter_door import free_port
from support.shared import Shared

UPSTREAM_ID, UPSTREAM_SECRET = "UPSTREAMKEY", "upstream-secret-key"


@contextlib.contextmanager
def rclone(root: Path, log: Path) -> Iterator[str]:
    """Serve a directory as S3, signed requests only; its sub-directories are the buckets."""
    port = free_port()
    program = Path(sys.executable).parent / "rclone"
    command = [
        str(program),
        "serve",
        "s3",
        str(root),
        "--addr",
        f"127.0.0.1:{port}",
        "--config",
        "/dev/null",
        "--auth-key",
        f"{UPSTREAM_ID},{UPSTREAM_SECRET}",
        "--vfs-cache-mode",
        "off",
        "--dir-cache-time",
        "0s",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait(f"http://127.0.0.1:{port}/", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def server_context(folder: Path) -> ssl.SSLContext:
    """Return a TLS context with a certificate made for now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=1))
    certificate = builder.not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    file = folder / "server.pem"
    file.write_bytes(
        certificate.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310 -- our own rclone
        except urllib.error.HTTPError:
            return
        except OSError:
            assert process.poll() is None, "rclone ended"
            assert time.monotonic() < deadline, "rclone did not start"
            time.sleep(0.05)
        else:
            return


class MemoryLog:
    """Keep records; a test reads what was decided."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def write(self, record: Record) -> None:
        self.records.append(record)

    def write_soon(self, record: Record) -> None:
        self.records.append(record)

    def outcome(self, request_id: str) -> dict[str, Any]:
        """Return the outcome of a request; it is written once the answer is over."""
        deadline = time.monotonic() + 10
        while True:
            for record in self.of("outcome"):
                if record.request_id == request_id:
                    return dict(record.outcome)
            assert time.monotonic() < deadline, "no outcome was recorded"
            time.sleep(0.01)

    def of(self, kind: str) -> list[Any]:
        return [record for record in self.records if record.kind == kind]


@dataclass
class S3Door:
    """Serve the gateway on `url`; `client(user)` is a stock boto3 client with that user's key."""

    upstream: str
    org: str
    policies: str
    tls: ssl.SSLContext | None = None
    weights: tuple[str, ...] = ()
    max_body: int = 64 * 1024 * 1024
    log: MemoryLog = field(default_factory=MemoryLog)

    def __post_init__(self) -> None:
        known = offline_snapshot(parse(self.org, "org.yaml")).known
        users = [e["uid"]["id"] for e in known.entities if e["uid"]["type"] == "Doorward::User"]
        keys = tuple(
            KeyRecord(
                id=f"k-{name}",
                hash=f"hash-{name}",
                subject=EntityUid.of("User", name),
                created=datetime.now(UTC),
                access_key_id=f"DW{name.upper()}",
                s3_secret=f"secret-of-{name}",
            )
            for name in users
        )
        self.snapshot = Snapshot.of(msgspec.structs.replace(known, keys=keys) if keys else Known(version=0))
        self.settings = UpstreamSettings(
            name="store",
            kind="s3",
            url=self.upstream,
            weights_prefixes=self.weights,
            credential=S3CredentialHolder(
                s3=S3Credential.model_construct(
                    access_key_id=UPSTREAM_ID, secret_access_key=UPSTREAM_SECRET, region="us-east-1"
                )
            ),
        )
        self.point = DecisionPoint()
        sources = [PolicySource("test.cedar", self.policies, guardrail=False)]
        self.point.publish(admit(sources, packaged_schema()))
        self.point.advance(self.snapshot)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/store"

    def client(self, user: str, **options: Any) -> Any:
        settings = {"s3": {"addressing_style": "path"}, "signature_version": "s3v4", **options}
        settings.setdefault("retries", {"total_max_attempts": 1})
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="eu-west-1",
            aws_access_key_id=f"DW{user.upper()}",
            aws_secret_access_key=f"secret-of-{user}",
            config=Config(**settings),
            verify=False,
        )

    async def run(self, started: threading.Event, ended: asyncio.Event) -> None:
        clock = SystemClock()
        ids = IdSource(clock)
        settings = GatewaySettings(listen="127.0.0.1:0", max_body=self.max_body)
        client = HttpUpstream(self.settings, timeout=60)
        flow = Flow(
            authenticator=Authenticator(
                lambda: self.snapshot, (), dict, clock, "http://door", one_time=MemoryOneTime(clock)
            ),
            point=self.point,
            adapters={"store": S3Adapter(self.settings, registry=lambda: self.snapshot, clock=clock)},
            upstreams={"store": client},
            audit=self.log,
            limits=Shared(clock),
            open_answers=OpenAnswers(lambda: self.point.changed),
            clock=clock,
            ids=ids,
            settings=settings,
            staleness=lambda: 0.0,
        )
        edge = Edge(flow, settings=settings, ids=ids, opaque={"store": 2}, tls=self.tls)
        await edge.start()
        self.port = edge.port
        started.set()
        await ended.wait()
        await edge.close()
        await client.close()


@contextlib.contextmanager
def opened(door: S3Door) -> Iterator[S3Door]:
    """Open the door in a thread of its own, so that blocking stock clients can be used."""
    started, loop, ended = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(door.run(started, ended)), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield door
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(20)
