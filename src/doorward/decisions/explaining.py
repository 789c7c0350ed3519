"""What a denied caller may be told: the least she can change herself, and public advice.

Every change that is told was tried: the same question with it is decided again and allowed. What
cannot be changed by her (roles, groups, sensitivity, risk, purposes not hers) is never mentioned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network
from itertools import combinations

import msgspec

from doorward.cedar.engine import Engine, Loaded
from doorward.core.context import Context, DeviceContext, NetworkContext
from doorward.core.decision import AccessRequest, Change, Decision
from doorward.core.feed import Place
from doorward.core.identity import Caller
from doorward.core.model import EntityUid
from doorward.directory.snapshot import Snapshot

REQUEST_ACCESS = "Nothing you can change yourself would allow this: request access."
_MOST_AT_ONCE = 3
_MOST_TRIES = 128
_MOST_OF_A_KIND = 8
# Ages of a sign-in that policies usually ask for, in seconds, the most lenient first.
_MFA_AGES = (86_400, 43_200, 28_800, 14_400, 7200, 3600, 1800, 900, 600, 300, 60, 0)

Decide = Callable[[AccessRequest], Decision]


class Told(msgspec.Struct, frozen=True):
    """What to say: changes that together would allow, and advice."""

    changes: tuple[Change, ...]
    advice: tuple[str, ...]


class _Move(msgspec.Struct, frozen=True):
    """One thing the caller can change: `kind` keeps two devices or two zones from being combined."""

    kind: str
    change: Change
    apply: Callable[[Context], Context]

    @property
    def reads(self) -> str:
        """Return the attribute of the context that it changes."""
        return {"mfa": "session", "zone": "network"}.get(self.kind, self.kind)


class Explanation:
    """Explain denials on one engine and one snapshot."""

    def __init__(self, engine: Engine, snapshot: Snapshot) -> None:
        """Keep both."""
        self._engine = engine
        self._snapshot = snapshot

    def of(
        self,
        request: AccessRequest,
        decision: Decision,
        caller: Caller | None,
        *,
        loaded: Loaded,
        decide: Decide,
    ) -> Told:
        """Return what may be told of this denial."""
        advice = [*decision.advice, *self._near_advice(request, decision, loaded)]
        changes: tuple[Change, ...] = ()
        if self._engine.could_allow(request, loaded):
            changes = self._least(request, caller, loaded, decide)
        # A forbid's own advice is the whole of it: no approval would overrule the forbid.
        if not changes and not (decision.determining and decision.advice):
            advice.append(REQUEST_ACCESS)
        return Told(changes, tuple(dict.fromkeys(advice)))

    def _near_advice(self, request: AccessRequest, decision: Decision, loaded: Loaded) -> Iterator[str]:
        """Yield the advice of permits that are for her and this resource, but not now."""
        if decision.determining:
            return  # a forbid decided; what permits ask for is beside the point
        rules = self._engine.applicable(request.principal, request.action, request.resource, loaded)
        for rule in rules:
            advice = rule.annotations.get("advice")
            if advice and not rule.forbid and self._engine.outcome(rule, request, loaded).true:
                yield advice

    def _least(
        self, request: AccessRequest, caller: Caller | None, loaded: Loaded, decide: Decide
    ) -> tuple[Change, ...]:
        reads = self._reads(request, loaded)
        moves = [move for move in self._moves(request, caller) if reads is None or move.reads in reads]
        tries = 0
        for size in range(1, _MOST_AT_ONCE + 1):
            for chosen in combinations(moves, size):
                if len({move.kind for move in chosen}) < size:
                    continue
                tries += 1
                if tries > _MOST_TRIES:
                    return ()
                if _allowed(request, chosen, decide):
                    return tuple(
                        _eased(request, move, chosen, decide) if move.kind == "mfa" else move.change
                        for move in chosen
                    )
        return ()

    def _reads(self, request: AccessRequest, loaded: Loaded) -> frozenset[str] | None:
        """Return what of the context can matter here: changing anything else cannot help."""
        names: frozenset[str] = frozenset()
        for rule in self._engine.applicable(request.principal, request.action, request.resource, loaded):
            outcome = self._engine.outcome(rule, request, loaded)
            if outcome.true or (rule.forbid and outcome.error):
                if rule.reads is None:
                    return None
                names |= rule.reads
        return names

    def _moves(self, request: AccessRequest, caller: Caller | None) -> Iterator[_Move]:
        """Yield what this caller can change, the easiest first."""
        context, principal = request.context, request.principal
        yield from self._device_moves(context, principal, caller)
        yield from self._purpose_moves(context, principal, caller)
        if principal.kind == "User":
            yield from _sign_in_moves(context)
        yield from self._zone_moves(context)

    def _device_moves(self, context: Context, principal: EntityUid, caller: Caller | None) -> Iterator[_Move]:
        named = [caller.device] if caller is not None and caller.device is not None else []
        own = self._snapshot.devices_of(principal)
        for uid in list(dict.fromkeys([*named, *own]))[:_MOST_OF_A_KIND]:
            device = self._snapshot.entity(uid)
            if device is None or device.attrs.get("active") is not True:
                continue
            if context.device.proven and context.device.id == uid:
                continue
            proven = DeviceContext(
                known=True,
                proven=True,
                managed=device.attrs.get("managed") is True,
                compliant=device.attrs.get("compliant") is True,
                id=uid,
            )
            say = f'present the certificate of your device "{uid.id}"'
            yield _Move("device", Change("context.device.proven", say), _with(device=proven))

    def _purpose_moves(
        self, context: Context, principal: EntityUid, caller: Caller | None
    ) -> Iterator[_Move]:
        bound = caller is not None and caller.bound_purpose is not None
        for purpose in sorted(self._snapshot.purposes_of(principal))[:_MOST_OF_A_KIND]:
            if purpose == context.purpose:
                continue
            name = _quoted(purpose)
            way = f"use a credential for your purpose {name}" if bound else f"state your purpose {name}"
            instead = f", not {_quoted(context.purpose)}" if context.purpose is not None else ""
            change = Change(f"context.purpose == {name}", way + instead)
            yield _Move("purpose", change, _with(purpose=purpose))

    def _zone_moves(self, context: Context) -> Iterator[_Move]:
        for zone, cidrs in sorted(self._snapshot.zones.items())[:_MOST_OF_A_KIND]:
            if zone == context.network.zone:
                continue
            country = self._snapshot.places.get(zone, Place()).country
            there = NetworkContext(zone=zone, ip=_first_address(cidrs), country=country)
            change = Change(
                f"context.network.zone == {_quoted(zone)}", f"connect from the zone {_quoted(zone)}"
            )
            yield _Move("zone", change, _with(network=there))


def _with(**changed: object) -> Callable[[Context], Context]:
    def apply(context: Context) -> Context:
        return msgspec.structs.replace(context, **changed)

    return apply


def _sign_in_moves(context: Context) -> Iterator[_Move]:
    session = context.session
    if not session.mfa or session.mfa_age:
        yield _mfa(0)
    if session.age > 0:
        signed_in = msgspec.structs.replace(session, age=0)
        yield _Move("mfa", Change("context.session.age <= 0", "sign in again"), _with(session=signed_in))


def _mfa(age: int) -> _Move:
    def apply(context: Context) -> Context:
        session = msgspec.structs.replace(
            context.session, mfa=True, mfa_age=age, age=min(age, context.session.age)
        )
        return msgspec.structs.replace(context, session=session)

    return _Move("mfa", Change(f"context.session.mfa_age <= {age}", "sign in again with MFA"), apply)


def _eased(request: AccessRequest, move: _Move, chosen: Sequence[_Move], decide: Decide) -> Change:
    """Return the sign-in change with the most lenient usual age that is still allowed."""
    if move.change.change.startswith("context.session.age"):
        return move.change
    others = [other for other in chosen if other is not move]
    for age in _MFA_AGES:
        eased = _mfa(age)
        if _allowed(request, [*others, eased], decide):
            if age == _MFA_AGES[0]:
                return Change("context.session.mfa", eased.change.say)
            return eased.change
    return move.change


def _allowed(request: AccessRequest, chosen: Sequence[_Move], decide: Decide) -> bool:
    context = request.context
    for move in chosen:
        context = move.apply(context)
    return decide(msgspec.structs.replace(request, context=context)).allowed


def _quoted(text: str) -> str:
    return str(EntityUid("", text)).removeprefix("::")


def _first_address(cidrs: Sequence[str]) -> IPv4Interface | IPv6Interface | None:
    if not cidrs:
        return None
    return ip_interface(ip_network(cidrs[0], strict=False)[0])
