"""Cedar's values as the evaluator holds them: equal in Python exactly when Cedar calls them equal.

Booleans, longs, strings and entity names are Python's own and `EntityUid`; records are dicts; sets and
extension types are the classes here. `true` and 1, which Python takes for one, are kept apart by `key`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any, Final

import msgspec

from doorward.core.errors import InvalidRequestError
from doorward.core.model import EntityUid, Value

LONG_MIN: Final = -(2**63)
LONG_MAX: Final = 2**63 - 1
_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)
_UNITS = 10_000  # a decimal has four digits after its point


class Fault(Exception):  # noqa: N818 -- a value of the evaluation, not a failure of ours
    """An expression errs; the message says why, in Cedar's words."""


class Datetime(msgspec.Struct, frozen=True, order=True):
    """A moment in milliseconds since 1970."""

    ms: int


class Duration(msgspec.Struct, frozen=True, order=True):
    """A span in milliseconds."""

    ms: int


class Fixed(msgspec.Struct, frozen=True):
    """A `decimal` in ten-thousandths; compared by methods only."""

    units: int


class Network(msgspec.Struct, frozen=True):
    """An `ip`: an address with the length of its prefix."""

    version: int
    address: int
    prefix: int


class CedarSet:
    """A set, kept as the keys of its members."""

    __slots__ = ("items",)

    def __init__(self, items: frozenset[Any]) -> None:
        """Keep keys, as `key` makes them."""
        self.items = items

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        return isinstance(other, CedarSet) and self.items == other.items

    def __hash__(self) -> int:
        """Hash the content."""
        return hash(self.items)

    def __repr__(self) -> str:
        """Show the keys."""
        return f"CedarSet({set(self.items)!r})"


TRUE_KEY: Final = ("bool", True)
FALSE_KEY: Final = ("bool", False)


def key(value: Any) -> Any:
    """Return something hashable that is equal exactly when Cedar says so."""
    if value is True:
        return TRUE_KEY
    if value is False:
        return FALSE_KEY
    if type(value) is dict:
        return ("record", frozenset((name, key(item)) for name, item in value.items()))
    return value


def set_of(values: Iterable[Any]) -> CedarSet:
    """Return the set of these values."""
    return CedarSet(frozenset([key(value) for value in values]))


NOTHING: Final = set_of(())


def equal(left: Any, right: Any) -> bool:
    """Return what `==` says; values of two types are never equal."""
    if type(left) is not type(right):
        return False
    return bool(key(left) == key(right)) if type(left) is dict else bool(left == right)


def kind(value: Any) -> str:
    """Return the name of a value's type, for messages."""
    if type(value) is EntityUid:
        return f"(entity of type `{value.type}`)"
    return _KINDS.get(type(value), type(value).__name__)


_KINDS: dict[type, str] = {
    bool: "bool", int: "long", str: "string", dict: "record", CedarSet: "set",
    Datetime: "datetime", Duration: "duration", Fixed: "decimal", Network: "ipaddr",
}  # fmt: skip


def long(value: int) -> int:
    """Return an i64; raise Fault beyond it."""
    if LONG_MIN <= value <= LONG_MAX:
        return value
    raise Fault("integer overflow")


def text_of(value: str) -> str:
    """Return a string that is Unicode text; raise InvalidRequestError for half a surrogate pair."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as reason:
            raise InvalidRequestError("a string is not valid Unicode") from reason
    return str(value)


def inside(value: Any) -> Any:  # noqa: PLR0911, C901 -- one return per kind of value
    """Return a value of the house (`core.model.Value`) as the evaluator holds it."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not LONG_MIN <= value <= LONG_MAX:
            raise InvalidRequestError(f"{value} is beyond 64 bits")
        return int(value)
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, EntityUid):
        return value
    if isinstance(value, frozenset):
        return set_of([inside(item) for item in value])
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, timedelta):
        return Duration(_bounded(value // _MILLISECOND))
    if isinstance(value, Decimal):
        return _fixed(value)
    if isinstance(value, (IPv4Interface, IPv6Interface)):
        return network(value)
    if hasattr(value, "items"):
        return {text_of(name): inside(item) for name, item in value.items()}
    raise InvalidRequestError(f"a value of type {type(value).__name__} has no Cedar form")


def outside(value: Any) -> Value:
    """Return what the evaluator holds as a value of the house; raise ValueError where it has no such form.

    Records and the extension types but `datetime` have none: nobody needed it yet.
    """
    if isinstance(value, (bool, int, str, EntityUid)):
        return value
    if isinstance(value, CedarSet):
        return frozenset(_member(item) for item in value.items)
    if isinstance(value, Datetime):
        try:
            return _EPOCH + value.ms * _MILLISECOND
        except OverflowError as reason:
            raise ValueError("a moment beyond the calendar") from reason
    raise ValueError(f"a {kind(value)} is not handed out")


def _member(key_: Any) -> Value:
    if key_ in (TRUE_KEY, FALSE_KEY):
        return bool(key_[1])
    if isinstance(key_, tuple):
        raise ValueError("a set of records is not handed out")  # noqa: TRY004 -- as `outside`
    return outside(key_)


def moment(value: datetime) -> Datetime:
    """Return a moment, cut to milliseconds; without a zone it is the machine's, as in the wire form."""
    if value.tzinfo is None:
        value = value.astimezone(UTC)
    return Datetime((value - _EPOCH) // _MILLISECOND)


def network(value: IPv4Interface | IPv6Interface) -> Network:
    """Return an address with its prefix."""
    return Network(value.version, int(value), value.network.prefixlen)


def _bounded(value: int) -> int:
    if not LONG_MIN <= value <= LONG_MAX:
        raise InvalidRequestError(f"{value} is beyond 64 bits")
    return value


def _fixed(value: Decimal) -> Fixed:
    if not value.is_finite():
        raise InvalidRequestError(f"{value} is no decimal")
    return Fixed(_bounded(int(Decimal(f"{value:.4f}") * _UNITS)))
