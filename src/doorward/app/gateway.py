"""The gateway role: decide and enforce in front of the upstreams; no database, no signing keys."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import hmac
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import Any

import structlog

from doorward import telemetry
from doorward.app import certificates
from doorward.app.arrivals import ControlArrivals
from doorward.app.geography import Geography
from doorward.app.ledger import SOCKET
from doorward.app.naming import audience_of, authorization_servers_of, listen_url_of
from doorward.app.supervisor import prepare_data, set_when_asked
from doorward.audit.writer import AuditWriter
from doorward.core.clock import Clock, SystemClock
from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.core.feed import Bundle, Delta, Known
from doorward.core.ids import IdSource
from doorward.core.ports import CredentialRegistry
from doorward.decisions.point import DecisionPoint
from doorward.decisions.shadow_link import ShadowLink
from doorward.decisions.watching import Samples
from doorward.directory.feed import FeedClient
from doorward.directory.snapshot import Snapshot
from doorward.gateway.adapter import Adapter
from doorward.gateway.alarms import Alarms
from doorward.gateway.canonical import opaque_after
from doorward.gateway.edge import Edge
from doorward.gateway.flow import Flow
from doorward.gateway.metadata import ProtectedResources
from doorward.gateway.metrics import GatewayMetrics
from doorward.gateway.protocols.mlflow import MlflowAdapter
from doorward.gateway.protocols.openai import OpenAIAdapter
from doorward.gateway.protocols.s3 import S3Adapter
from doorward.gateway.server import AdminSocket, GatewayServer, Readiness
from doorward.gateway.streams import OpenAnswers
from doorward.gateway.surroundings import Surroundings
from doorward.gateway.upstream import HttpUpstream
from doorward.http1.budget import Budget
from doorward.identity.authenticate import Authenticator
from doorward.identity.key_sets import PROOF_ALGORITHMS
from doorward.identity.last_use import LastUses
from doorward.identity.nonces import Nonces, shared_key
from doorward.ledger.client import Ledger
from doorward.settings import S3CredentialHolder, Settings, UpstreamSettings

_MOST_FILES = 65_536
_GARBAGE = (10_000, 20, 50)
_log = structlog.get_logger()
_ORPHAN_GRACE = 2.0
_INFORMED_SECONDS, _LOOK_SECONDS = 10.0, 0.02
_SAVE_USES_SECONDS = 5.0


class World:
    """What the feed has told so far: the snapshot the registry answers from, and the decision point."""

    def __init__(self, samples: Samples | None = None) -> None:
        """Know nothing; until the feed has spoken everybody is refused."""
        self.point = DecisionPoint(samples)
        self.snapshot = Snapshot.of(Known(version=0))
        self.refused = False  # newer policies were refused, the last good ones rule

    def registry(self) -> CredentialRegistry:
        """Return the newest snapshot, as credentials are checked against it."""
        return self.snapshot

    def issuer_jwks(self) -> Mapping[str, Any]:
        """Return the local issuer's public keys."""
        return self.snapshot.issuer_jwks

    def on_known(self, known: Known) -> None:
        """Take the whole state."""
        self.snapshot = Snapshot.of(known)
        self.point.advance(self.snapshot)

    def on_delta(self, delta: Delta) -> None:
        """Take one change."""
        self.snapshot = self.snapshot.with_delta(delta)
        self.point.advance(self.snapshot)

    def on_bundle(self, bundle: Bundle) -> None:
        """Decide by new policies."""
        self.point.publish(bundle)
        self.refused = False
        _log.info("bundle_activated", bundle=bundle.digest, policies=len(bundle.policies))

    def on_error(self, reason: str) -> None:
        """Say that newer policies were refused; the last good ones rule on."""
        self.refused = True
        _log.warning("bundle_refused", reason=reason)


