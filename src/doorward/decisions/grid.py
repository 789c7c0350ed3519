"""The circumstances that questions without a context are asked under: a stated, finite grid.

Each dimension lists the values that can make a difference to the policies at hand: every device
posture, every zone, each age of a sign-in on either side of a number some policy names, her own
purposes, each moment around a time some policy or entity names. What the grid does not vary
(`Grid.outside`) is named, so that no answer claims more than was looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_interface, ip_network
from itertools import product
from math import prod
from typing import Any

import msgspec

from doorward.core.context import Context, DeviceContext, NetworkContext, SessionContext
from doorward.core.decision import Change
from doorward.core.feed import Place
from doorward.core.identity import Method
from doorward.core.model import EntityUid, Value
from doorward.core.values import to_json
from doorward.decisions.literals import Literals, Path, literals_of, paths_of
from doorward.directory.snapshot import Snapshot

# Ages of a sign-in that policies usually ask for, in seconds.
USUAL_AGES = (0, 300, 900, 3600, 28_800, 86_400)
_YEAR = timedelta(days=366)
_TICK = timedelta(milliseconds=1)
_MOST_OWN_DEVICES = 8
_FIXED = frozenset({"environment"})  # where a workload runs is its own, not a circumstance

Apply = Callable[[Context], Context]


class Option(msgspec.Struct, frozen=True):
    """One value of a dimension, and everything that can be said of it, the plainest first."""

    apply: Apply
    facts: tuple[Change, ...] = ()
    neutral: bool = False


class Dimension(msgspec.Struct, frozen=True):
    """What one circumstance may be; `name` is its place under `context`."""

    name: str
    options: tuple[Option, ...]


class Grid(msgspec.Struct, frozen=True):
    """All combinations of some dimensions over one neutral context."""

    neutral: Context
    dimensions: tuple[Dimension, ...]
    outside: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Return the number of contexts."""
        return prod(len(dimension.options) for dimension in self.dimensions)

    def points(self) -> Iterator[tuple[int, ...]]:
        """Yield every point: the number of its option in each dimension."""
        yield from product(*(range(len(dimension.options)) for dimension in self.dimensions))

    def context(self, point: Sequence[int]) -> Context:
        """Return the circumstances of one point."""
        context = self.neutral
        for dimension, index in zip(self.dimensions, point, strict=True):
            context = dimension.options[index].apply(context)
        return context


def grid_of(
    principal: EntityUid,
    resource: EntityUid,
    *,
    trees: Iterable[Mapping[str, Any]],
    snapshot: Snapshot,
    neutral: Context,
) -> Grid:
    """Return the grid that can make a difference to these policies for this principal and resource."""
    conditions = [tree.get("conditions", ()) for tree in trees]
    paths = frozenset(path for body in conditions for path in paths_of(body))
    constants = found = literals_of(conditions)
    for uid in (principal, resource):
        entity = snapshot.resolve(uid)
        found = found.joined(Literals.of_values(entity.attrs.values() if entity is not None else ()))
    makers: dict[str, Callable[[], list[Option]]] = {
        "device": lambda: _devices(snapshot, principal, _reads(paths, "device", "id")),
        "network": lambda: _networks(snapshot, neutral, found, _reads(paths, "network", "ip")),
        "session": lambda: _sessions(paths, constants),
        "purpose": lambda: _purposes(sorted(snapshot.purposes_of(principal))),
        "now": lambda: _times(neutral.now, found),
        "risk": lambda: _risks(found),
        "signals": lambda: _signals(found),
    }
    whole = () in paths
    dimensions = [
        Dimension(name, _told_apart(make(), paths, neutral))
        for name, make in makers.items()
        if whole or any(path[:1] == (name,) for path in paths)
    ]
    varying = tuple(dimension for dimension in dimensions if len(dimension.options) > 1)
    return Grid(neutral, varying, tuple(sorted(_outside(paths, makers))))


def _outside(paths: frozenset[Path], makers: Mapping[str, object]) -> Iterator[str]:
    for path in paths:
        if path[:1] == ("network",) and path[1:] not in {("zone",), ("ip",)}:
            yield "context.network.country"
        elif not path:
            yield "context"
        elif path[0] not in makers and path[0] not in _FIXED:
            yield ".".join(("context", *path))


def _reads(paths: frozenset[Path], name: str, field: str) -> bool:
    return any(path in {(), (name,)} or path[:2] == (name, field) for path in paths)


