"""Network zones: which named zone an address lies in."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import MappingProxyType
from typing import TYPE_CHECKING

from doorward.core.feed import Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNKNOWN_ZONE = "unknown"
_NOWHERE = Place()


class ZoneMap:
    """Find an address's zone; where zones overlap, the narrowest network wins."""

    __slots__ = ("_tables", "places", "zones")

    def __init__(
        self, zones: Mapping[str, Sequence[str]], places: Mapping[str, Place] = MappingProxyType({})
    ) -> None:
        """Index `zones` (name -> CIDRs); raise ValueError for text that is no network."""
        self.places: Mapping[str, Place] = dict(places)
        self.zones: Mapping[str, tuple[str, ...]] = {name: tuple(cidrs) for name, cidrs in zones.items()}
        tables: dict[tuple[int, int], dict[int, str]] = {}
        for name, networks in zones.items():
            for text in networks:
                network = ip_network(text)
                table = tables.setdefault((network.version, network.prefixlen), {})
                table[int(network.network_address)] = name
        self._tables = sorted(tables.items(), key=lambda item: -item[0][1])

    def place_of(self, address: str) -> Place:
        """Return where the zone of an address lies; a zone without a place, or none, lies nowhere known."""
        return self.places.get(self.zone_of(address), _NOWHERE)

    def zone_of(self, address: str) -> str:
        """Return the zone's name, or `unknown` for an address in none or one that cannot be read."""
        try:
            ip = _read(address)
        except ValueError:
            return UNKNOWN_ZONE
        for (version, prefix), table in self._tables:
            if version == ip.version:
                hidden = ip.max_prefixlen - prefix
                name = table.get(int(ip) >> hidden << hidden)
                if name is not None:
                    return name
        return UNKNOWN_ZONE


@lru_cache(maxsize=4096)
def _read(address: str) -> IPv4Address | IPv6Address:
    return _plain(ip_address(address))


def _plain(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Read `::ffff:10.0.0.1` as `10.0.0.1`: a dual-stack socket reports the former."""
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return mapped or ip


def network_of(text: str) -> IPv4Network | IPv6Network:
    """Read one CIDR strictly; raise ValueError if host bits are set."""
    return ip_network(text, strict=True)
