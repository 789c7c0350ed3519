"""What the conditions of policies name: attributes of the context, and the constants they compare with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import msgspec

from doorward.core.model import Value

Path = tuple[str, ...]
_SPAN = re.compile(r"(-)?(?:(\d{1,6})d)?(?:(\d{1,8})h)?(?:(\d{1,9})m)?(?:(\d{1,10})s)?(?:(\d{1,13})ms)?")


class Literals(msgspec.Struct, frozen=True):
    """The constants of some conditions, by kind; addresses are networks as text."""

    longs: frozenset[int] = frozenset()
    texts: frozenset[str] = frozenset()
    moments: frozenset[datetime] = frozenset()
    spans: frozenset[timedelta] = frozenset()
    addresses: frozenset[str] = frozenset()

    def joined(self, other: Literals) -> Literals:
        """Return the constants of both."""
        return Literals(*(getattr(self, n) | getattr(other, n) for n in self.__struct_fields__))

    @classmethod
    def of_values(cls, values: Iterable[Value]) -> Literals:
        """Return the numbers and moments among an entity's attributes: policies compare with them too."""
        known = list(values)
        return cls(
            longs=frozenset(v for v in known if isinstance(v, int) and not isinstance(v, bool)),
            moments=frozenset(v.astimezone(UTC) for v in known if isinstance(v, datetime)),
        )


def paths_of(tree: Any) -> Iterator[Path]:
    """Yield the paths under `context` that an expression names; the empty path means the whole."""
    path = _path(tree)
    if path is not None:
        yield path
        return
    match tree:
        case {"has": {"left": left, "attr": name}} if (inner := _path(left)) is not None:
            yield (*inner, str(name))
        case Mapping():
            for part in tree.values():
                yield from paths_of(part)
        case list() | tuple():
            for part in tree:
                yield from paths_of(part)


def _path(tree: Any) -> Path | None:
    match tree:
        case {"Var": "context"}:
            return ()
        case {".": {"left": left, "attr": name}} if (inner := _path(left)) is not None:
            return (*inner, str(name))
    return None


def literals_of(tree: Any) -> Literals:
    """Return every constant of an expression."""
    longs: set[int] = set()
    texts: set[str] = set()
    calls: dict[str, set[str]] = {}
    _collect(tree, longs, texts, calls)
    return Literals(
        longs=frozenset(longs),
        texts=frozenset(texts),
        moments=frozenset(m for text in calls.get("datetime", ()) if (m := _moment(text)) is not None),
        spans=frozenset(s for text in calls.get("duration", ()) if (s := _span(text)) is not None),
        addresses=frozenset(text for text in calls.get("ip", ()) if _is_network(text)),
    )


def _collect(tree: Any, longs: set[int], texts: set[str], calls: dict[str, set[str]]) -> None:
    match tree:
        case {"Value": {"__extn": {"fn": str(name), "arg": str(text)}}}:
            calls.setdefault(name, set()).add(text)
        case {"Value": value}:
            _constants(value, longs, texts)
        case Mapping():
            for name, part in tree.items():
                if isinstance(part, list) and [*map(_text, part)] != [None] * len(part):
                    calls.setdefault(name, set()).update(t for t in map(_text, part) if t is not None)
                _collect(part, longs, texts, calls)
        case list() | tuple():
            for part in tree:
                _collect(part, longs, texts, calls)


def _constants(value: Any, longs: set[int], texts: set[str]) -> None:
    match value:
        case bool():
            return
        case int():
            longs.add(value)
        case str():
            texts.add(value)
        case list():
            for item in value:
                _constants(item, longs, texts)


def _text(tree: Any) -> str | None:
    match tree:
        case {"Value": str(text)}:
            return text
    return None


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)


def _span(text: str) -> timedelta | None:
    parts = _SPAN.fullmatch(text)
    if parts is None:
        return None
    days, hours, minutes, seconds, milliseconds = (int(part or 0) for part in parts.groups()[1:])
    span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    return -span if parts[1] else span


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
