"""Which addresses may be connected to: judged at each connect, on what the name means at that moment.

A name that once led to a model server may lead elsewhere the next second (rebinding): to the metadata
service of a cloud, to a link-local address, to this machine. An address written in the configuration
was meant; one that only a name leads to has to be a plausible one.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from doorward.core.errors import UnavailableError

Address = IPv4Address | IPv6Address
# Clouds answer with credentials here; the IPv4 one is link-local besides.
_METADATA = frozenset(ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200"))
_RESOLVE_SECONDS = 5.0


class ForbiddenAddressError(UnavailableError):
    """A name leads to no address that may be connected to."""

    code = "upstream_unavailable"


def literal(host: str) -> Address | None:
    """Return the address a host is written as, None for a name."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def may_follow(address: Address, *, local: bool) -> bool:
    """Return whether a name may lead to this address; `local` names mean this machine and nothing else."""
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if local:
        return address.is_loopback
    return not (
        address in _METADATA
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address.is_reserved
    )


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses to try in turn; raise ForbiddenAddressError if a name leads to none that may be.

    Raises OSError if the name leads nowhere.
    """
    if literal(host) is not None:
        return [host]
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_RESOLVE_SECONDS):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    local = host == "localhost" or host.endswith(".localhost")
    allowed = [text for text in addresses if may_follow(ip_address(text.partition("%")[0]), local=local)]
    if not allowed:
        raise ForbiddenAddressError(
            f"`{host}` leads to {', '.join(addresses[:3]) or 'no address'}, which may not be connected to",
            hint="If it is meant, write the address itself in the configuration.",
        )
    return allowed
