"""Server certificates of `tls = "auto"`: the control role issues and renews, the gateway only reads."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from doorward.core.clock import Clock
from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.identity.device_authority import DeviceAuthority
from doorward.identity.spiffe import read_bundle
from doorward.identity.strict_jose import TokenFaultError
from doorward.identity.tls import TlsFiles, files_of, reload, server_context, trust
from doorward.settings import Settings, split_listen

CONTROL = "control"
GATEWAY = "gateway"
_ISSUE_EVERY = 3600.0
# A rotated CA must be trusted before the first certificate it signs is shown.
_LOOK_EVERY = 1.0
_LOOK_FOR_AUTHORITIES = 2.0
_PATIENCE, _LOOK_AGAIN = 60.0, 0.05
_log = structlog.get_logger()


def files(settings: Settings, role: str) -> TlsFiles | None:
    """Return the certificate files of a role's listener, None for plain HTTP (loopback only)."""
    tls = (settings.gateway if role == GATEWAY else settings.control).tls
    if tls is None:
        return None
    return files_of(tls, data=settings.data, name=role, resolve=settings.resolve)


def context(settings: Settings, role: str) -> ssl.SSLContext | None:
    """Return the TLS context of a role's listener, None for plain HTTP (loopback only)."""
    chosen = files(settings, role)
    if chosen is None:
        return None
    return server_context(chosen, authorities=_authorities(settings) if role == GATEWAY else ())


def _authorities(settings: Settings) -> tuple[bytes, ...]:
    """Return the authorities of every configured trust domain; one that cannot be read is told elsewhere."""
    found: list[bytes] = []
    for domain in settings.spiffe:
        with contextlib.suppress(OSError, TokenFaultError):
            bundle = read_bundle(settings.resolve(domain.bundle).read_bytes())
            found += [one.public_bytes(Encoding.DER) for one in bundle.authorities]
    return tuple(found)


def issue(settings: Settings, authority: DeviceAuthority, clock: Clock) -> None:
    """Make or renew the certificates of every listener with `tls = "auto"`."""
    public = urlsplit(settings.control.public_url or "").hostname
    for role, section, known_as in ((CONTROL, settings.control, public), (GATEWAY, settings.gateway, None)):
        if section.tls == "auto":
            host, _ = split_listen(section.listen)
            authority.ensure_server_files(settings.data, role, host, now=clock.now(), public=known_as)


async def issued(settings: Settings, role: str) -> None:
    """Wait for the certificate that the control role makes; raise UnavailableError if it never does."""
    if (settings.gateway if role == GATEWAY else settings.control).tls != "auto":
        return
    chosen = files(settings, role)
    deadline = asyncio.get_running_loop().time() + _PATIENCE
    while chosen is not None and not all(file and file.exists() for file in (chosen.cert, chosen.client_ca)):
        if asyncio.get_running_loop().time() > deadline:
            raise UnavailableError(
                f"no certificate appeared at {chosen.cert}",
                hint="The control role makes it: start `doorward up`, or look at its log.",
            )
        await asyncio.sleep(_LOOK_AGAIN)


async def keep_issued(settings: Settings, authority: DeviceAuthority, clock: Clock) -> None:
    """Renew certificates in time, until cancelled (control role)."""
    while True:
        await asyncio.sleep(_ISSUE_EVERY)
        await asyncio.to_thread(issue, settings, authority, clock)


async def keep_trusting(served: ssl.SSLContext | None, settings: Settings) -> None:
    """Let TLS accept new authorities of trust domains soon after their bundle has them, until cancelled."""
    if served is None or not settings.spiffe:
        return
    seen = _authorities(settings)
    while True:
        await asyncio.sleep(_LOOK_FOR_AUTHORITIES)
        now = await asyncio.to_thread(_authorities, settings)
        trust(served, [one for one in now if one not in seen])
        seen = now


async def keep_loaded(served: ssl.SSLContext | None, chosen: TlsFiles | None) -> None:
    """Serve a renewed certificate to new connections, until cancelled."""
    if served is None or chosen is None:
        return
    seen = _stamps(chosen)
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        if (now := _stamps(chosen)) == seen:
            continue
        try:
            reload(served, chosen)
        except InvalidConfigError as reason:
            # The old certificate serves on; a half-written pair of files is whole at the next look.
            _log.error("certificate_not_reloaded", reason=reason.message)
        else:
            _log.info("certificate_reloaded", file=str(chosen.cert))
        seen = now


def _stamps(chosen: TlsFiles) -> tuple[int, ...]:
    return tuple(_stamp(file) for file in (chosen.cert, chosen.key, chosen.client_ca) if file is not None)


def _stamp(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
