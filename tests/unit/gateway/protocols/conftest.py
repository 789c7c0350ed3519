"""Scripted upstreams and hand-made requests for the protocol files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

import pytest

from doorward.core.identity import Caller
from doorward.core.model import EntityUid
from doorward.core.wire import Answer, Peer, Request, UpstreamRequest
from doorward.gateway.adapter import Adapter, Naming, Permit, Refining


class GivenBody:
    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    async def chunks(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


@dataclass
class ScriptedAnswer:
    status: int
    headers: list[tuple[str, str]]
    parts: tuple[bytes, ...]
    closed: bool = False

    async def chunks(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part

    async def close(self) -> None:
        self.closed = True


@dataclass
class ScriptedUpstream:
    """Answer each request by `script(request) -> (status, body or parts)` and remember it."""

    script: Callable[[UpstreamRequest], tuple[int, bytes | tuple[bytes, ...]]]
    headers: list[tuple[str, str]] = field(default_factory=lambda: [("Content-Type", "application/json")])
    requests: list[UpstreamRequest] = field(default_factory=list)
    answers: list[ScriptedAnswer] = field(default_factory=list)

    async def send(self, request: UpstreamRequest) -> ScriptedAnswer:
        self.requests.append(request)
        status, body = self.script(request)
        parts = (body,) if isinstance(body, bytes) else body
        self.answers.append(ScriptedAnswer(status, list(self.headers), parts))
        return self.answers[-1]

    async def close(self) -> None:
        """Nothing is pooled."""


class Catalogue:
    def covering(self, name: str, kinds: tuple[str, ...]) -> EntityUid | None:
        del name, kinds


class Play:
    """Play requests through one adapter, as the flow does."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def request(
        self,
        line: str,
        body: bytes = b"",
        *,
        content_type: str | None = "application/json",
        headers: Iterable[tuple[str, str]] = (),
    ) -> Request:
        method, target = line.split(" ", 1)
        raw_path, _, raw_query = target.partition("?")
        raw_path = f"/{self.adapter.settings.name}{raw_path}"
        given = [("content-type", content_type)] if content_type is not None else []
        return Request(
            id="req-1",
            method=method,
            path=unquote(raw_path),
            raw_path=raw_path,
            query=tuple(parse_qsl(raw_query, keep_blank_values=True)),
            raw_query=raw_query,
            headers=(*given, *headers),
            peer=Peer(ip="127.0.0.1"),
            body=GivenBody(body),
        )

    def name(self, line: str, body: bytes = b"", **more: object) -> Naming:
        return self.adapter.name(self.request(line, body, **more), body, Catalogue())  # type: ignore[arg-type]  # test keywords

    def asks(self, line: str, body: bytes = b"") -> list[str]:
        return [f"{ask.action} {ask.resource}" for ask in self.name(line, body).asks]

    async def refined(self, line: str, body: bytes, upstream: ScriptedUpstream) -> Naming:
        assert isinstance(self.adapter, Refining)
        return await self.adapter.refine(self.request(line, body), self.name(line, body), upstream)

    def permit(self, request: Request, body: bytes, naming: Naming, *, hidden: Iterable[str] = ()) -> Permit:
        unseen = set(hidden)
        return Permit(
            request=request,
            body=body,
            naming=naming,
            caller=Caller(EntityUid.of("User", "dana"), credential="k1", method="key"),
            obligations=(),
            sees=lambda uid: str(uid) not in unseen,
            outcome={},
        )

    async def forward(
        self,
        line: str,
        upstream: ScriptedUpstream,
        body: bytes = b"",
        *,
        hidden: Iterable[str] = (),
        headers: Iterable[tuple[str, str]] = (),
    ) -> tuple[Answer, bytes, dict[str, int]]:
        request = self.request(line, body, headers=headers)
        naming = self.adapter.name(request, body, Catalogue())
        if isinstance(self.adapter, Refining):
            naming = await self.adapter.refine(request, naming, upstream)
        permit = self.permit(request, body, naming, hidden=hidden)
        answer = await self.adapter.forward(permit, upstream)
        content = answer.body if isinstance(answer.body, bytes) else b"".join([c async for c in answer.body])
        return answer, content, permit.outcome


@pytest.fixture
def play() -> type[Play]:
    return Play


@pytest.fixture
def scripted() -> type[ScriptedUpstream]:
    return ScriptedUpstream
