# ruff: noqa: E501 -- expressions and their kinds stand on one line each, as in a table
"""Random expressions of Cedar: every operator and type, mostly well typed, now and then not."""

from __future__ import annotations

from random import Random
from typing import Any

LONGS = [0, 1, 2, 3, -1, 7, 100, 2**63 - 1, -(2**63), 4 * 10**9]
WORDS = ["", "a", "b", "ab", "a*b", "abc", "bca", "é", "x\\\\y", "aXbXc"]
# The same in policy text: some written with escapes.
_WRITTEN = [
    *WORDS,
    "\\u{61}",
    "\\u{1F600}",
    "a\\n\\t\\0b",
    "\\x41\\'",
    "1.5",
    "1d",
    "2024-02-29",
    "10.0.0.1",
]
IPS = [
    "1.2.3.4", "10.0.0.0/8", "10.1.2.3/24", "0.0.0.0/0", "127.0.0.1", "127.0.0.0/7", "224.0.0.1", "::1", "::/0",
    "ff00::/8", "fe80::1/64", "1.2.3", "1.2.3.4/33", "01.2.3.4", "::ffff:1.2.3.4", "::1%eth0", "1::2::3", "1.2.3.4/",
    "1.2.3.4/08", "224.0.0.0/3", "ff00::/7", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
]  # fmt: skip
DATES = [
    "2024-02-29", "2023-02-29", "1970-01-01", "0000-01-01", "9999-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z",
    "2024-01-01T00:00:00Z", "2024-01-01T00:00:00+0100", "2024-01-01T23:59:59.123-2359", "2024-01-01T24:00:00Z",
    "2024-01-01T00:00:00+2400", "2024-1-01", "2024-01-01T00:00Z", "2024-01-01T00:00:00.1Z", "2024-01-01T00:00:60Z",
    "0000-02-29", "0399-12-31", "2024-13-01", "2024-01-01T00:00:00-0000", "",
]  # fmt: skip
SPANS = [
    "1d", "1h", "-1ms", "1d2h3m4s5ms", "0ms", "", "-", "1m", "5ms3s", "9223372036854775807ms", "9223372036854775808ms",
    "-9223372036854775808ms", "-9223372036854775809ms", "106751991168d", "106751991167d", "1.5h", "1s1ms", "+1s", "-0s",
    "-106751991167d7h12m55s808ms", "-106751991167d7h12m55s809ms", "00001s",
]  # fmt: skip
RATES = [
    "0.0", "1.0", "-1.5", "922337203685477.5807", "922337203685477.5808", "-922337203685477.5808",
    "-922337203685477.5809", "1.00000", "1.", ".5", "-0.5", "1", "00.10", "+1.0", "1.2345",
]  # fmt: skip


