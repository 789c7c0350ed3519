# ruff: noqa: E501 -- expressions and their kinds stand on one line each, as in a table
"""Random policies (static and linked), entities and requests in all of Cedar, made again from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from doorward.cedar.closures import literal
from doorward.cedar.data import Fault
from support.cedar_expressions import DATES, IPS, LONGS, RATES, SPANS, WORDS, Expressions

SCHEMA = """
type Address = { street: String, zip?: Long, spot?: { x: Long, on?: Bool } };
entity Color enum ["red", "green"];
entity Group in [Group];
entity Folder in [Folder, Group];
entity User in [Group] {
  age: Long, name: String, active: Bool, boss?: User, words: Set<String>, nums?: Set<Long>, flags: Set<Bool>,
  address: Address, ip?: ipaddr, born?: datetime, span?: duration, rate?: decimal, friends: Set<User>,
} tags String;
entity Doc in [Folder, Group] {
  owner: User, level: Long, color: Color, title?: String, readers?: Set<Group>, places: Set<Address>, made: datetime,
} tags Set<Long>;
type Ctx = {
  mfa: Bool, risk: Long, zone?: String, ip: ipaddr, now: datetime, left?: duration, rate: decimal, via?: User,
  words: Set<String>, device: { managed: Bool, id?: Doc, score?: Long }, "odd name"?: Long,
};
action all;
action some in [all];
action view, edit in [some] appliesTo { principal: [User], resource: [Doc, User], context: Ctx };
action drop in [all] appliesTo { principal: [User, Group], resource: [Doc], context: { mfa: Bool } };
namespace Far {
  entity Place enum ["here", "there"];
  entity Town in [Town, Group] { size: Long, near?: Place, mayor?: User, sister?: Town } tags Set<String>;
  type Trip = { stops: Set<Place>, fares: Set<Set<Long>>, days: Set<datetime>, back?: { at: datetime } };
  action travel;
  action go in [travel, Action::"some"] appliesTo {
    principal: [User, Town], resource: [Place, Town, Color], context: { mfa: Bool, trip: Trip },
  };
}
"""
_TEMPLATES = 0.2
_CROWDED = 0.02
BATCH = 40  # requests on one set of policies and entities


@dataclass
class Batch:
    """One set of policies and entities with requests on it; everything as Cedar reads it."""

    policies: str
    entities: list[dict[str, Any]]
    links: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)


class Maker(Expressions):
    """Makes batches from one source of chance."""

    def batch(self) -> Batch:
        many = self.chance.random() < _CROWDED
        policies = [
            self.policy() for _ in range(self.chance.randint(20, 120) if many else self.chance.randint(1, 9))
        ]
        links: list[dict[str, Any]] = []
        for number, (_, slots) in enumerate(policies):
            for one in range(self.chance.randint(0, 3) if slots else 0):
                values = {slot: self.uid(self.of(kinds), implicit=True) for slot, kinds in slots.items()}
                links.append(
                    {"template_id": f"policy{number}", "new_id": f"link{number}-{one}", "values": values}
                )
        text = "\n".join(text for text, _ in policies)
        return Batch(text, self.entities(), links, [self.request() for _ in range(BATCH)])

    # Data

    def extension(self, function: str, values: list[str]) -> dict[str, Any]:
        while True:
            text = self.of(values)
            try:
                literal({"__extn": {"fn": function, "arg": text}})
            except Fault:
                continue
            return {"__extn": {"fn": function, "arg": text}}

    def maybe(self, into: dict[str, Any], name: str, value: Any) -> None:
        if self.chance.random() < 0.6:
            into[name] = value

    def address(self) -> dict[str, Any]:
        found: dict[str, Any] = {"street": self.of(WORDS)}
        self.maybe(found, "zip", self.of(LONGS))
        if self.chance.random() < 0.5:
            found["spot"] = {"x": self.of(LONGS)}
            self.maybe(found["spot"], "on", self.of([True, False]))
        return found

    def entities(self) -> list[dict[str, Any]]:
        found = [self.entity("Group", name, above) for name, above in (("g", "hi"), ("h", "i"), ("i", ""))]
        found += [self.entity("Folder", "f", "k"), self.entity("Folder", "k", "")]
        for name in "uvw":
            made = self.entity("User", name, "ghi", group="Group")
            made["attrs"] = self.user()
            made["tags"] = {tag: self.of(WORDS) for tag in self.some(["t", "s", "odd tag"])}
            found.append(made)
        for name in "de":
            made = self.entity("Doc", name, "fk", group="Folder")
            made["attrs"] = self.doc()
            made["tags"] = {tag: self.some(LONGS) for tag in self.some(["t", "s"])}
            found.append(made)
        for name, above in (("t", "l"), ("l", "")):
            made = self.entity("Far::Town", name, above)
            made["parents"] += [{"type": "Group", "id": one} for one in "gi" if self.chance.random() < 0.3]
            made["attrs"] = {"size": self.of(LONGS)}
            for attr, kind in (("near", "Far::Place"), ("mayor", "User"), ("sister", "Far::Town")):
                self.maybe(made["attrs"], attr, self.uid(kind))
            made["tags"] = {tag: self.some(WORDS) for tag in self.some(["t", "s"])}
            found.append(made)
        return [made for made in found if self.chance.random() < 0.95]

    def entity(self, kind: str, name: str, above: str, *, group: str = "") -> dict[str, Any]:
        parents = [{"type": group or kind, "id": one} for one in above if self.chance.random() < 0.5]
        return {"uid": {"type": kind, "id": name}, "attrs": {}, "parents": parents}

    def user(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "age": self.of(LONGS), "name": self.of(WORDS), "active": self.of([True, False]),
            "words": self.some(WORDS), "flags": self.some([True, False]), "address": self.address(),
            "friends": [self.uid("User") for _ in range(self.chance.randint(0, 2))],
        }  # fmt: skip
        for name, value in (
            ("boss", self.uid("User")), ("nums", self.some(LONGS)), ("ip", self.extension("ip", IPS)),
            ("born", self.extension("datetime", DATES)), ("span", self.extension("duration", SPANS)),
            ("rate", self.extension("decimal", RATES)),
        ):  # fmt: skip
            self.maybe(found, name, value)
        return found

    def doc(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "owner": self.uid("User"), "level": self.of(LONGS), "color": self.uid("Color"),
            "places": [self.address() for _ in range(self.chance.randint(0, 2))],
            "made": self.extension("datetime", DATES),
        }  # fmt: skip
        self.maybe(found, "title", self.of(WORDS))
        self.maybe(found, "readers", [self.uid("Group") for _ in range(self.chance.randint(0, 2))])
        return found

    def context(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mfa": self.of([True, False]), "risk": self.of(LONGS), "ip": self.extension("ip", IPS),
            "now": self.extension("datetime", DATES), "rate": self.extension("decimal", RATES),
            "words": self.some(WORDS), "device": {"managed": self.of([True, False])},
        }  # fmt: skip
        for name, value in (
            ("zone", self.of(WORDS)), ("left", self.extension("duration", SPANS)), ("via", self.uid("User")),
            ("odd name", self.of(LONGS)),
        ):  # fmt: skip
            self.maybe(found, name, value)
        self.maybe(found["device"], "id", self.uid("Doc"))
        self.maybe(found["device"], "score", self.of(LONGS))
        return found

    def request(self) -> dict[str, Any]:
        action = self.of(["view", "edit", "view", "edit", "drop", "go"])
        kind, context = "Action", {"mfa": self.of([True, False])}
        match action:
            case "drop":
                principal, resource = self.of(["User", "User", "Group"]), "Doc"
            case "go":
                kind = "Far::Action"
                principal = self.of(["User", "Far::Town"])
                resource = self.of(["Far::Place", "Far::Town", "Color"])
                context["trip"] = self.trip_()
            case _:
                principal, resource, context = "User", self.of(["Doc", "Doc", "User"]), self.context()
        return {
            "principal": self.uid(principal, implicit=True),
            "action": {"type": kind, "id": action},
            "resource": self.uid(resource, implicit=True),
            "context": context,
        }

    def trip_(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "stops": [self.uid("Far::Place") for _ in range(self.chance.randint(0, 2))],
            "fares": [self.some(LONGS) for _ in range(self.chance.randint(0, 3))],
            "days": [self.extension("datetime", DATES) for _ in range(self.chance.randint(0, 2))],
        }
        self.maybe(found, "back", {"at": self.extension("datetime", DATES)})
        return found

    # Policies

    def policy(self) -> tuple[str, dict[str, list[str]]]:
        """Return a policy, or a template with the kinds of entities that may fill its slots."""
        conditions = " ".join(
            f"{self.of(['when', 'when', 'unless'])} {{ {self.bool(self.chance.randint(0, 4))} }}"
            for _ in range(self.chance.choice([0, 1, 1, 1, 2]))
        )
        slots: dict[str, list[str]] = {}
        wanted = (
            self.of([["principal"], ["resource"], ["principal", "resource"]])
            if self.chance.random() < _TEMPLATES
            else []
        )
        sides = [
            self.slot(side, slots) if side in wanted else self.side(side)
            for side in ("principal", "resource")
        ]
        return (
            f"{self.of(['permit', 'permit', 'forbid'])} ({sides[0]}, {self.actions()}, {sides[1]}) {conditions};",
            slots,
        )

    def slot(self, name: str, slots: dict[str, list[str]]) -> str:
        slots[f"?{name}"] = (
            ["User", "Group", "Far::Town"]
            if name == "principal"
            else ["Doc", "Folder", "Group", "User", "Far::Town", "Color"]
        )
        kind = self.of(["User", "Group"] if name == "principal" else ["Doc", "User", "Far::Town"])
        return self.of(
            [f"{name} == ?{name}", f"{name} in ?{name}", f"{name} in ?{name}", f"{name} is {kind} in ?{name}"]
        )

    def side(self, name: str) -> str:
        kinds = (
            ["User", "User", "Group", "Far::Town"]
            if name == "principal"
            else ["Doc", "Doc", "User", "Far::Town", "Far::Place", "Color"]
        )
        kind, group = self.of(kinds), self.of(["Group", "Folder", "User", "Doc", "Far::Town"])
        return self.of(
            [
                name, name, name, f"{name} == {self.name(kind)}", f"{name} in {self.name(group)}",
                f"{name} is {kind}", f"{name} is {kind} in {self.name(group)}",
            ]
        )  # fmt: skip

    def actions(self) -> str:
        return self.of(
            [
                "action", "action", 'action == Action::"view"', 'action in Action::"some"', 'action in Action::"all"',
                'action in [Action::"view", Action::"drop"]', "action in []", 'action in Action::"edit"',
                'action == Far::Action::"go"', 'action in Far::Action::"travel"', 'action in [Far::Action::"go", Action::"view"]',
            ]
        )  # fmt: skip
