"""A stage for playbooks: scripted caller, upstream, decisions and log, and one diary of what happened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from doorward.core.clock import ManualClock
from doorward.core.decision import AccessRequest, Change, Decision, Effect
from doorward.core.errors import (
    AuditUnavailableError,
    BehindError,
    InvalidRequestError,
    UnavailableError,
)
from doorward.core.feed import Place
from doorward.core.identity import Caller
from doorward.core.ids import IdSource
from doorward.core.model import Action, Entity, EntityUid
from doorward.core.obligation import Cap, Mask
from doorward.core.versions import AtLeast
from doorward.core.wire import Answer, Peer, Request, UpstreamRequest
from doorward.gateway.adapter import Ask, BodyNeed, Naming, UnknownRouteError
from doorward.gateway.flow import Flow
from doorward.gateway.refusal import problem
from doorward.gateway.streams import OpenAnswers
from doorward.settings import GatewaySettings, HeaderCredential, UpstreamSettings
from support.shared import Shared

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DANA = EntityUid.of("User", "dana")
SCOUT = EntityUid.of("Agent", "scout")
MODEL = EntityUid.of("Model", "llm/smollm2")
SECRET_MODEL = EntityUid.of("Model", "llm/secret")
UPSTREAM_KEY = "Bearer upstream-own-key"


class GivenBody:
    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks
        self.read = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.read += len(chunk)
            yield chunk


class ScriptedAnswer:
    """Plays a list: bytes are sent, an Event is waited for, an exception is raised."""

    def __init__(self, status: int, headers: list[tuple[str, str]], script: list[Any]) -> None:
        self.status, self.headers, self._script = status, list(headers), script
        self.closed = False

    async def chunks(self) -> AsyncIterator[bytes]:
        for step in self._script:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
            else:
                yield step

    async def close(self) -> None:
        self.closed = True


@dataclass
class ScriptedUpstream:
    diary: list[str]
    answers: list[Any] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    given: list[ScriptedAnswer] = field(default_factory=list)

    async def send(self, request: UpstreamRequest) -> ScriptedAnswer:
        self.diary.append("upstream")
        body = request.body if isinstance(request.body, bytes) else b""
        if request.body is not None and not isinstance(request.body, bytes):
            body = b"".join([chunk async for chunk in request.body])
        headers = {name.lower(): value for name, value in request.headers}
        self.seen.append((request.method, request.target, headers, body))
        self.called.set()
        step = self.answers.pop(0)
        if isinstance(step, asyncio.Event):
            await step.wait()
            step = self.answers.pop(0)
        if isinstance(step, BaseException):
            raise step
        self.given.append(step)
        return step

    async def close(self) -> None:
        pass


class PlainAdapter:
    """POST /llm/invoke {"model"} invokes, GET /llm/list lists, PUT /llm/upload streams in; that is all."""

    kind = "http"

    def __init__(self, settings: UpstreamSettings) -> None:
        self.settings = settings
        self.kept: frozenset[type] = frozenset({Mask, Cap})

    def keeps(self, naming: Naming) -> frozenset[type]:  # noqa: ARG002 -- the port's signature
        return self.kept

    def body_need(self, request: Request) -> BodyNeed:
        return {"POST": BodyNeed.WHOLE, "PUT": BodyNeed.STREAM}.get(request.method, BodyNeed.NONE)

    def name(self, request: Request, body: bytes, catalogue: Any) -> Naming:  # noqa: ARG002 -- the port's signature
        match (request.method, request.path):
            case ("POST", "/llm/invoke"):
                try:
                    names = json.loads(body)["model"].split(",")
                except ValueError:
                    raise InvalidRequestError("the body is not JSON") from None
                asks = tuple(Ask(Action.INVOKE, EntityUid.of("Model", f"llm/{name}")) for name in names)
                return Naming(asks=asks, route="/invoke", model=names[0])
            case ("PUT", "/llm/upload"):
                return Naming(asks=(Ask(Action.CREATE, MODEL),), route="/upload")
            case ("GET", "/llm/list"):
                return Naming(asks=(), route="/list", lists=True)
            case ("GET", "/llm/nothing"):
                return Naming(asks=(), route="/nothing")
        raise UnknownRouteError

    async def forward(self, permit: Any, upstream: Any) -> Answer:
        if permit.naming.lists:
            names = [
                name for name in ("smollm2", "secret") if permit.sees(EntityUid.of("Model", f"llm/{name}"))
            ]
            permit.outcome["shown"] = len(names)
            return Answer(status=200, headers=[], body=",".join(names).encode())
        stream = permit.request.body.chunks() if permit.request.method == "PUT" else permit.body
        target = permit.request.raw_path.removeprefix("/llm")
        answer = await upstream.send(
            UpstreamRequest(
                method=permit.request.method, target=target, headers=list(permit.request.headers), body=stream
            )
        )
        permit.outcome["tokens_out"] = 7
        return Answer(status=answer.status, headers=answer.headers, body=answer.chunks())

    def refuse(self, request: Request, refusal: Any) -> Answer:  # noqa: ARG002 -- the port's signature
        return problem(refusal)

    def broken_off(self, request: Request, refusal: Any) -> bytes:  # noqa: ARG002 -- the port's signature
        return f"data: {refusal.code}\n\n".encode()

    def not_found(self, request: Request, naming: Naming, request_id: str) -> Answer:  # noqa: ARG002 -- the port's signature
        return Answer(
            status=404, headers=[("Content-Type", "application/json")], body=b'{"error":"no such model"}'
        )


class ScriptedPoint:
    """Decides by a table; what is not in it is denied. It is its own standpoint and its own snapshot."""

    def __init__(self) -> None:
        self.changed, self.version = 1, 42
        self.bundle_digest, self.entities_version = "sha256:b1", "v42"
        self.allowed: dict[tuple[str, str, str], Decision] = {}
        self.hidden: set[EntityUid] = set()
        self.fault: BaseException | None = None
        self.gone = False
        self.purposes = {DANA: frozenset({"fraud-model", "marketing"})}
        self.entities: dict[EntityUid, Entity] = {
            DANA: Entity(DANA, {"active": True, "risk": 3}),
            SCOUT: Entity(
                SCOUT, {"active": True, "risk": 5, "environment": EntityUid.of("Environment", "production")}
            ),
        }
        self.asked: list[AccessRequest] = []
        self.covers: dict[str, str] = {}
        self.waited: list[tuple[AtLeast, float]] = []

    @property
    def snapshot(self) -> ScriptedPoint:
        return self

    def allow(self, principal: EntityUid, action: str, resource: EntityUid, *obligations: Any) -> None:
        self.allowed[(str(principal), action, str(resource))] = Decision(
            Effect.ALLOW, determining=("permit-it",), obligations=obligations
        )

    async def at_least(self, demand: AtLeast, seconds: float) -> None:
        self.waited.append((demand, seconds))
        if self.version < demand.entities:
            raise BehindError(demand)

    def pin(self) -> ScriptedPoint:
        if self.gone:
            raise UnavailableError("no policies have been loaded")
        return self

    def decide(self, request: AccessRequest) -> Decision:
        self.asked.append(request)
        if self.fault is not None:
            raise self.fault
        key = (str(request.principal), request.action.id, str(request.resource))
        return self.allowed.get(key, Decision(Effect.DENY, determining=("forbid-it",)))

    def explain(self, request: AccessRequest, decision: Decision, caller: Caller | None) -> Decision:  # noqa: ARG002 -- the port's signature
        return Decision(
            Effect.DENY,
            determining=decision.determining,
            advice=("models of this kind need a managed device",),
            would_allow=(Change("context.device.proven", "show your device's certificate"),),
        )

    def visible(self, principal: EntityUid, resource: EntityUid) -> bool:  # noqa: ARG002 -- the port's signature
        # Nothing is registered above the models, unless a test says so.
        return resource not in self.hidden and ("/" in resource.id or resource in self.entities)

    def inputs(self, request: AccessRequest) -> str:  # noqa: ARG002 -- the port's signature
        return "sha256:inputs"

    def entity(self, uid: EntityUid) -> Entity | None:
        return self.entities.get(uid)

    def covering(self, name: str, kinds: tuple[str, ...]) -> EntityUid | None:
        return EntityUid.of(kinds[0], self.covers.get(name, name))

    def zone_of(self, ip: str) -> str:
        return "office" if ip.startswith("10.") else "unknown"

    def place_of(self, _ip: str) -> Place:
        return Place()

    def purposes_of(self, principal: EntityUid) -> frozenset[str]:
        return self.purposes.get(principal, frozenset())


class ScriptedAuthenticator:
    def __init__(self) -> None:
        self.caller = Caller(principal=DANA, credential="key-1", method="key")
        self.fault: BaseException | None = None
        self.valid = True

    async def authenticate(self, request: Request) -> Caller:  # noqa: ARG002 -- the port's signature
        if self.fault is not None:
            raise self.fault
        return self.caller

    def still_valid(self, caller: Caller) -> bool:  # noqa: ARG002 -- the port's signature
        return self.valid


class DiaryLog:
    def __init__(self, diary: list[str]) -> None:
        self._diary = diary
        self.records: list[Any] = []
        self.full = False

    async def write(self, record: Any) -> None:
        if self.full:
            raise AuditUnavailableError("the log is full", hint="Free some space.")
        self._diary.append(f"record:{record.kind}:{record.decision}:{record.code}")
        self.records.append(record)

    def write_soon(self, record: Any) -> None:
        how = record.outcome["ended"] if record.kind == "outcome" else record.code
        self._diary.append(f"record:{record.kind}:{how}")
        self.records.append(record)


class Stage:
    """Everything one playbook needs; `diary` is the exact order of records and upstream calls."""

    def __init__(self, *, resources: Any = None, surroundings: Any = None, **gateway: Any) -> None:
        self.diary: list[str] = []
        self.clock = ManualClock(START)
        self.point, self.authenticator = ScriptedPoint(), ScriptedAuthenticator()
        self.log, self.upstream = DiaryLog(self.diary), ScriptedUpstream(self.diary)
        self.limits = Shared(self.clock)
        self.open = OpenAnswers(lambda: self.point.changed)
        self.stale = 0.0
        settings = UpstreamSettings(
            name="llm",
            kind="http",
            url="http://127.0.0.1:9",
            credential=HeaderCredential.model_construct(header="Authorization", value=UPSTREAM_KEY),
        )
        self.adapter = PlainAdapter(settings)
        self.ids = IdSource(self.clock)
        self.flow = Flow(
            authenticator=self.authenticator,
            point=self.point,
            adapters={"llm": self.adapter},
            upstreams={"llm": self.upstream},
            audit=self.log,
            limits=self.limits,
            open_answers=self.open,
            clock=self.clock,
            ids=self.ids,
            settings=GatewaySettings(**gateway),
            staleness=lambda: self.stale,
            resources=resources,
            surroundings=surroundings,
        )

    def request(
        self,
        method: str = "POST",
        path: str = "/llm/invoke",
        *,
        body: bytes = b'{"model":"smollm2"}',
        headers: tuple[tuple[str, str], ...] = (),
        ip: str = "10.0.0.7",
    ) -> Request:
        length = () if method == "GET" else (("content-length", str(len(body))),)
        return Request(
            id=self.ids.new(),
            method=method,
            path=path,
            raw_path=path,
            query=(),
            raw_query="",
            headers=(("host", "gate"), ("authorization", "Bearer dw_caller"), *length, *headers),
            peer=Peer(ip=ip),
            body=GivenBody(body),
        )

    def answers(
        self, *script: Any, status: int = 200, headers: list[tuple[str, str]] | None = None
    ) -> ScriptedAnswer:
        answer = ScriptedAnswer(status, headers or [("Content-Type", "text/plain")], list(script))
        self.upstream.answers.append(answer)
        return answer

    async def play(self, **request: Any) -> tuple[Answer, bytes]:
        answer = await self.flow.handle(self.request(**request))
        return answer, await whole(answer)


async def whole(answer: Answer) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    return b"".join([chunk async for chunk in answer.body])


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def build_stage() -> Callable[..., Stage]:
    return Stage


@pytest.fixture
def entire() -> Callable[[Answer], Any]:
    return whole
