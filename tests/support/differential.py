# ruff: noqa: E501 -- expressions and their kinds stand on one line each, as in a table
"""Random policies, entities and requests: both tiers of the engine against Cedar itself.

Run for long with `PYTHONPATH=src:tests python -m support.differential --count 1000000 [--seed N]`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import cedarpy

from doorward.cedar import corpus
from doorward.cedar.closures import literal
from doorward.cedar.data import Fault
from doorward.cedar.engine import Answer, Engine
from doorward.core.feed import PolicyText
from doorward.core.model import EntityUid

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
"""
BATCH = 40  # requests on one set of policies and entities
_ERRING = re.compile(r"^error while evaluating policy `(policy[0-9]+)`")
_LONGS = [0, 1, 2, 3, -1, 7, 100, 2**63 - 1, -(2**63), 4 * 10**9]
_WORDS = ["", "a", "b", "ab", "a*b", "abc", "bca", "é", "x\\\\y", "aXbXc"]
_IPS = [
    "1.2.3.4", "10.0.0.0/8", "10.1.2.3/24", "0.0.0.0/0", "127.0.0.1", "127.0.0.0/7", "224.0.0.1", "::1", "::/0",
    "ff00::/8", "fe80::1/64", "1.2.3", "1.2.3.4/33", "01.2.3.4", "::ffff:1.2.3.4", "::1%eth0", "1::2::3", "1.2.3.4/",
    "1.2.3.4/08", "224.0.0.0/3", "ff00::/7", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
]  # fmt: skip
_DATES = [
    "2024-02-29", "2023-02-29", "1970-01-01", "0000-01-01", "9999-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z",
    "2024-01-01T00:00:00Z", "2024-01-01T00:00:00+0100", "2024-01-01T23:59:59.123-2359", "2024-01-01T24:00:00Z",
    "2024-01-01T00:00:00+2400", "2024-1-01", "2024-01-01T00:00Z", "2024-01-01T00:00:00.1Z", "2024-01-01T00:00:60Z",
    "0000-02-29", "0399-12-31", "2024-13-01", "2024-01-01T00:00:00-0000", "",
]  # fmt: skip
_SPANS = [
    "1d", "1h", "-1ms", "1d2h3m4s5ms", "0ms", "", "-", "1m", "5ms3s", "9223372036854775807ms", "9223372036854775808ms",
    "-9223372036854775808ms", "-9223372036854775809ms", "106751991168d", "106751991167d", "1.5h", "1s1ms", "+1s", "-0s",
    "-106751991167d7h12m55s808ms", "-106751991167d7h12m55s809ms", "00001s",
]  # fmt: skip
_RATES = [
    "0.0", "1.0", "-1.5", "922337203685477.5807", "922337203685477.5808", "-922337203685477.5808",
    "-922337203685477.5809", "1.00000", "1.", ".5", "-0.5", "1", "00.10", "+1.0", "1.2345",
]  # fmt: skip


@dataclass
class Batch:
    """One set of policies and entities with requests on it; everything as Cedar reads it."""

    policies: str
    entities: list[dict[str, Any]]
    requests: list[dict[str, Any]] = field(default_factory=list)


