"""Who is at the other end of a connection, as far as the connection itself tells."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from ipaddress import ip_address

from doorward.core.wire import Peer

_LOCAL = "127.0.0.1"
ChainOf = Callable[[ssl.SSLObject], tuple[bytes, ...]]


def peer_of(transport: asyncio.Transport, chain_of: ChainOf | None = None) -> Peer:
    """Return address and verified client certificate; a Unix socket is this machine.

    `chain_of` reads the certificates that were sent with the client's.
    """
    name = transport.get_extra_info("peername")
    ip = _LOCAL
    if isinstance(name, tuple) and name:
        address = ip_address(str(name[0]).partition("%")[0])
        ip = str(getattr(address, "ipv4_mapped", None) or address)
    session: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    certificate = session.getpeercert(binary_form=True) if session is not None else None
    chain: tuple[bytes, ...] = ()
    if session is not None and certificate is not None and chain_of is not None:
        chain = chain_of(session)
    return Peer(ip=ip, tls=session is not None, certificate=certificate, chain=chain)
