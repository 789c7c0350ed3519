"""Follow one LDAP directory: read what changed, judge it, record it, carry it out; again a second later."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import replace
from prometheus_client import Gauge

from doorward.console.provisioned import GovernorsError, record_of, require_no_governor
from doorward.core.errors import DoorwardError, UnavailableError
from doorward.core.provisioning import SourceState, Vouched
from doorward.core.secret import Secret
from doorward.directory.draft import MovedOnError
from doorward.directory.ldap.entries import DEFAULTS, Reads, Server
from doorward.directory.ldap.reading import Reader, Reading
from doorward.directory.ldap.sync import Brake, Outcome, outcome_of
from doorward.directory.ldap.wire import Endpoint
from doorward.directory.rules import Rules

if TYPE_CHECKING:
    from doorward.console.services import Services
    from doorward.core.model import EntityUid
    from doorward.settings import DirectorySourceSettings
    from doorward.store.provisioning import SqlSources

_TRIES = 6
# Accounts that end by themselves change nothing in the directory when they do.
_LOOK_AT_EXPIRY = 5.0
_KEEP_STATE_EVERY = 30.0
_LONGEST_WAIT = 15.0
_RECORD_SECONDS = 30.0
_SEEN = Gauge("doorward_source_seen_seconds", "When a followed directory last answered whole.", ["source"])
_HELD = Gauge("doorward_source_held_back", "Removals of a followed directory to be confirmed.", ["source"])
_log = structlog.get_logger()


class Follower:
    """Keep the directory in step with one source. `once` runs in a thread of its own."""

    def __init__(self, services: Services, section: DirectorySourceSettings, kept: SqlSources) -> None:
        """Take what was kept of the source when it was last followed."""
        self._services, self._section, self._kept = services, section, kept
        self._rules = _rules(section)
        self._reader = Reader(_endpoint(section), _reads(section), services.clock)
        self._confirmed = threading.Event()
        self._expiry_looked = self._state_kept = -_KEEP_STATE_EVERY
        self._failures = 0
        self.state = kept.load().get(section.source, SourceState(name=section.source))
        if self.state.seen is not None:
            services.directory.vouch(section.source, Vouched(self.state.seen, section.max_age))

    def confirm(self) -> None:
        """Let the next reading take out however many it takes out."""
        self._confirmed.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix=self._section.source)
        try:
            while True:
                await loop.run_in_executor(thread, self.once, loop)
                await asyncio.sleep(self._wait())
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    def once(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read and carry out once; whatever fails is told and tried again."""
        try:
            outcome = self._step(loop)
        except Exception as error:  # noqa: BLE001 -- one bad reading must not end the following
            self._failures += 1
            self._reader.close()
            if not isinstance(error, DoorwardError):
                _log.exception("directory_source_fault", source=self._section.source)
            self._tell(replace(self.state, problem=str(getattr(error, "message", type(error).__name__))))
            return
        self._failures = 0
        now = self._services.clock.now()
        self._services.directory.vouch(self._section.source, Vouched(now, self._section.max_age))
        _SEEN.labels(self._section.source).set(now.timestamp())
        if outcome is not None:
            if outcome.held_back:
                self._reader.again()
            self._tell(replace(self.state, seen=now, problem=outcome.problem, held_back=outcome.held_back))
        else:
            self._tell(replace(self.state, seen=now))

    # Inside

    def _wait(self) -> float:
        longer = self._section.interval * 2.0**self._failures if self._failures else self._section.interval
        # What is held back is looked at again, whole; not each second.
        slower = _LOOK_AT_EXPIRY if self.state.held_back and not self._confirmed.is_set() else 0.0
        return max(self._section.interval, slower, min(longer, _LONGEST_WAIT))

    def _step(self, loop: asyncio.AbstractEventLoop) -> Outcome | None:
        if self._confirmed.is_set():
            self._reader.again()
        reading = self._reader.poll()
        monotonic = self._services.clock.monotonic()
        if reading is None and monotonic < self._expiry_looked + _LOOK_AT_EXPIRY:
            return None
        self._expiry_looked = monotonic
        outcome = self._carried_out(reading or Reading(whole=False), loop)
        return outcome if reading is not None else None

    def _carried_out(self, reading: Reading, loop: asyncio.AbstractEventLoop) -> Outcome:
        """Carry out what a reading comes to: who may not be taken in is left out, who leaves leaves."""
        barred: frozenset[EntityUid] = frozenset()
        leaving_only, refused = False, tuple[str, ...]()
        brake = Brake(self._section.max_removals, off=self._confirmed.is_set())
        for _ in range(_TRIES):
            try:
                outcome = outcome_of(
                    reading,
                    self._services.directory,
                    self._rules,
                    brake,
                    self._services.clock.now(),
                    barred=barred,
                    leaving_only=leaving_only,
                )
                self._commit(outcome, loop)
            except MovedOnError:
                continue
            except GovernorsError as error:
                refused = (*refused, error.message)
                leaving_only = leaving_only or error.who <= barred
                barred |= error.who
                continue
            except UnavailableError:
                raise
            except DoorwardError as error:
                if leaving_only:
                    raise
                refused, leaving_only = (*refused, error.message), True
                continue
            if reading.whole:
                self._confirmed.clear()
            return replace(outcome, problems=(*refused, *outcome.problems))
        raise UnavailableError("the directory changes too fast to be followed")

    def _commit(self, outcome: Outcome, loop: asyncio.AbstractEventLoop) -> None:
        services, plan = self._services, outcome.plan
        require_no_governor(services, plan)
        if plan.empty:
            return
        entry = record_of(
            services,
            plan,
            who=self._section.source,
            asked_as=services.ids.new(),
            detail=f"{self._section.source} changed",
            via="ldap",
        )
        asyncio.run_coroutine_threadsafe(services.audit.write(entry), loop).result(_RECORD_SECONDS)
        services.directory.provision(plan, operator=self._section.source)

    def _tell(self, state: SourceState) -> None:
        before, self.state = self.state, state
        changed = (before.problem, before.held_back) != (state.problem, state.held_back)
        _HELD.labels(state.name).set(state.held_back)
        if changed:
            level = _log.error if state.problem else _log.info
            level(
                "directory_source_stands",
                source=state.name, problem=state.problem, held_back=state.held_back,
            )  # fmt: skip
        monotonic = self._services.clock.monotonic()
        if changed or monotonic > self._state_kept + _KEEP_STATE_EVERY:
            self._state_kept = monotonic
            self._kept.save(state)


def _rules(section: DirectorySourceSettings) -> Rules:
    named = ("issuer", "domain", "groups", "roles", "projects", "clearance", "adopt", "govern")
    return Rules(source=section.source, **{name: getattr(section, name) for name in named})


def _endpoint(section: DirectorySourceSettings) -> Endpoint:
    return Endpoint(
        url=section.url,
        bind_dn=section.bind_dn,
        password=Secret(section.password) if section.password else None,
        ca=str(section.ca) if section.ca is not None else None,
        start_tls=section.start_tls,
        timeout=section.timeout,
    )


def _reads(section: DirectorySourceSettings) -> Reads:
    server = Server(section.server)
    chosen: dict[str, Any] = {
        "user_filter": section.user_filter,
        "group_filter": section.group_filter,
        "member": section.member,
        "inactive_attribute": section.inactive.attribute if section.inactive else "",
        "inactive_values": section.inactive.values if section.inactive else (),
        **{str(name): value for name, value in section.attributes.items()},
    }
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value}
    return Reads(server=server, base=section.base, **(DEFAULTS[server] | given))