class Maker:
    """Makes batches from one source of chance."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.of = chance.choice

    def batch(self) -> Batch:
        policies = "\n".join(self.policy() for _ in range(self.chance.randint(1, 9)))
        return Batch(policies, self.entities(), [self.request() for _ in range(BATCH)])

    # Data

    def some(self, values: list[Any], most: int = 3) -> list[Any]:
        return [self.of(values) for _ in range(self.chance.randint(0, most))]

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
        found: dict[str, Any] = {"street": self.of(_WORDS)}
        self.maybe(found, "zip", self.of(_LONGS))
        if self.chance.random() < 0.5:
            found["spot"] = {"x": self.of(_LONGS)}
            self.maybe(found["spot"], "on", self.of([True, False]))
        return found

    def uid(self, kind: str, *, implicit: bool = False) -> dict[str, Any]:
        names = {"User": "uvwz", "Doc": "dez", "Group": "ghiz", "Folder": "fkz"}
        name = self.of(["red", "green"]) if kind == "Color" else self.of(list(names[kind]))
        uid = {"type": kind, "id": name}
        return uid if implicit else {"__entity": uid}

    def entities(self) -> list[dict[str, Any]]:
        found = [self.entity("Group", name, above) for name, above in (("g", "hi"), ("h", "i"), ("i", ""))]
        found += [self.entity("Folder", "f", "k"), self.entity("Folder", "k", "")]
        for name in "uvw":
            made = self.entity("User", name, "ghi", group="Group")
            made["attrs"] = self.user()
            made["tags"] = {tag: self.of(_WORDS) for tag in self.some(["t", "s", "odd tag"])}
            found.append(made)
        for name in "de":
            made = self.entity("Doc", name, "fk", group="Folder")
            made["attrs"] = self.doc()
            made["tags"] = {tag: self.some(_LONGS) for tag in self.some(["t", "s"])}
            found.append(made)
        return [made for made in found if self.chance.random() < 0.95]

    def entity(self, kind: str, name: str, above: str, *, group: str = "") -> dict[str, Any]:
        parents = [{"type": group or kind, "id": one} for one in above if self.chance.random() < 0.5]
        return {"uid": {"type": kind, "id": name}, "attrs": {}, "parents": parents}

    def user(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "age": self.of(_LONGS), "name": self.of(_WORDS), "active": self.of([True, False]),
            "words": self.some(_WORDS), "flags": self.some([True, False]), "address": self.address(),
            "friends": [self.uid("User") for _ in range(self.chance.randint(0, 2))],
        }  # fmt: skip
        for name, value in (
            ("boss", self.uid("User")), ("nums", self.some(_LONGS)), ("ip", self.extension("ip", _IPS)),
            ("born", self.extension("datetime", _DATES)), ("span", self.extension("duration", _SPANS)),
            ("rate", self.extension("decimal", _RATES)),
        ):  # fmt: skip
            self.maybe(found, name, value)
        return found

    def doc(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "owner": self.uid("User"), "level": self.of(_LONGS), "color": self.uid("Color"),
            "places": [self.address() for _ in range(self.chance.randint(0, 2))],
            "made": self.extension("datetime", _DATES),
        }  # fmt: skip
        self.maybe(found, "title", self.of(_WORDS))
        self.maybe(found, "readers", [self.uid("Group") for _ in range(self.chance.randint(0, 2))])
        return found

    def context(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mfa": self.of([True, False]), "risk": self.of(_LONGS), "ip": self.extension("ip", _IPS),
            "now": self.extension("datetime", _DATES), "rate": self.extension("decimal", _RATES),
            "words": self.some(_WORDS), "device": {"managed": self.of([True, False])},
        }  # fmt: skip
        for name, value in (
            ("zone", self.of(_WORDS)), ("left", self.extension("duration", _SPANS)), ("via", self.uid("User")),
            ("odd name", self.of(_LONGS)),
        ):  # fmt: skip
            self.maybe(found, name, value)
        self.maybe(found["device"], "id", self.uid("Doc"))
        self.maybe(found["device"], "score", self.of(_LONGS))
        return found

    def request(self) -> dict[str, Any]:
        action = self.of(["view", "edit", "view", "edit", "drop"])
        drop = action == "drop"
        return {
            "principal": self.uid(self.of(["User", "User", "Group"]) if drop else "User", implicit=True),
            "action": {"type": "Action", "id": action},
            "resource": self.uid("Doc" if drop else self.of(["Doc", "Doc", "User"]), implicit=True),
            "context": {"mfa": self.of([True, False])} if drop else self.context(),
        }

    # Policies

    def policy(self) -> str:
        conditions = " ".join(
            f"{self.of(['when', 'when', 'unless'])} {{ {self.bool(self.chance.randint(0, 4))} }}"
            for _ in range(self.chance.choice([0, 1, 1, 1, 2]))
        )
        return (
            f"{self.of(['permit', 'permit', 'forbid'])} ({self.side('principal')}, {self.actions()},"
            f" {self.side('resource')}) {conditions};"
        )

    def side(self, name: str) -> str:
        kinds = ["User", "Group"] if name == "principal" else ["Doc", "User"]
        kind, group = self.of(kinds), self.of(["Group", "Folder", "User", "Doc"])
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
            ]
        )  # fmt: skip

    def name(self, kind: str) -> str:
        uid = self.uid(kind, implicit=True)
        return f'{uid["type"]}::"{uid["id"]}"'

    def any(self, depth: int) -> str:
        return f"({getattr(self, self.of(_TYPES))(depth)})"

    def typed(self, kind: str, depth: int) -> str:
        """Return an expression of a type, or now and then of another."""
        return f"({self.any(depth) if self.chance.random() < 0.03 else getattr(self, kind)(depth)})"

    def if_(self, kind: str, depth: int) -> str:
        then, other = self.typed(kind, depth - 1), self.typed(kind, depth - 1)
        return f"(if ({self.bool(depth - 1)}) then {then} else {other})"

    def bool(self, depth: int) -> str:  # noqa: PLR0911, PLR0912, C901 -- one line per form
        if depth <= 0:
            return self.of(
                [
                    "true", "false", "context.mfa", "context.device.managed", f"{self.user_(0)}.active",
                    f"context.risk {self.of(['<', '<=', '>', '>=', '==', '!='])} {self.long(0)}",
                    "context has zone", "context.device has id", f"{self.user_(0)} has boss", "resource has owner",
                    "resource has title", f"{self.user_(0)} has address.spot.on", 'context has "odd name"',
                    f"principal in {self.name(self.of(['Group', 'User']))}", f"resource in {self.name('Folder')}",
                    f"resource is {self.of(['Doc', 'User'])}", 'action == Action::"view"', 'action in Action::"some"',
                ]
            )  # fmt: skip
        below = depth - 1
        kind = self.of(_TYPES)
        match self.chance.randint(0, 17):
            case 0 | 1:
                return f"({self.typed('bool', below)} && {self.typed('bool', below)})"
            case 2 | 3:
                return f"({self.typed('bool', below)} || {self.typed('bool', below)})"
            case 4:
                return f"!({self.typed('bool', below)})"
            case 5:
                return f"({self.typed(kind, below)} {self.of(['==', '!='])} {self.typed(kind, below)})"
            case 6:
                sort = self.of(["long", "long", "date", "span"])
                sign = self.of(["<", "<=", ">", ">="])
                return f"({self.typed(sort, below)} {sign} {self.typed(sort, below)})"
            case 7:
                within = self.of(
                    [self.group(below), f"[{self.group(below)}, {self.group(below)}]", self.any(below)]
                )
                return f"({self.typed(self.of(['user_', 'doc_', 'group']), below)} in {within})"
            case 8:
                function = self.of(["contains", "containsAll", "containsAny", "isEmpty"])
                sort = self.of(["words", "longs", "users", "bools", "records"])
                item = {
                    "words": "text",
                    "longs": "long",
                    "users": "user_",
                    "bools": "bool",
                    "records": "record",
                }[sort]
                argument = {"contains": item, "isEmpty": ""}.get(function, sort)
                inner = self.typed(argument, below) if argument else ""
                return f"({self.typed(sort, below)}).{function}({inner})"
            case 9:
                pattern = "".join(self.some(["*", "a", "b", "X", "\\*", "é"], 5))
                return f'({self.typed("text", below)} like "{pattern}")'
            case 10:
                return f"({self.typed(self.of(['user_', 'doc_']), below)} is {self.of(['User', 'Doc', 'Group'])})"
            case 11:
                left, kind = self.typed("user_", below), self.of(["User", "Doc"])
                return f"({left} is {kind} in {self.typed('group', below)})"
            case 12:
                return f"({self.typed('user_', below)}).hasTag({self.typed('text', below)})"
            case 13:
                return f"({self.typed('rate', below)}).{self.of(_RATE_TESTS)}({self.typed('rate', below)})"
            case 14:
                test = self.of(["isIpv4()", "isIpv6()", "isLoopback()", "isMulticast()"])
                return f"({self.typed('ip', below)}).{test}"
            case 15:
                return f"({self.typed('ip', below)}).isInRange({self.typed('ip', below)})"
            case 16:
                return self.if_("bool", depth)
        return (
            f"({self.typed('record', below)} has {self.of(['street', 'zip', 'spot', 'spot.x', 'spot.on'])})"
        )

    def long(self, depth: int) -> str:
        if depth <= 0:
            literal = str(self.of(_LONGS))
            return self.of(
                [
                    literal, literal, "context.risk", f"{self.user_(0)}.age", "resource.level",
                    'context["odd name"]', "context.device.score", f"{self.user_(0)}.address.zip",
                ]
            )  # fmt: skip
        below = depth - 1
        return self.of(
            [
                f"({self.typed('long', below)} {self.of('+-*')} {self.typed('long', below)})",
                f"-({self.typed('long', below)})",
                f"({self.typed('span', below)}).to{self.of(_PARTS)}()",
                f"({self.typed('record', below)}).zip",
                f"{self.user_(below)}.age",
                self.if_("long", depth),
            ]
        )

    def text(self, depth: int) -> str:
        if depth <= 0:
            return self.of(
                [f'"{self.of(_WORDS)}"', f"{self.user_(0)}.name", "context.zone", "resource.title"]
            )
        below = depth - 1
        return self.of(
            [
                f"({self.typed('user_', below)}).getTag({self.typed('text', below)})",
                f"({self.typed('record', below)}).street",
                self.if_("text", depth),
            ]
        )

    def user_(self, depth: int) -> str:
        if depth <= 0:
            return self.of(["principal", "principal", "resource.owner", "context.via", self.name("User")])
        return self.of([f"{self.user_(depth - 1)}.boss", "principal", self.if_("user_", depth)])

    def doc_(self, _depth: int) -> str:
        return self.of(["resource", "resource", "context.device.id", self.name("Doc")])

    def group(self, _depth: int) -> str:
        return self.name(self.of(["Group", "Folder", "User"]))

    def words(self, depth: int) -> str:
        literal = f"[{', '.join(self.typed('text', depth - 1) for _ in range(self.chance.randint(0, 3)))}]"
        return self.of(["principal.words", "context.words", f"{self.user_(0)}.words", literal])

    def longs(self, depth: int) -> str:
        literal = f"[{', '.join(self.typed('long', depth - 1) for _ in range(self.chance.randint(0, 3)))}]"
        return self.of(["principal.nums", f'resource.getTag("{self.of("ts")}")', literal, "[1, 2, 3]"])

    def bools(self, depth: int) -> str:
        literal = f"[{', '.join(self.typed('bool', depth - 1) for _ in range(self.chance.randint(0, 2)))}]"
        return self.of(["principal.flags", literal, "[true]", "[1, true]"])

    def users(self, depth: int) -> str:
        literal = f"[{', '.join(self.typed('user_', depth - 1) for _ in range(self.chance.randint(0, 2)))}]"
        return self.of(["principal.friends", "resource.owner.friends", literal])

    def records(self, depth: int) -> str:
        return self.of(["resource.places", f"[{self.record(depth - 1)}]"])

    def record(self, depth: int) -> str:
        if depth <= 0:
            return self.of(["principal.address", "resource.owner.address", '{street: "a"}', "{}"])
        parts = [f"street: {self.typed('text', depth - 1)}", f"zip: {self.typed('long', depth - 1)}"]
        return self.of(["principal.address", f"{{{', '.join(parts)}}}", self.if_("record", depth)])

    def ip(self, depth: int) -> str:
        return self.of(
            [f'ip("{self.of(_IPS)}")', "context.ip", f"{self.user_(0)}.ip", f"ip({self.text(depth)})"]
        )

    def rate(self, _depth: int) -> str:
        return self.of([f'decimal("{self.of(_RATES)}")', "context.rate", f"{self.user_(0)}.rate"])

    def date(self, depth: int) -> str:
        if depth <= 0:
            return self.of(
                [f'datetime("{self.of(_DATES)}")', "context.now", "resource.made", f"{self.user_(0)}.born"]
            )
        below = depth - 1
        return self.of(
            [
                f"({self.typed('date', below)}).offset({self.typed('span', below)})",
                f"({self.typed('date', below)}).toDate()",
            ]
        )

    def span(self, depth: int) -> str:
        if depth <= 0:
            return self.of([f'duration("{self.of(_SPANS)}")', "context.left", f"{self.user_(0)}.span"])
        below = depth - 1
        return self.of(
            [
                f"({self.typed('date', below)}).durationSince({self.typed('date', below)})",
                f"({self.typed('date', below)}).toTime()",
            ]
        )


_RATE_TESTS = ["lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"]
_PARTS = ["Milliseconds", "Seconds", "Minutes", "Hours", "Days"]
_TYPES = [
    "bool", "long", "text", "user_", "doc_", "group", "words", "longs", "bools", "users", "records", "record",
    "ip", "rate", "date", "span",
]  # fmt: skip


def _told(answer: Answer) -> tuple[str, list[str], list[str]]:
    erring = sorted(error.partition(":")[0] for error in answer.errors)
    return answer.effect.value, sorted(answer.determining), erring


class Judges:
    """Cedar and our two tiers on one batch."""

    def __init__(self, batch: Batch) -> None:
        policies = [PolicyText(id=n, text="", tree=tree) for n, tree in corpus.trees(batch.policies).items()]
        self._engines = {
            tier: Engine(policies, SCHEMA, erring_forbid_denies=False, hot=hot)
            for tier, hot in corpus.TIERS.items()
        }
        self._worlds = {tier: corpus.world(engine, batch.entities) for tier, engine in self._engines.items()}
        self._schema = cedarpy.Schema.from_str(SCHEMA)
        self._policies = cedarpy.PolicySet.from_str(batch.policies)
        self._entities = cedarpy.Entities.from_json_str(json.dumps(batch.entities), self._schema)

    def cedar(self, request: dict[str, Any]) -> tuple[str, list[str], list[str]]:
        result = cedarpy.is_authorized(request, self._policies, self._entities, self._schema)
        found = [_ERRING.match(error) for error in result.diagnostics.errors]
        assert result.decision is not cedarpy.Decision.NoDecision, result.diagnostics.errors
        erring = sorted(match[1] for match in found if match is not None)
        return result.decision.value.lower(), sorted(result.diagnostics.reasons), erring

    def ours(self, tier: str, request: dict[str, Any]) -> tuple[str, list[str], list[str]]:
        engine, world = self._engines[tier], self._worlds[tier]
        uids = [EntityUid(**request[name]) for name in ("principal", "action", "resource")]
        for _ in range(2 if corpus.TIERS[tier] is not None else 1):
            answer = engine.evaluate_record(*uids, request["context"], loaded=world)
        return _told(answer)


def differences(count: int, seed: int, seen: Counter[str] | None = None) -> Iterator[str]:
    """Yield every difference in about `count` requests; `seen` counts how Cedar's answers spread."""
    maker = Maker(Random(seed))  # noqa: S311 -- cases that can be made again, not secrets
    for _ in range(count // BATCH):
        batch = maker.batch()
        judges = Judges(batch)
        for request in batch.requests:
            expected = judges.cedar(request)
            if seen is not None:
                seen[expected[0]] += 1
                seen["reasons"] += bool(expected[1])
                seen["errors"] += bool(expected[2])
            for tier in corpus.TIERS:
                got = judges.ours(tier, request)
                if got != expected:
                    yield f"{tier}: {got}, Cedar: {expected}\n{batch.policies}\n{json.dumps(request)}"


def main() -> None:
    """Compare for as long as asked and exit 1 at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    seen: Counter[str] = Counter()
    for difference in differences(options.count, options.seed, seen):
        sys.exit(difference)
    sys.stdout.write(f"{options.count:,} requests, no difference: {dict(seen)}\n")


if __name__ == "__main__":
    main()
