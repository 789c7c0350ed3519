"""S3 requests without a socket: signed by botocore itself, or bare."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from unittest import mock
from urllib.parse import unquote, urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from doorward.core.identity import KeyRecord
from doorward.core.model import EntityUid
from doorward.core.wire import Peer, Request, UpstreamRequest
from doorward.identity.sigv4_signing import read_query

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KEY_ID, SECRET = "DW01KEY", "the+secret/of dana"
DANA = EntityUid.of("User", "dana")
HOST = "gate.example:8640"


class Given:
    """A body that is there already, in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


class Registry:
    """Know one key."""

    def __init__(self, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "id": "k1",
            "hash": "h",
            "subject": DANA,
            "created": NOW,
            "access_key_id": KEY_ID,
            "s3_secret": SECRET,
        }
        self.record = KeyRecord(**(fields | changes))
        self.active = True

    def key_by_access_key_id(self, access_key_id: str) -> KeyRecord | None:
        return self.record if access_key_id == self.record.access_key_id else None

    def is_active(self, principal: EntityUid) -> bool:
        return self.active and principal == DANA


def bare(  # noqa: PLR0913 -- the parts of a request
    method: str = "GET",
    target: str = "/store/training/a.csv",
    *,
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    body: tuple[bytes, ...] = (),
    tls: bool = False,
    ip: str = "127.0.0.1",
) -> Request:
    raw_path, _, raw_query = target.partition("?")
    pairs = headers.items() if isinstance(headers, dict) else headers or []
    return Request(
        id="01REQUEST",
        method=method,
        path=unquote(raw_path),
        raw_path=raw_path,
        query=read_query(raw_query),
        raw_query=raw_query,
        headers=tuple((k.lower(), v) for k, v in pairs),
        peer=Peer(ip=ip, tls=tls),
        body=Given(*body),
        host=HOST,
    )


def signed(  # noqa: PLR0913 -- the parts of a request
    method: str = "GET",
    target: str = "/store/training/a.csv",
    *,
    params: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    at: datetime = NOW,
    secret: str = SECRET,
    key_id: str = KEY_ID,
    presign: int | None = None,
    tls: bool = False,
    region: str = "eu-west-1",
) -> Request:
    """Return a request as botocore signs and sends it."""
    scheme = "https" if tls else "http"
    wanted = AWSRequest(
        method=method, url=f"{scheme}://{HOST}{target}", data=body, params=params, headers=headers or {}
    )
    credentials = Credentials(key_id, secret)
    if presign is None:
        signer: Any = botocore.auth.S3SigV4Auth(credentials, "s3", region)
    else:
        signer = botocore.auth.S3SigV4QueryAuth(credentials, "s3", region, expires=presign)
    with mock.patch("botocore.auth.get_current_datetime", return_value=at.replace(tzinfo=None)):
        signer.add_auth(wanted)
    prepared = wanted.prepare()
    url = urlsplit(prepared.url)
    sent = [
        ("host", HOST),
        *((k, v.decode() if isinstance(v, bytes) else v) for k, v in prepared.headers.items()),
    ]
    request_target = url.path + (f"?{url.query}" if url.query else "")
    return bare(method, request_target, headers=sent, body=(body,), tls=tls)


@dataclass
class FakeAnswer:
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), 1000):
            yield self.body[start : start + 1000]

    async def close(self) -> None:
        pass


@dataclass
class FakeUpstream:
    """Answer from a list or a function, and remember what was sent."""

    answers: Any
    sent: list[UpstreamRequest] = field(default_factory=list)

    async def send(self, request: UpstreamRequest) -> FakeAnswer:
        if request.body is not None and not isinstance(request.body, bytes):
            request.body = b"".join([chunk async for chunk in request.body])
        self.sent.append(request)
        answer: FakeAnswer = self.answers(request) if callable(self.answers) else self.answers.pop(0)
        return answer

    async def close(self) -> None:
        pass