def _told_apart(options: Iterable[Option], paths: frozenset[Path], neutral: Context) -> tuple[Option, ...]:
    """Keep one option of those that look alike to the policies; the neutral one first."""
    seen: dict[str, Option] = {}
    for option in options:
        record = option.apply(neutral).to_record()
        look = repr([_at(record, path) for path in sorted(paths)])
        seen.setdefault(look, option)
    return tuple(seen.values())


def _at(record: Value, path: Path) -> Any:
    value: Any = record
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            break
        value = value[name]
    return to_json(value)


# The dimensions


def _devices(snapshot: Snapshot, principal: EntityUid, by_name: bool) -> list[Option]:  # noqa: FBT001 -- one caller
    options = [_device(DeviceContext())]
    for proven, managed, compliant in product((True, False), repeat=3):
        options.append(_device(DeviceContext(True, proven, managed, compliant)))  # noqa: FBT003 -- `known`
    for uid in snapshot.devices_of(principal)[:_MOST_OWN_DEVICES] if by_name else ():
        own = snapshot.entity(uid)
        if own is not None and own.attrs.get("active") is True:
            posture = own.attrs.get("managed") is True, own.attrs.get("compliant") is True
            options.append(_device(DeviceContext(True, True, *posture, uid)))  # noqa: FBT003 -- known, proven
    return options


def _device(device: DeviceContext) -> Option:
    words = {"known": "known", "proven": "proven", "managed": "managed", "compliant": "compliant"}
    facts = []
    for flag, word in words.items():
        holds = getattr(device, flag)
        sign, say = ("", f"on a {word} device") if holds else ("!", f"not on a {word} device")
        facts.append(Change(f"{sign}context.device.{flag}", say))
    if device.id is not None:
        facts.append(Change(f"context.device.id == {device.id.cedar}", f'on the device "{device.id.id}"'))
    return Option(_with(device=device), tuple(facts), device == DeviceContext())


def _networks(snapshot: Snapshot, neutral: Context, found: Literals, by_ip: bool) -> list[Option]:  # noqa: FBT001 -- one caller
    names = [neutral.network.zone, *sorted(set(snapshot.zones) - {neutral.network.zone})]
    options = []
    for name in names:
        networks = snapshot.zones.get(name, ())
        ip = ip_interface(ip_network(networks[0], strict=False)[0]) if networks else None
        facts = [Change(f"context.network.zone == {quoted(name)}", f"from the zone {quoted(name)}")]
        facts += [
            Change(f"context.network.zone != {quoted(other)}", f"from outside the zone {quoted(other)}")
            for other in names
            if other != name
        ]
        there = NetworkContext(name, ip, snapshot.places.get(name, Place()).country)
        options.append(Option(_with(network=there), tuple(facts), name == names[0]))
    for text in sorted(found.addresses) if by_ip else ():
        address = ip_interface(ip_network(text, strict=False)[0])
        zone = snapshot.zone_of(str(address.ip))
        fact = Change(f'context.network.ip.isInRange(ip("{text}"))', f"from an address in {text}")
        there = NetworkContext(zone, address, snapshot.places.get(zone, Place()).country)
        options.append(Option(_with(network=there), (fact,)))
    return options


def _sessions(paths: frozenset[Path], found: Literals) -> list[Option]:
    ages = sorted({*USUAL_AGES, *_around(found.longs, lowest=0)})
    age_matters, acr_matters = _reads(paths, "session", "age"), _reads(paths, "session", "acr")
    how_matters, minted_matters = _reads(paths, "session", "method"), _reads(paths, "session", "minted")
    methods = ("none", *(method.value for method in Method), "passkey") if how_matters else ("none",)
    levels = ("", *sorted(found.texts)) if acr_matters else ("",)
    since = ages if age_matters else [0]
    options = []
    for method, acr, minted, age in product(
        methods, levels, (False, True) if minted_matters else (False,), since
    ):
        for mfa_age in (None, *ages):
            session = SessionContext(method, acr, mfa_age is not None, age, mfa_age, minted)
            facts = _session_facts(session, ages, acr=acr_matters, method=how_matters, age=age_matters)
            options.append(Option(_with(session=session), facts, session == SessionContext()))
    return options


