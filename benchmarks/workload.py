"""The workload of the decision benchmark: one list of rules, said in every engine's own language.

Users with roles, a project, clearance; models and datasets with sensitivity, owner, project; six actions.
55 % role x project grants, 15 % user x resource, 18 % owner and department grants, 12 % forbids (network
range, e-mail pattern, unmanaged device, risk). `Rule` is plain data, so that engines in other
environments can translate it without any of our code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_interface
from random import Random
from typing import Any

from doorward.cedar.corpus import trees
from doorward.core.context import Context, DeviceContext, NetworkContext, SessionContext
from doorward.core.decision import AccessRequest
from doorward.core.feed import PolicyText
from doorward.core.model import Entity, EntityUid

ACTIONS = ("invoke", "view", "modify", "train", "deploy", "export")
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_TESTS = {
    "clearance": "resource.sensitivity <= principal.clearance",
    "clearance mfa": "resource.sensitivity <= principal.clearance && context.session.mfa",
    "clearance managed": "resource.sensitivity <= principal.clearance && context.device.managed",
    "risk below": "context.risk < {number}",
    "owner": "resource has owner && resource.owner == principal",
    "department": (
        'principal has department && principal.department == "d{number}" && resource.sensitivity == 0'
    ),
    "outside": 'context.network has ip && !context.network.ip.isInRange(ip("10.0.0.0/8"))',
    "contractor": 'principal has email && principal.email like "*@contractor.example"',
    "unmanaged": "!context.device.managed && resource.sensitivity >= 3",
    "risk above": "context.risk > {number}",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One permit or forbid: a role or user, an action, a project, asset or kind, and a test."""

    effect: str
    action: str
    test: str
    number: int = 0
    role: str | None = None
    user: str | None = None
    project: str | None = None
    kind: str | None = None
    asset: str | None = None

    @property
    def cedar(self) -> str:
        """Return the rule as a Cedar policy."""
        who = f'principal == Doorward::User::"{self.user}"' if self.user else self._role()
        what = f"resource is Doorward::{self.kind}"
        if self.asset:
            what = f'resource == Doorward::{self.kind}::"{self.asset}"'
        elif self.project:
            what = f'resource in Doorward::Project::"{self.project}"'
        does = f'action == Doorward::Action::"{self.action}"'
        test = _TESTS[self.test].format(number=self.number)
        return f"{self.effect} ({who}, {does}, {what}) when {{ {test} }};"

    def _role(self) -> str:
        typed = " is Doorward::User" if self.project is None else ""
        return f'principal{typed} in Doorward::Role::"{self.role}"'


def rules(count: int, chance: Random) -> list[Rule]:
    """Return rules of the workload's mixture."""
    return [_rule(chance) for _ in range(count)]


def _rule(chance: Random) -> Rule:
    role, project, action = f"r{chance.randrange(60)}", f"p{chance.randrange(200)}", chance.choice(ACTIONS)
    kind = "Model" if action in {"invoke", "deploy"} else chance.choice(["Model", "Dataset"])
    drawn = chance.random()
    if drawn < 0.55:
        test = chance.choice(["clearance", "clearance mfa", "clearance managed"])
        return Rule("permit", action, test, role=role, project=project)
    if drawn < 0.70:
        user, asset = f"u{chance.randrange(2_000)}", f"m/{chance.randrange(2_000)}"
        return Rule(
            "permit", action, "risk below", chance.randrange(20, 90), user=user, kind=kind, asset=asset
        )
    if drawn < 0.88:
        test = chance.choice(["owner", "department"])
        return Rule("permit", action, test, chance.randrange(30), role=role, kind=kind)
    test = chance.choice(["outside", "contractor", "unmanaged", "risk above"])
    return Rule("forbid", action, test, 80, role=role, project=project)


def policies(found: Sequence[Rule]) -> list[PolicyText]:
    """Return the rules as admitted Cedar policies, `p0` onwards."""
    parsed = trees("\n".join(rule.cedar for rule in found)).values()
    return [
        PolicyText(id=f"p{number}", text="", effect=tree["effect"], tree=tree)
        for number, tree in enumerate(parsed)
    ]


def uid(kind: str, name: object) -> EntityUid:
    """Return the name of one entity."""
    return EntityUid.of(kind, str(name))


