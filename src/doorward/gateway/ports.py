"""What the flow needs of its neighbours, as it calls them; plugged by `app`, faked by tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from doorward.core.decision import AccessRequest, Decision
from doorward.core.feed import Place
from doorward.core.identity import Caller
from doorward.core.model import Entity, EntityUid
from doorward.core.versions import AtLeast
from doorward.core.wire import Request


class KnownWorld(Protocol):
    """Answer what is known at one version (`directory.snapshot.Snapshot`)."""

    @property
    def version(self) -> int:
        """Return the version."""

    def entity(self, uid: EntityUid) -> Entity | None:
        """Return a registered entity, None for any other name."""

    def covering(self, name: str, kinds: tuple[str, ...]) -> EntityUid | None:
        """Return the registered asset of one of `kinds` with the longest name equal to or above `name`."""

    def zone_of(self, ip: str) -> str:
        """Return the name of the zone an address lies in, else `unknown`."""

    def place_of(self, ip: str) -> Place:
        """Return where on earth that zone lies, as far as it is known."""

    def purposes_of(self, principal: EntityUid) -> frozenset[str]:
        """Return what a principal may use data for."""


class Standpoint(Protocol):
    """Decide on one snapshot and one bundle (`decisions.point.Standpoint`)."""

    @property
    def snapshot(self) -> KnownWorld:
        """Return what is known here."""

    @property
    def bundle_digest(self) -> str:
        """Return the bundle's digest."""

    @property
    def entities_version(self) -> str:
        """Return the snapshot's version as records write it: `v42`."""

    def decide(self, request: AccessRequest) -> Decision:
        """Decide without I/O."""

    def explain(self, request: AccessRequest, decision: Decision, caller: Caller | None) -> Decision:
        """Fill in what the caller may be told of a denial."""

    def visible(self, principal: EntityUid, resource: EntityUid) -> bool:
        """Return whether a resource may exist for a principal."""

    def regions(
        self,
        request: AccessRequest,
        within: str,
        *,
        uid_of: Callable[[str], EntityUid],
        also: Iterable[str] = (),
    ) -> tuple[tuple[str, bool | None], ...] | None:
        """Return the verdicts on what lies under a name, by name; None where they are too many."""

    def inputs(self, request: AccessRequest) -> str:
        """Return the sha256 of everything the decision reads."""


class Point(Protocol):
    """Hold the newest bundle and snapshot (`decisions.point.DecisionPoint`).

    On failure: `pin` raises UnavailableError and everything is denied.
    """

    @property
    def changed(self) -> int:
        """Return a number that grows whenever bundle or snapshot move."""

    def pin(self) -> Standpoint:
        """Return the present standpoint, which stays as it is."""

    async def at_least(self, demand: AtLeast, seconds: float) -> None:
        """Return once decisions rest on what is demanded; raise BehindError after so long."""


class Authenticates(Protocol):
    """Verify credentials (`identity.authenticate.Authenticator`)."""

    async def authenticate(self, request: Request) -> Caller:
        """Return who asks; raise UnauthenticatedError or InvalidRequestError."""

    def still_valid(self, caller: Caller) -> bool:
        """Return whether an earlier caller's credential still stands."""


class Meter(Protocol):
    """Count what happens; never fails a request."""

    def answered(self, *, upstream: str, code: str, status: int, seconds: float) -> None:
        """Count one answer."""