def _session_facts(
    session: SessionContext, ages: Sequence[int], *, acr: bool, method: bool, age: bool
) -> tuple[Change, ...]:
    facts = []
    if session.mfa_age is None:
        facts.append(Change("!context.session.mfa", "signed in without MFA"))
    else:
        facts.append(Change("context.session.mfa", "signed in with MFA"))
        facts += _thresholds("context.session.mfa_age", session.mfa_age, ages, "with MFA")
    if age:
        facts += _thresholds("context.session.age", session.age, ages, "signed in")
    if acr:
        facts.append(
            Change(f"context.session.acr == {quoted(session.acr)}", f"signed in at {quoted(session.acr)}")
        )
    if method:
        facts.append(
            Change(f"context.session.method == {quoted(session.method)}", f"signed in by {session.method}")
        )
    minted = "a minted test token" if session.minted else "a real sign-in"
    facts.append(Change(f"{'' if session.minted else '!'}context.session.minted", f"with {minted}"))
    return tuple(facts)


def _thresholds(place: str, value: int, ages: Sequence[int], how: str) -> list[Change]:
    facts = [
        Change(f"{place} <= {age}", f"{how} at most {duration(age)} ago")
        for age in reversed(ages)
        if value <= age
    ]
    return facts + [
        Change(f"{place} >= {age}", f"{how} at least {duration(age)} ago") for age in ages if value >= age
    ]


def _purposes(purposes: Sequence[str]) -> list[Option]:
    def unlike(name: str | None) -> list[Change]:
        return [
            Change(
                f"!(context has purpose && context.purpose == {quoted(other)})",
                f"without the purpose {quoted(other)}",
            )
            for other in purposes
            if other != name
        ]

    nothing = Change("!(context has purpose)", "with no purpose stated")
    options = [Option(_with(purpose=None), (nothing, *unlike(None)), neutral=True)]
    for name in purposes:
        stated = Change("context has purpose", "with one of the assigned purposes stated")
        exact = Change(f"context.purpose == {quoted(name)}", f"for the purpose {quoted(name)}")
        options.append(Option(_with(purpose=name), (stated, exact, *unlike(name))))
    return options


def _times(now: datetime, found: Literals) -> list[Option]:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    named = {*found.moments, *(midnight + span for span in found.spans if abs(span) <= _YEAR)}
    moments = sorted({now, *(t + tick for t in named for tick in (-_TICK, timedelta(), _TICK))})
    options = []
    for moment in sorted(moments, key=lambda t: t != now):
        facts = [
            Change(f"context.now <= {_literal(t)}", f"until {_written(t)}")
            for t in reversed(moments)
            if moment <= t
        ]
        facts += [
            Change(f"context.now >= {_literal(t)}", f"from {_written(t)}") for t in moments if moment >= t
        ]
        options.append(Option(_with(now=moment), tuple(facts), moment == now))
    return options


def _risks(found: Literals) -> list[Option]:
    risks = [0, *sorted({100, *(r for r in _around(found.longs, lowest=1) if r <= 100)})]  # noqa: PLR2004 -- the scale
    return [
        Option(
            _with(risk=risk),
            (
                *(
                    Change(f"context.risk <= {r}", f"at a risk of at most {r}")
                    for r in reversed(risks)
                    if risk <= r
                ),
                *(Change(f"context.risk >= {r}", f"at a risk of at least {r}") for r in risks if risk >= r),
            ),
            risk == 0,
        )
        for risk in risks
    ]


def _signals(found: Literals) -> list[Option]:
    names = sorted(found.texts)
    raised = [frozenset[str](), *(frozenset({name}) for name in names), frozenset(names)]
    options = []
    for signals in dict.fromkeys(raised):
        facts = [
            Change(
                f"{'' if name in signals else '!'}context.signals.contains({quoted(name)})",
                f"with{'' if name in signals else 'out'} the signal {quoted(name)}",
            )
            for name in names
        ]
        options.append(Option(_with(signals=signals), tuple(facts), not signals))
    return options


# Words


def quoted(text: str) -> str:
    """Return a text as Cedar writes it."""
    return str(EntityUid("", text)).removeprefix("::")


def duration(seconds: int) -> str:
    """Return a span in the largest unit that fits it exactly."""
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds and seconds % size == 0:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def _literal(moment: datetime) -> str:
    return f'datetime("{to_json(moment)["__extn"]["arg"]}")'


def _written(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"


def _around(numbers: Iterable[int], *, lowest: int) -> Iterator[int]:
    for number in numbers:
        yield from (n for n in (number - 1, number, number + 1) if n >= lowest)


def _with(**changed: object) -> Apply:
    def apply(context: Context) -> Context:
        return msgspec.structs.replace(context, **changed)

    return apply
