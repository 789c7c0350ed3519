"""Where networks lie by a file: `network,country,lat,lon`, one a line; the narrowest network counts.

Written by the operator from whatever source she trusts. A line that cannot be read refuses the file.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final, TextIO

from doorward.core.errors import InvalidConfigError
from doorward.core.feed import Place
from doorward.directory.zones import network_of

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_LINES: Final = 1_000_000
_HEAD: Final = ["network", "country", "lat", "lon"]
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_POLE: Final = 90
_NOWHERE: Final = Place()
Stamp = tuple[int, int, int]


class GeoMap:
    """Find where an address lies."""

    __slots__ = ("_tables", "size")

    def __init__(self, tables: dict[tuple[int, int], dict[int, Place]]) -> None:
        """Take networks by (version, prefix length) and number."""
        self._tables = sorted(tables.items(), key=lambda item: -item[0][1])
        self.size = sum(map(len, tables.values()))

    def place_of(self, address: str) -> Place:
        """Return where an address lies; nowhere if no line says so or it cannot be read."""
        try:
            ip = ip_address(address)
        except ValueError:
            return _NOWHERE
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        for (version, prefix), table in self._tables:
            if version == ip.version:
                hidden = ip.max_prefixlen - prefix
                place = table.get(int(ip) >> hidden << hidden)
                if place is not None:
                    return place
        return _NOWHERE


def stamp_of(path: Path) -> Stamp:
    """Return what changes when the file does; raise OSError."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def read(path: Path) -> GeoMap:
    """Read a file; raise InvalidConfigError with file:line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise InvalidConfigError(
                    f"[network] geo: {path} has {size} bytes, more than {MAX_BYTES}",
                    hint="Keep the networks your people come from.",
                )
            return GeoMap(_tables(path, file))
    except (OSError, UnicodeDecodeError) as reason:
        raise InvalidConfigError(
            f"[network] geo: {path} cannot be read: {reason}",
            hint="Name a CSV file of network,country,lat,lon.",
        ) from reason


def _tables(path: Path, file: TextIO) -> dict[tuple[int, int], dict[int, Place]]:
    tables: dict[tuple[int, int], dict[int, Place]] = {}
    places: dict[Place, Place] = {}
    for number, cells in _lines(path, file):
        try:
            network, place = network_of(cells[0]), _place(cells)
        except ValueError as reason:
            raise _bad(path, number, str(reason)) from reason
        table = tables.setdefault((network.version, network.prefixlen), {})
        if table.setdefault(int(network.network_address), places.setdefault(place, place)) != place:
            raise _bad(path, number, f"{network} stands twice, at two places")
    return tables


def _lines(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, strict=True)
    try:
        for row in reader:
            number, cells = reader.line_num, [cell.strip() for cell in row]
            if number > MAX_LINES:
                raise _bad(path, number, f"more than {MAX_LINES} lines")
            if not any(cells) or cells[0].startswith("#") or (number == 1 and cells == _HEAD):
                continue
            if len(cells) != len(_HEAD):
                raise _bad(path, number, f"{len(cells)} columns")
            yield number, cells
    except csv.Error as reason:
        raise _bad(path, reader.line_num, str(reason)) from reason


def _place(cells: list[str]) -> Place:
    _, country, north, east = cells
    if country and _COUNTRY.fullmatch(country) is None:
        raise ValueError(f"`{country}` is no country: two capital letters")
    if not north and not east:
        return Place(country or None)
    degrees = float(north), float(east)
    # Also false for NaN.
    if not (abs(degrees[0]) <= _POLE and abs(degrees[1]) <= 2 * _POLE):
        raise ValueError(f"{north}, {east} is no place on earth")
    return Place(country or None, *degrees)


def _bad(path: Path, number: int, what: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"{path}:{number}: {what}", hint="Each line is network,country,lat,lon: 192.0.2.0/24,NL,52.1,5.1."
    )
