"""What a protocol file must provide, and what the flow gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Protocol, runtime_checkable

import msgspec

from doorward.core.context import RequestContext
from doorward.core.decision import Change
from doorward.core.identity import Caller
from doorward.core.model import Action, EntityUid
from doorward.core.obligation import AnyObligation, Obligation
from doorward.core.wire import Answer, Request, UpstreamClient
from doorward.gateway.prefixes import Place, Prefixes
from doorward.settings import UpstreamSettings


class BodyNeed(Enum):
    """Say what an adapter must read before it can name a request."""

    NONE = "none"
    WHOLE = "whole"
    STREAM = "stream"


class Ask(msgspec.Struct, frozen=True):
    """Name one thing the request does; all of a request's asks must be allowed."""

    action: Action
    resource: EntityUid


class Naming(msgspec.Struct, frozen=True, kw_only=True):
    """State what a request does. `route` is the matched template, for records and metrics.

    `lists` marks an answer that the adapter filters name by name: each name is decided as `view`.
    `detail` is for the adapter's own use between `name` and `forward`. `within` is filled in for
    `not_found`: the nearest name above a hidden one that this caller may view, if there is any.
    `arguments` are those of a tool's call, flattened: `path.0` -> text.
    """

    asks: tuple[Ask, ...]
    route: str
    facts: RequestContext = RequestContext()
    model: str = ""
    lists: bool = False
    detail: object = None
    within: EntityUid | None = None
    arguments: Mapping[str, str] | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """State a refusal in words the caller may see; adapters give it their protocol's shape.

    `code`: denied, unauthenticated, limit_exceeded, not_found, invalid_request, unavailable, ...
    `challenge` is the WWW-Authenticate value of a 401; `retry_after` is in seconds. The flow itself adds
    `headers`, so no protocol file can forget them.
    """

    status: int
    code: str
    title: str
    detail: str
    request_id: str
    principal: str = ""
    action: str = ""
    resource: str = ""
    would_allow: tuple[Change, ...] = ()
    request_access: str = ""
    challenge: str = ""
    retry_after: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Catalogue(Protocol):
    """Answer which registered asset a name falls under, on the pinned snapshot."""

    def covering(self, name: str, kinds: tuple[str, ...]) -> EntityUid | None:
        """Return the registered asset of one of `kinds` with the longest name equal to or above `name`."""


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter needs to carry out an allowed request.

    `body` is the whole authorised body when the adapter asked for it. `sees(uid)` decides `view`
    for one name of a listing on the pinned snapshot. `outcome` collects facts for the outcome
    record: the adapter sets `tokens_in`, `tokens_out`, `redactions`, `shown`, `hidden`.
    `foresees(ask)` decides another ask of the same caller on the pinned snapshot, unrecorded: the
    obligations it would carry, or None for a deny (an ETag shown by HEAD must fit a later read).
    `outlook(place)` says by prefix what the caller may view: what it denies need not be read.
    """

    request: Request
    body: bytes
    naming: Naming
    caller: Caller
    obligations: tuple[AnyObligation, ...]
    sees: Callable[[EntityUid], bool]
    outcome: dict[str, int]
    foresees: Callable[[Ask], tuple[AnyObligation, ...] | None] | None = None
    outlook: Callable[[Place], Prefixes | None] | None = None


class Adapter(Protocol):
    """Speak one upstream's protocol. One instance per configured upstream; no state per request."""

    kind: str
    settings: UpstreamSettings

    def keeps(self, naming: Naming) -> frozenset[type[Obligation]]:
        """Return the obligations that can be kept for this request; any other one refuses it."""

    def body_need(self, request: Request) -> BodyNeed:
        """Return how much body `name` needs."""

    def name(self, request: Request, body: bytes, catalogue: Catalogue) -> Naming:
        """Name actions and resources; raise UnknownRouteError or InvalidRequestError."""

    async def forward(self, permit: Permit, upstream: UpstreamClient) -> Answer:
        """Send the authorised bytes with the upstream's own credential; keep the obligations."""

    def refuse(self, request: Request, refusal: Refusal) -> Answer:
        """Return the refusal in the protocol's own shape."""

    def broken_off(self, request: Request, refusal: Refusal) -> bytes:
        """Return the last event of a stream that ends before its end, in the protocol's own shape."""

    def not_found(self, request: Request, naming: Naming, request_id: str) -> Answer:
        """Return exactly what the upstream answers for a name that does not exist."""


@runtime_checkable
class Refining(Protocol):
    """Implemented beside Adapter where a name depends on the upstream's state (create or modify?)."""

    async def refine(self, request: Request, naming: Naming, upstream: UpstreamClient) -> Naming:
        """Return the naming to decide on; called once, after `name` and before the decision."""


class UnknownRouteError(Exception):
    """Raised by `name` for a route that is not on the allow-list: the request is denied."""