async def run_gateway(
    settings: Settings, name: str, *, listener: int | None = None, lifeline: int | None = None
) -> None:
    """Run one gateway until it is asked to stop; raises InvalidConfigError when it cannot start.

    `name` is its own among those of the machine: its writer of the log, its admin socket. `listener` is
    the descriptor of a bound socket that it inherited.
    """
    telemetry.configure(role=name)
    prepare_data(settings.data)
    _prepare_process()
    clock = SystemClock()
    ids = IdSource(clock)
    samples = Samples(settings.shadow.every)
    world = World(samples)
    # What was found wrong before is in force before anything is decided.
    shadow = ShadowLink(settings.data, samples, world.point.restrict)
    feed = FeedClient(
        settings.data / "feed.sock", world.on_known, world.on_delta, world.on_bundle, world.on_error
    )
    uses = LastUses(settings.data, name)
    ledger = Ledger(settings.data / SOCKET, name, network=settings.network)
    geography = Geography(settings)
    authenticator = Authenticator(
        world.registry,
        settings.issuer,
        world.issuer_jwks,
        clock,
        audience_of(settings),
        one_time=ledger,
        test_minting=settings.identity.test_minting,
        nonces=Nonces(shared_key(settings.data), clock) if settings.identity.dpop_nonce else None,
        uses=uses,
        resolve=settings.resolve,
        spiffe=settings.spiffe,
        arrivals=ControlArrivals(settings.data, lambda: world.snapshot.version),
        addresses=(listen_url_of(settings),),
    )
    async with (
        AuditWriter(settings.data / "audit", name, clock=clock, ids=ids, settings=settings.audit) as audit,
        _running(feed.run(), ledger.run(), shadow.run(), geography.keep_read()),
    ):
        await certificates.issued(settings, certificates.GATEWAY)
        tls = certificates.context(settings, certificates.GATEWAY)
        server = _server(
            settings,
            name,
            listener=None if listener is None else socket.socket(fileno=listener),
            world=world,
            feed=feed,
            ledger=ledger,
            shadow=shadow,
            geography=geography,
            authenticator=authenticator,
            audit=audit,
            clock=clock,
            ids=ids,
            tls=tls,
        )
        renewal = asyncio.create_task(
            certificates.keep_loaded(tls, certificates.files(settings, certificates.GATEWAY))
        )
        trusting = asyncio.create_task(certificates.keep_trusting(tls, settings))
        saving = asyncio.create_task(_keep_uses(uses, world))
        stop = asyncio.Event()
        asking = asyncio.create_task(_asked(stop, lifeline, server))
        try:
            await _informed(world, ledger, stop)
            await server.run(stop)
        finally:
            renewal.cancel()
            saving.cancel()
            trusting.cancel()
            uses.save()
            asking.cancel()
            await authenticator.close()


async def _asked(stop: asyncio.Event, lifeline: int | None, server: GatewayServer) -> None:
    """Set `stop` when asked; without a supervisor open answers get hardly any time: the next one waits."""
    if await set_when_asked(asyncio.Event(), lifeline):
        server.grace = min(server.grace, _ORPHAN_GRACE)
    stop.set()


async def _informed(world: World, ledger: Ledger, stop: asyncio.Event) -> None:
    """Wait until requests can be decided, so that nobody connects to a gateway that would refuse.

    Not for ever: with everything else gone, a 503 that says so is better than silence.
    """
    loop = asyncio.get_running_loop()
    patience = loop.time() + _INFORMED_SECONDS
    while not stop.is_set() and loop.time() < patience:
        with contextlib.suppress(UnavailableError):
            world.point.pin()
            if ledger.connected:
                return
        await asyncio.sleep(_LOOK_SECONDS)


async def _keep_uses(uses: LastUses, world: World) -> None:
    """Write down now and then when keys were used, until cancelled."""
    while True:
        await asyncio.sleep(_SAVE_USES_SECONDS)
        uses.forget_others(frozenset(world.snapshot.keys))
        await asyncio.to_thread(uses.save)


