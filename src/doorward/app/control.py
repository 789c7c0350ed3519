"""The control role: the only process with the database and the keys; it tells gateways what is known."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import structlog

from doorward import telemetry
from doorward.app import certificates, sources
from doorward.app.checkpoint_keys import CheckpointKeys
from doorward.app.ledger import SOCKET
from doorward.app.naming import audience_of, issuer_of
from doorward.app.signals import hearing
from doorward.app.supervisor import prepare_data, set_when_asked
from doorward.audit.head import Checkpointer
from doorward.audit.reader import AuditReader
from doorward.audit.writer import AuditWriter
from doorward.console.app import build
from doorward.console.links import first_admin_link
from doorward.console.serve import serve
from doorward.console.services import Services
from doorward.core.clock import SystemClock
from doorward.core.errors import DoorwardError
from doorward.core.feed import Bundle
from doorward.core.identity import KeyRecord
from doorward.core.ids import IdSource
from doorward.decisions.point import DecisionPoint
from doorward.decisions.shadow_link import ShadowLink
from doorward.decisions.watching import Samples
from doorward.directory.administration import Directory
from doorward.directory.feed import FeedServer
from doorward.identity.access_tokens import TokenVerifier
from doorward.identity.custody import Custodian
from doorward.identity.device_authority import DeviceAuthority
from doorward.identity.fetching import HttpFetcher
from doorward.identity.introspection import introspectors_by
from doorward.identity.issuer import LocalIssuer
from doorward.identity.issuer_keys import FedKeys
from doorward.ledger.client import Ledger
from doorward.policies.workspace import Workspace
from doorward.settings import Settings
from doorward.store.opened import Store

_log = structlog.get_logger()


async def run_control(settings: Settings, *, lifeline: int | None = None) -> None:
    """Run the control role until it is asked to stop.

    Raises InvalidPolicyError or InvalidConfigError when it cannot start: a broken start is loud.
    """
    telemetry.configure(role="control")
    prepare_data(settings.data)
    async with _opened(settings) as (services, feed, bundle):
        certificates.issue(settings, services.device_authority, services.clock)
        feed.on_bundle(bundle)
        await feed.start()
        stop = asyncio.Event()
        try:
            async with (
                hearing(services) as pollers,
                _running(
                    set_when_asked(stop, lifeline),
                    services.workspace.watch(_publisher(services, feed), _reporter(feed)),
                    _checkpointer(services.custodian, settings).keep(),
                    certificates.keep_issued(settings, services.device_authority, services.clock),
                    sources.keep_aging(services.directory),
                    *(follower.run() for follower in sources.followers(services)),
                    *pollers,
                    *(() if services.shadow is None else (services.shadow.run(),)),
                ),
            ):
                await serve(
                    build(services),
                    listen=settings.control.listen,
                    socket_path=settings.data / "control.sock",
                    stop=stop,
                    tls=certificates.context(settings, certificates.CONTROL),
                    on_ready=lambda _port: _greet(services),
                )
        finally:
            await feed.stop()


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Services, FeedServer, Bundle]]:
    """Open everything the control role owns, and close it in the opposite order."""
    clock = SystemClock()
    ids = IdSource(clock)
    custodian = Custodian.open(settings.keys.provider, settings.data)
    workspace = Workspace(settings.resolve(settings.policies.path))
    # The policies are read before anything listens: the first start with a broken set fails.
    bundle = await asyncio.to_thread(workspace.load)
    store = Store.open(settings.control.database, settings.data)
    try:
        directory = Directory(store, clock, ids)
        await asyncio.to_thread(directory.conform, bundle.schema)
        directory.register_upstreams({u.name: u.environment for u in settings.upstream})
        samples = Samples(settings.shadow.every)
        point = DecisionPoint(samples)
        # What was found wrong before is in force before anything is decided.
        shadow = ShadowLink(settings.data, samples, point.restrict)
        point.publish(bundle)
        point.advance(directory.snapshot)
        directory.subscribe(lambda _delta: point.advance(directory.snapshot))
        issuer = LocalIssuer(
            custodian,
            issuer=issuer_of(settings),
            audience=audience_of(settings),
            clock=clock,
            ids=ids,
            lifetime=settings.identity.token_lifetime,
            test_minting=settings.identity.test_minting,
        )
        tokens, fetcher = _tokens(settings, issuer, clock)
        ledger = Ledger(settings.data / SOCKET, "control")
        async with (
            AuditWriter(
                settings.data / "audit", "control", clock=clock, ids=ids, settings=settings.audit
            ) as audit,
            _running(ledger.run()),
        ):
            services = Services(
                settings=settings,
                clock=clock,
                ids=ids,
                directory=directory,
                custodian=custodian,
                issuer=issuer,
                device_authority=DeviceAuthority(custodian, clock),
                point=point,
                audit=audit,
                reader=AuditReader(settings.data / "audit"),
                workspace=workspace,
                shadow=shadow,
                tokens=tokens,
                one_time=ledger,
            )
            feed = _feed(services)
            custodian.on_rotation(lambda _use: _spread(services, feed))
            try:
                yield services, feed, bundle
            finally:
                if tokens is not None:
                    await tokens.close()
                await fetcher.close()
        # The clean end of our own log is promised, too.
        await asyncio.to_thread(_checkpointer(custodian, settings).sign_now)
    finally:
        store.close()


def _tokens(
    settings: Settings, issuer: LocalIssuer, clock: SystemClock
) -> tuple[TokenVerifier | None, HttpFetcher]:
    """Return what verifies tokens of people who arrive, None where no issuer maps or provisions."""
    fetcher = HttpFetcher()
    if not any(one.map or one.provision for one in settings.issuer):
        return None, fetcher
    verifier = TokenVerifier(
        settings.issuer,
        local=FedKeys(issuer.jwks),
        audience=audience_of(settings),
        clock=clock,
        fetch=fetcher,
        introspectors=introspectors_by(fetcher.post, clock=clock, resolve=settings.resolve),
    )
    return verifier, fetcher


def _checkpointer(custodian: Custodian, settings: Settings) -> Checkpointer:
    return Checkpointer(settings.data / "audit", keys=CheckpointKeys(custodian), clock=SystemClock())


def _feed(services: Services) -> FeedServer:
    def s3_secret(key: KeyRecord) -> str | None:
        if not key.access_key_id:
            return None
        return services.custodian.s3_secret(key.id, key.generation, key.created)

    return FeedServer(
        services.settings.data / "feed.sock",
        services.directory,
        s3_secret=s3_secret,
        issuer_jwks=services.issuer.jwks,
    )


def _spread(services: Services, feed: FeedServer) -> None:
    """Let everybody use a rotated key at once: listeners their certificates, gateways the rest."""
    certificates.issue(services.settings, services.device_authority, services.clock)
    feed.resync()


@contextlib.asynccontextmanager
async def _running(*jobs: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Run jobs beside a block and end them with it; a job that fails is told, and ends nothing else."""
    tasks = [asyncio.create_task(job) for job in jobs]
    for task in tasks:
        task.add_done_callback(_tell_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("control_job_failed", error=str(error), kind=type(error).__name__)


def _publisher(services: Services, feed: FeedServer) -> Any:
    async def publish(bundle: Bundle) -> None:
        """Let a bundle rule, unless what is known does not fit its schema: then it raises, to be told."""
        await asyncio.to_thread(services.directory.conform, bundle.schema)
        services.point.publish(bundle)
        feed.on_bundle(bundle)

    return publish


def _reporter(feed: FeedServer) -> Any:
    def report(error: DoorwardError) -> None:
        feed.on_bundle_error(error.message)

    return report


def _greet(services: Services) -> None:
    """Print the one-time link that makes the first admin; it is shown nowhere else."""
    link = first_admin_link(services, "startup")
    if link is not None:
        sys.stdout.write(f"first admin: open {link} within 15 minutes; it works once\n")
        sys.stdout.flush()