def entities(count: int, chance: Random) -> list[Entity]:
    """Return people and assets: a fifth users, the rest models and datasets."""
    people = count // 5
    found = [_user(number, chance) for number in range(people)]
    for number in range(count - people):
        kind = "Model" if number % 2 else "Dataset"
        attrs: dict[str, Any] = {
            "sensitivity": chance.randrange(4),
            "environment": uid("Environment", chance.choice(["production", "training", "testing"])),
            "owner": uid("User", f"u{chance.randrange(people)}"),
        }
        if kind == "Dataset":
            attrs |= {"purposes": frozenset(), "live": True}
        parents = frozenset({uid("Project", f"p{chance.randrange(200)}")})
        found.append(Entity(uid(kind, f"m/{number}"), attrs, parents, {"tier": "gold"}))
    return found


def _user(number: int, chance: Random) -> Entity:
    attrs: dict[str, Any] = {
        "active": True, "employment": "employee", "risk": 0, "purposes": frozenset({"x"}),
        "clearance": chance.randrange(4), "department": f"d{chance.randrange(30)}",
        "email": f"u{number}@{chance.choice(['example.com', 'contractor.example'])}",
    }  # fmt: skip
    roles = {uid("Role", f"r{chance.randrange(60)}") for _ in range(3)}
    return Entity(
        uid("User", f"u{number}"), attrs, frozenset({*roles, uid("Project", f"p{chance.randrange(200)}")})
    )


def requests(
    count: int, known: Sequence[Entity], written: Sequence[Rule], chance: Random
) -> list[AccessRequest]:
    """Return questions of known people about known assets, most of them about what some rule is about."""
    people, assets = _Index([e for e in known if e.uid.kind == "User"]), _Index(known)
    found = []
    while len(found) < count:
        rule = chance.choice(written)
        who = people.one(chance, rule.user and uid("User", rule.user), rule.role and uid("Role", rule.role))
        kind = rule.kind or ("Model" if rule.action in {"invoke", "deploy"} else "Dataset")
        named = rule.asset and uid(kind, rule.asset)
        what = assets.one(chance, named, rule.project and uid("Project", rule.project), kind)
        if chance.random() < 0.3:
            who = chance.choice(people.known).uid
        if who and what and not (rule.action == "invoke" and what.kind != "Model"):
            found.append(AccessRequest(who, uid("Action", rule.action), what, _context(chance)))
    return found


class _Index:
    """Entities by name and by parent."""

    def __init__(self, known: Sequence[Entity]) -> None:
        self.known = known
        self._names = {e.uid for e in known}
        self._assets: dict[str, list[EntityUid]] = {}
        self._under: dict[tuple[EntityUid, str], list[EntityUid]] = {}
        for entity in known:
            self._assets.setdefault(entity.uid.kind, []).append(entity.uid)
            for parent in entity.parents:
                self._under.setdefault((parent, entity.uid.kind), []).append(entity.uid)

    def one(
        self, chance: Random, named: EntityUid | None, parent: EntityUid | None, kind: str = "User"
    ) -> EntityUid | None:
        """Return the named entity, else one under the parent, else one of the kind; None if there is none."""
        if named is not None:
            return named if named in self._names else None
        under = self._assets.get(kind) if parent is None else self._under.get((parent, kind))
        return chance.choice(under) if under else None


def _context(chance: Random) -> Context:
    return Context(
        now=_NOW,
        device=DeviceContext(known=True, proven=chance.random() < 0.7, managed=chance.random() < 0.7),
        network=NetworkContext(zone="office", ip=ip_interface(f"10.0.0.{chance.randrange(255)}")),
        session=SessionContext(method="oidc", mfa=chance.random() < 0.6, age=60),
        risk=chance.randrange(100),
    )


def plain(request: AccessRequest, known: dict[EntityUid, Entity]) -> dict[str, Any]:
    """Return a request with all attributes in hand, as engines without an entity store take it."""
    who, what, context = known[request.principal], known[request.resource], request.context
    return {
        "principal": {
            "id": who.uid.id, "department": who.attrs["department"], "email": who.attrs["email"],
            "clearance": who.attrs["clearance"],
            "roles": sorted(p.id for p in who.parents if p.kind == "Role"),
        },
        "action": request.action.id,
        "resource": {
            "id": what.uid.id, "kind": what.uid.kind, "sensitivity": what.attrs["sensitivity"],
            "owner": what.attrs["owner"].id,
            "project": next(p.id for p in what.parents if p.kind == "Project"),
        },
        "context": {
            "ip": str(context.network.ip.ip) if context.network.ip else "", "risk": context.risk,
            "managed": context.device.managed, "mfa": context.session.mfa,
        },
    }  # fmt: skip