class Expressions:
    """Makes expressions from one source of chance."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.of = chance.choice

    def some(self, values: list[Any], most: int = 3) -> list[Any]:
        return [self.of(values) for _ in range(self.chance.randint(0, most))]

    def uid(self, kind: str, *, implicit: bool = False) -> dict[str, Any]:
        names = {
            "User": "uvwz", "Doc": "dez", "Group": "ghiz", "Folder": "fkz", "Far::Town": "tlz",
            "Color": ["red", "green"], "Far::Place": ["here", "there"],
        }  # fmt: skip
        name = self.of(list(names[kind]))
        uid = {"type": kind, "id": name}
        return uid if implicit else {"__entity": uid}

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
                    f"resource is {self.of(['Doc', 'User', 'Far::Place', 'Color'])}", 'action == Action::"view"', 'action in Action::"some"',
                    "context has trip.back.at", f"{self.town(0)} has sister.near", f'resource == {self.name("Far::Place")}',
                    "principal == resource", 'action in [Action::"edit", Far::Action::"travel"]', "action.mfa", "action has mfa",
                ]
            )  # fmt: skip
        below = depth - 1
        kind = self.of(_TYPES)
        match self.chance.randint(0, 20):
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
                return f"({self.typed(self.of(['user_', 'doc_', 'group', 'town']), below)} in {self.within(below)})"
            case 8:
                function = self.of(["contains", "containsAll", "containsAny", "isEmpty"])
                sort = self.of(
                    ["words", "longs", "users", "bools", "records", "places", "days", "fares", "mixed"]
                )
                item = {
                    "words": "text",
                    "longs": "long",
                    "users": "user_",
                    "bools": "bool",
                    "records": "record",
                    "places": "place",
                    "days": "date",
                    "fares": "longs",
                    "mixed": self.of(_TYPES),
                }[sort]
                argument = {"contains": item, "isEmpty": ""}.get(function, sort)
                inner = self.typed(argument, below) if argument else ""
                return f"({self.typed(sort, below)}).{function}({inner})"
            case 9:
                pattern = "".join(self.some(["*", "a", "b", "X", "\\*", "é", "\\u{61}", "\\n"], 5))
                return f'({self.typed("text", below)} like "{pattern}")'
            case 10:
                return f"({self.typed(self.of(['user_', 'doc_']), below)} is {self.of(['User', 'Doc', 'Group', 'Far::Town'])})"
            case 11:
                left, kind = (
                    self.typed(self.of(["user_", "doc_", "town"]), below),
                    self.of(["User", "Doc", "Far::Town"]),
                )
                return f"({left} is {kind} in {self.within(below)})"
            case 12:
                return f"({self.typed(self.of(['user_', 'user_', 'doc_', 'town']), below)}).hasTag({self.typed('text', below)})"
            case 13:
                return f"({self.typed('rate', below)}).{self.of(_RATE_TESTS)}({self.typed('rate', below)})"
            case 14:
                test = self.of(["isIpv4()", "isIpv6()", "isLoopback()", "isMulticast()"])
                return f"({self.typed('ip', below)}).{test}"
            case 15:
                return f"({self.typed('ip', below)}).isInRange({self.typed('ip', below)})"
            case 16:
                return self.if_("bool", depth)
            case 17:
                return f"({self.typed('color', below)} {self.of(['==', '!=', 'in'])} {self.typed('color', below)})"
            case 18:
                return f"({self.typed('place', below)} {self.of(['==', '!=', 'in'])} {self.typed('place', below)})"
            case 19:
                several = self.of([" && ", " || "]).join(
                    self.typed("bool", min(below, 1)) for _ in range(self.chance.randint(3, 12))
                )
                return f"({several})"
        return (
            f"({self.typed('record', below)} has {self.of(['street', 'zip', 'spot', 'spot.x', 'spot.on'])})"
        )

    def long(self, depth: int) -> str:
        if depth <= 0:
            literal = str(self.of(LONGS))
            return self.of(
                [
                    literal, literal, "context.risk", f"{self.user_(0)}.age", "resource.level",
                    'context["odd name"]', "context.device.score", f"{self.user_(0)}.address.zip", f"{self.town(0)}.size",
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
                [f'"{self.of(_WRITTEN)}"', f"{self.user_(0)}.name", "context.zone", "resource.title"]
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
        return self.of(
            [
                f"{self.user_(depth - 1)}.boss",
                "principal",
                f"{self.town(depth - 1)}.mayor",
                self.if_("user_", depth),
            ]
        )

    def doc_(self, _depth: int) -> str:
        return self.of(["resource", "resource", "context.device.id", self.name("Doc")])

    def group(self, _depth: int) -> str:
        return self.name(self.of(["Group", "Folder", "User", "Far::Town"]))

    def within(self, depth: int) -> str:
        """Return what may stand right of `in`: an entity, a set of them, now and then anything."""
        several = f"[{self.group(depth)}, {self.group(depth)}]"
        return self.of(
            [
                self.group(depth),
                several,
                self.typed("users", depth),
                "resource.readers",
                "[]",
                self.any(depth),
            ]
        )

    def town(self, depth: int) -> str:
        if depth <= 0:
            return self.of(["principal", "resource", self.name("Far::Town")])
        return self.of([f"{self.town(depth - 1)}.sister", self.if_("town", depth)])

    def place(self, _depth: int) -> str:
        return self.of(["resource", f"{self.town(0)}.near", self.name("Far::Place"), 'Far::Place::"nowhere"'])

    def color(self, _depth: int) -> str:
        return self.of(["resource.color", "resource.color", self.name("Color"), 'Color::"blue"', "resource"])

    def places(self, depth: int) -> str:
        return self.of(
            [
                "context.trip.stops",
                f"[{self.place(depth)}]",
                f"[{self.place(depth)}, {self.place(depth)}]",
                "[]",
            ]
        )

    def fares(self, depth: int) -> str:
        return self.of(
            [
                "context.trip.fares",
                f"[{self.longs(depth - 1)}]",
                f"[{self.longs(depth - 1)}, []]",
                "[[1, 2], [2, 1, 1]]",
            ]
        )

    def days(self, depth: int) -> str:
        return self.of(
            ["context.trip.days", f"[{self.date(depth - 1)}]", f"[{self.date(0)}, {self.date(0)}]"]
        )

    def mixed(self, depth: int) -> str:
        """Return a set of anything: equality across types, nested records and extension values in sets."""
        return f"[{', '.join(self.any(depth - 1) for _ in range(self.chance.randint(0, 3)))}]"

    def words(self, depth: int) -> str:
        literal = f"[{', '.join(self.typed('text', depth - 1) for _ in range(self.chance.randint(0, 3)))}]"
        return self.of(["principal.words", "context.words", f"{self.user_(0)}.words", literal])

    def longs(self, depth: int) -> str:
        literal = f"[{', '.join(self.typed('long', depth - 1) for _ in range(self.chance.randint(0, 3)))}]"
        tag = (
            f"({self.typed('doc_', depth - 1)}).getTag({self.typed('text', depth - 1)})"
            if depth > 0
            else "[]"
        )
        return self.of(["principal.nums", f'resource.getTag("{self.of("ts")}")', literal, "[1, 2, 3]", tag])

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
            [f'ip("{self.of(IPS)}")', "context.ip", f"{self.user_(0)}.ip", f"ip({self.text(depth)})"]
        )

    def rate(self, _depth: int) -> str:
        return self.of(
            [
                f'decimal("{self.of(RATES)}")',
                "context.rate",
                f"{self.user_(0)}.rate",
                f"decimal({self.text(0)})",
            ]
        )

    def date(self, depth: int) -> str:
        if depth <= 0:
            return self.of(
                [
                    f'datetime("{self.of(DATES)}")',
                    "context.now",
                    "resource.made",
                    f"{self.user_(0)}.born",
                    "context.trip.back.at",
                    f"datetime({self.text(0)})",
                ]
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
            return self.of(
                [
                    f'duration("{self.of(SPANS)}")',
                    "context.left",
                    f"{self.user_(0)}.span",
                    f"duration({self.text(0)})",
                ]
            )
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
    "ip", "rate", "date", "span", "town", "place", "color", "places", "fares", "days", "mixed",
]  # fmt: skip
