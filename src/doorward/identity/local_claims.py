"""What the local issuer says of its tokens beside the common claims: minted or not, from what, for how much.

A token of ours names everything it was made from, so that a gateway can see offline, from the feed alone,
whether all of it still stands. `act` is the chain as RFC 8693 (4.1) writes it, and must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from doorward.core.errors import InvalidRequestError
from doorward.core.identity import Act, Bounds, Descent
from doorward.core.model import EntityUid
from doorward.identity.strict_jose import TokenFaultError

PRIVATE = "doorward"  # believed from no other issuer
TRUSTED = frozenset({"acr", "amr", "auth_time"})
# How many agents may act in a row for one principal.
MAX_DEPTH = 3
PRINCIPALS = frozenset({"User", "Service", "Agent"})


class BoundsClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Bounds as a token writes them; resources in Cedar's short form."""

    actions: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    max_tokens: int | None = None
    arguments: dict[str, str] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, bounds: Bounds) -> BoundsClaim:
        """Write bounds down."""
        named = tuple(map(str, bounds.resources))
        return cls(bounds.actions, bounds.upstreams, named, bounds.max_tokens, dict(bounds.arguments))

    def bounds(self) -> Bounds:
        """Return what is written down; raise InvalidRequestError for a name that is none."""
        named = tuple(map(EntityUid.parse, self.resources))
        limits = tuple(sorted(self.arguments.items()))
        return Bounds(self.actions, self.upstreams, named, self.max_tokens, limits)


class HopClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One delegation: since when, and until when at most (Unix seconds)."""

    since: int
    until: int


class PrivateClaims(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What stands under `doorward`. `mfa` and `device` count only under test_minting.

    `tokens`, `keys` and `identities` are what the token was made from; `hops` belong to `act`, in its order;
    each of `bounds` holds.
    """

    minted: bool = False
    purpose: str | None = None
    mfa: bool = False
    device: str | None = None
    tokens: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    identities: tuple[tuple[str, str], ...] = ()
    hops: tuple[HopClaim, ...] = ()
    bounds: tuple[BoundsClaim, ...] = ()


class LocalClaims(msgspec.Struct, frozen=True):
    """What was read."""

    principal: EntityUid
    private: PrivateClaims
    descent: Descent | None
    bounds: tuple[Bounds, ...]


def read(subject: str, payload: Mapping[str, Any], *, issued: datetime, now: datetime) -> LocalClaims:
    """Read what the local issuer says; raise TokenFaultError for anything it would not say."""
    own = payload.get(PRIVATE, {})
    try:
        principal = EntityUid.parse(subject)
        private = msgspec.convert(own, PrivateClaims)
        bounds = tuple(claim.bounds() for claim in private.bounds)
        actors = tuple(map(EntityUid.parse, _actors(payload.get("act"))))
    except (InvalidRequestError, msgspec.ValidationError) as reason:
        raise TokenFaultError("local_claims_invalid") from reason
    if principal.kind not in PRINCIPALS:
        raise TokenFaultError("local_claims_invalid")
    require_chain(principal, actors)
    if len(private.hops) != len(actors):
        raise TokenFaultError("chain_invalid")
    # Nothing lives longer than what it comes from, whatever `exp` says.
    if any(now >= _moment(hop.until) or _moment(hop.since) > issued for hop in private.hops):
        raise TokenFaultError("hop_expired")
    acts = tuple(
        Act(actor, _moment(hop.since), _moment(hop.until))
        for actor, hop in zip(actors, private.hops, strict=True)
    )
    descent = Descent(private.tokens, private.keys, private.identities, acts)
    return LocalClaims(principal, private, None if descent == Descent() else descent, bounds)


def require_chain(principal: EntityUid, actors: tuple[EntityUid, ...]) -> None:
    """Raise TokenFaultError for a chain that is too long, runs in a circle, or is not of agents."""
    if len(actors) > MAX_DEPTH:
        raise TokenFaultError("chain_too_deep")
    if len({principal, *actors}) != 1 + len(actors):
        raise TokenFaultError("chain_has_a_loop")
    if any(actor.kind != "Agent" for actor in actors):
        raise TokenFaultError("actor_is_no_agent")


def _actors(act: Any) -> tuple[str, ...]:
    """Return who acts, the present actor first (RFC 8693, 4.1); raise TokenFaultError."""
    found: list[str] = []
    while act is not None:
        if not isinstance(act, dict) or act.keys() - {"sub", "act"} or not isinstance(act.get("sub"), str):
            raise TokenFaultError("chain_invalid")
        if len(found) >= MAX_DEPTH:
            raise TokenFaultError("chain_too_deep")
        found.append(act["sub"])
        act = act.get("act")
    return tuple(found)


def nested(actors: tuple[EntityUid, ...]) -> dict[str, Any] | None:
    """Return the `act` claim of a chain, None for no chain."""
    act: dict[str, Any] | None = None
    for actor in reversed(actors):
        act = {"sub": str(actor), **({} if act is None else {"act": act})}
    return act


def _moment(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise TokenFaultError("local_claims_invalid") from None