def _prepare_process() -> None:
    """Allow as many connections as this account may have; look for cycles of garbage less often.

    Requests make next to none, and a search walks everything that is known about people and assets.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or soft < hard):
        most = _MOST_FILES if hard == resource.RLIM_INFINITY else hard
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


def adapter_for(
    upstream: UpstreamSettings, *, registry: Callable[[], CredentialRegistry], clock: Clock
) -> Adapter:
    """Return the protocol of an upstream; raise InvalidConfigError for a kind not spoken yet."""
    match upstream.kind:
        case "openai":
            return OpenAIAdapter(upstream)
        case "mlflow":
            return MlflowAdapter(upstream)
        case "s3":
            return S3Adapter(upstream, registry=registry, etag_key=_etag_key(upstream), clock=clock)
    raise InvalidConfigError(
        f"upstream `{upstream.name}`: the protocol `{upstream.kind}` is not spoken yet",
        hint="This version speaks openai, mlflow and s3.",
    )


def _etag_key(upstream: UpstreamSettings) -> bytes:
    """Derive the key of masked objects' ETags from the upstream's secret: stable, and no secret itself."""
    holder = upstream.credential
    secret = holder.s3.secret_access_key if isinstance(holder, S3CredentialHolder) else upstream.name
    return hmac.digest(secret.encode(), b"doorward masked etag", hashlib.sha256)


def _server(  # noqa: PLR0913 -- the parts of one gateway, named once
    settings: Settings,
    name: str,
    *,
    listener: socket.socket | None,
    world: World,
    feed: FeedClient,
    ledger: Ledger,
    shadow: ShadowLink,
    geography: Geography,
    authenticator: Authenticator,
    audit: AuditWriter,
    clock: Clock,
    ids: IdSource,
    tls: Any,
) -> GatewayServer:
    surroundings = Surroundings(
        geo=geography.place_of, lookout=ledger.lookout if settings.network.signals else None
    )
    open_answers = OpenAnswers(lambda: world.point.changed + surroundings.changed)
    metrics = GatewayMetrics(open_answers=lambda: len(open_answers), staleness=feed.staleness)
    for gauge, text, read in (*shadow.numbers(), *_tier_1(world.point)):
        metrics.gauge(gauge, text, read)
    alarms = Alarms(audit, clock=clock, ids=ids, count=metrics.found_odd)
    ledger.lookout.watched.on_raised(alarms.raise_)
    budget = Budget(settings.gateway.max_buffered)
    upstreams = {
        upstream.name: HttpUpstream(
            upstream, timeout=settings.gateway.upstream_timeout, base=settings.base, budget=budget
        )
        for upstream in settings.upstream
    }
    flow = Flow(
        authenticator=authenticator,
        point=world.point,
        adapters={
            upstream.name: adapter_for(upstream, registry=world.registry, clock=clock)
            for upstream in settings.upstream
        },
        upstreams=upstreams,
        audit=audit,
        limits=ledger,
        places=ledger,
        open_answers=open_answers,
        clock=clock,
        ids=ids,
        settings=settings.gateway,
        staleness=feed.staleness,
        meter=metrics,
        surroundings=surroundings,
        resources=ProtectedResources(
            audience_of(settings),
            upstreams=upstreams,
            authorization_servers=authorization_servers_of(settings),
            proof_algorithms=PROOF_ALGORITHMS,
            client_certificates=tls is not None and tls.verify_mode is not ssl.CERT_NONE,
        ),
    )
    opaque = {u.name: depth for u in settings.upstream if (depth := opaque_after(u.kind)) is not None}
    readiness = Readiness(
        world.point,
        staleness=feed.staleness,
        max_staleness=settings.gateway.max_staleness,
        shadow=shadow.report,
        location=lambda: _located(world, geography),
        policies_refused=lambda: world.refused,
    )
    edge = Edge(
        flow, settings=settings.gateway, ids=ids, opaque=opaque, tls=tls, budget=budget, listener=listener
    )
    for gauge, text, read in edge.numbers():
        metrics.gauge(gauge, text, read)
    return GatewayServer(
        flow=flow,
        edge=edge,
        admin=AdminSocket(settings.data / f"{name}.sock", readiness, metrics),
        open_answers=open_answers,
        upstreams=tuple(upstreams.values()),
        grace=settings.gateway.drain,
    )


def _located(world: World, geography: Geography) -> dict[str, object]:
    """Say what locations come from; with neither, `context.network.country` is absent."""
    zones = len(world.snapshot.places)
    known: dict[str, object] = {"zones": zones, "geo": geography.size}
    return (
        known
        if zones or geography.size
        else {**known, "absent": "no zone has a place and there is no geo file"}
    )


@contextlib.asynccontextmanager
async def _running(*jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run jobs for the length of a block."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tier_1(point: DecisionPoint) -> Iterator[tuple[str, str, Callable[[], float]]]:
    """Yield the numbers of generated functions: a failed one leaves its policies slower, never wrong."""
    for what in ("generated", "failed", "refused", "forgotten", "distrusted"):
        text = f"Kinds of requests whose function was {what} since the policies changed."
        yield f"doorward_slices_{what}", text, partial(_count, point, what)


def _count(point: DecisionPoint, what: str) -> float:
    return point.tier_1.get(what, 0)
