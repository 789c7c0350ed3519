"""Cedar's extension types: ip, decimal, datetime, duration; what they parse and what they compute."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from doorward.cedar.data import LONG_MAX, LONG_MIN, Datetime, Duration, Fault, Fixed, Network, kind

_DAY = 86_400_000
_UNITS = 10_000
_DECIMAL = re.compile(r"(-?)([0-9]+)\.([0-9]{1,4})")
_DATETIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?(?:Z|([+-])([0-9]{2})([0-9]{2})))?"
)
_DURATION = re.compile(r"(-?)(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?")
_SPANS = (_DAY, 3_600_000, 60_000, 1000, 1)
_BITS = {4: 32, 6: 128}
_YEARS = 400  # after which the calendar repeats
_CYCLE = 146_097  # days in them
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LONGEST = 43  # the longest text of an IPv6 address with a prefix


def _fault(function: str, text: str) -> Fault:
    return Fault(f"error while evaluating `{function}` extension function: `{text}` is not well-formed")


def _ranged(value: int, function: str) -> int:
    if LONG_MIN <= value <= LONG_MAX:
        return value
    raise Fault(f"error while evaluating `{function}` extension function: overflow")


def decimal(text: str) -> Fixed:
    """Read a decimal: digits on both sides of the point, at most four after it."""
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise _fault("decimal", text)
    units = int(found[2]) * _UNITS + int(found[3].ljust(4, "0"))
    return Fixed(_ranged(-units if found[1] else units, "decimal"))


def ip(text: str) -> Network:
    """Read an address or a range; IPv4 inside IPv6, leading zeros and zones are refused."""
    address, slash, prefix = text.partition("/")
    if len(text) > _LONGEST or ("." in text and ":" in text) or "%" in text:
        raise _fault("ip", text)
    try:
        parsed = IPv6Address(address) if ":" in address else IPv4Address(address)
    except AddressValueError as reason:
        raise _fault("ip", text) from reason
    most = _BITS[parsed.version]
    if not slash:
        return Network(parsed.version, int(parsed), most)
    if not (prefix.isascii() and prefix.isdigit()) or (prefix[0] == "0" and prefix != "0"):
        raise _fault("ip", text)
    if len(prefix) > len(str(most)) or int(prefix) > most:
        raise _fault("ip", text)
    return Network(parsed.version, int(parsed), int(prefix))


def datetime(text: str) -> Datetime:
    """Read `YYYY-MM-DD`, or with a time of day (milliseconds or not) in UTC or at an offset."""
    found = _DATETIME.fullmatch(text)
    if found is None:
        raise _fault("datetime", text)
    year, month, day, hour, minute, second, milli = (int(part or 0) for part in found.groups()[:7])
    ahead, behind = int(found[9] or 0), int(found[10] or 0)
    if hour > 23 or minute > 59 or second > 59 or ahead > 23 or behind > 59:  # noqa: PLR2004 -- a clock
        raise _fault("datetime", text)
    try:
        # Python's calendar begins in year 1, Cedar's in year 0; one cycle later it is the same.
        days = date(year % _YEARS + _YEARS, month, day).toordinal() - _EPOCH_DAY
        days += (year // _YEARS - 1) * _CYCLE
    except ValueError as reason:
        raise _fault("datetime", text) from reason
    offset = (ahead * 60 + behind) * 60_000 * (-1 if found[8] == "-" else 1)
    return Datetime(days * _DAY + ((hour * 60 + minute) * 60 + second) * 1000 + milli - offset)


def duration(text: str) -> Duration:
    """Read `1d2h3m4s5ms`: any of them, in this order."""
    found = _DURATION.fullmatch(text)
    if found is None or text in {"", "-"}:
        raise _fault("duration", text)
    sign, total = -1 if found[1] else 1, 0
    for digits, span in zip(found.groups()[1:], _SPANS, strict=True):
        if digits:
            _ranged(sign * int(digits), "duration")
            total = _ranged(total + _ranged(sign * int(digits) * span, "duration"), "duration")
    return Duration(total)


def _is_in_range(left: Network, right: Network) -> bool:
    bits = _BITS[left.version]
    return (
        left.version == right.version
        and left.prefix >= right.prefix
        and left.address >> (bits - right.prefix) == right.address >> (bits - right.prefix)
    )


_LOOPBACK = {4: Network(4, 127 << 24, 8), 6: Network(6, 1, 128)}
_MULTICAST = {4: Network(4, 224 << 24, 4), 6: Network(6, 0xFF << 120, 8)}


def _to_date(value: Datetime) -> Datetime:
    return Datetime(_ranged(value.ms // _DAY * _DAY, "toDate"))


def _cut(span: int) -> Callable[[Duration], int]:
    return lambda value: abs(value.ms) // span * (-1 if value.ms < 0 else 1)


# name -> (types of the arguments, what it computes)
FUNCTIONS: dict[str, tuple[tuple[type, ...], Callable[..., Any]]] = {
    "decimal": ((str,), decimal),
    "ip": ((str,), ip),
    "datetime": ((str,), datetime),
    "duration": ((str,), duration),
    "lessThan": ((Fixed, Fixed), lambda a, b: a.units < b.units),
    "lessThanOrEqual": ((Fixed, Fixed), lambda a, b: a.units <= b.units),
    "greaterThan": ((Fixed, Fixed), lambda a, b: a.units > b.units),
    "greaterThanOrEqual": ((Fixed, Fixed), lambda a, b: a.units >= b.units),
    "isIpv4": ((Network,), lambda a: a.version == 4),  # noqa: PLR2004 -- the protocol's version
    "isIpv6": ((Network,), lambda a: a.version == 6),  # noqa: PLR2004
    "isLoopback": ((Network,), lambda a: _is_in_range(a, _LOOPBACK[a.version])),
    "isMulticast": ((Network,), lambda a: _is_in_range(a, _MULTICAST[a.version])),
    "isInRange": ((Network, Network), _is_in_range),
    "offset": ((Datetime, Duration), lambda a, b: Datetime(_ranged(a.ms + b.ms, "offset"))),
    "durationSince": ((Datetime, Datetime), lambda a, b: Duration(_ranged(a.ms - b.ms, "durationSince"))),
    "toDate": ((Datetime,), _to_date),
    "toTime": ((Datetime,), lambda a: Duration(a.ms % _DAY)),
    "toMilliseconds": ((Duration,), lambda a: a.ms),
    "toSeconds": ((Duration,), _cut(1000)),
    "toMinutes": ((Duration,), _cut(60_000)),
    "toHours": ((Duration,), _cut(3_600_000)),
    "toDays": ((Duration,), _cut(_DAY)),
}


def call(name: str, arguments: list[Any]) -> Any:
    """Compute a function of these arguments; raise Fault for types or texts it does not take."""
    types, compute = FUNCTIONS[name]
    if len(arguments) != len(types):
        raise Fault(f"wrong number of arguments provided to extension function `{name}`")
    for value, wanted in zip(arguments, types, strict=True):
        if type(value) is not wanted:
            raise Fault(f"type error: expected {wanted.__name__.lower()}, got {kind(value)}")
    return compute(*arguments)
