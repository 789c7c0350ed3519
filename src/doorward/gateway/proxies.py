"""Whose request a listed proxy passes on: the only place where a forwarded address is believed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from msgspec.structs import replace

from doorward.core.errors import InvalidRequestError
from doorward.core.wire import Request

HEADER: Final = "x-forwarded-for"
_MOST: Final = 32


class Proxies:
    """Know the proxies of `[gateway] proxies`; everybody else's forwarding headers mean nothing."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Take addresses and networks; raise ValueError for text that is neither."""
        self._networks = tuple(ip_network(text) for text in networks)
        self._listed = lru_cache(4096)(self._is_listed)

    def seen(self, request: Request) -> Request:
        """Return the request as that of the address which the last listed proxy had before it.

        Read from the right: what stands left of the first address that is no listed proxy anybody could
        have written. Raises InvalidRequestError for a listed proxy's header that is no list of addresses.
        """
        if not self._networks or not self._listed(request.peer.ip):
            return request
        hops = [hop.strip() for name, value in request.headers if name == HEADER for hop in value.split(",")]
        if len(hops) > _MOST:
            raise InvalidRequestError(f"`{HEADER}` names more than {_MOST} addresses")
        for hop in reversed(hops):
            address = _address(hop)
            if not self._listed(address):
                return replace(request, peer=replace(request.peer, ip=address, proxy=request.peer.ip))
        return request

    def _is_listed(self, address: str) -> bool:
        ip = ip_address(address)
        return any(_within(network, ip.version) and ip in network for network in self._networks)


def _within(network: IPv4Network | IPv6Network, version: int) -> bool:
    return network.version == version


def _address(text: str) -> str:
    try:
        ip = ip_address(text)
    except ValueError:
        raise InvalidRequestError(
            f"a proxy's `{HEADER}` holds what is no address", hint="Let the proxy write plain addresses."
        ) from None
    if getattr(ip, "scope_id", None):
        raise InvalidRequestError(f"a proxy's `{HEADER}` holds an address with a scope")
    return str(getattr(ip, "ipv4_mapped", None) or ip)
