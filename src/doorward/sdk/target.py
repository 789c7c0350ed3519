"""Where to ask, and what makes the way there trustworthy."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from doorward.core.errors import InvalidConfigError

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Target(msgspec.Struct, frozen=True):
    """A Unix socket, or host and port; `path` stands before the endpoint's own."""

    socket: Path | None = None
    host: str = "localhost"
    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None

    @property
    def authority(self) -> str:
        """Return what stands in the Host header."""
        if self.socket is not None:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls is not None else 80) else f"{host}:{self.port}"

    @property
    def address(self) -> str:
        """Return the shorter name of the Unix socket: a path there is limited to 107 bytes."""
        return min(str(self.socket), os.path.relpath(str(self.socket)), key=len)


def target_of(
    url: str, *, ca: str | Path | None, cert: str | Path | tuple[str | Path, str | Path] | None
) -> Target:
    """Read an address; raise InvalidConfigError for one that would betray the key, or files that do not fit.

    `ca` is the authority that vouches for the server (the installation's own: `DATA/tls/ca.pem`),
    `cert` a client certificate: one file, or certificate and key.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host or parts.username or parts.query or parts.fragment:
        raise InvalidConfigError(f"`{url}` is not an http or https address")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise InvalidConfigError(
            f"`{url}` is plain HTTP to another machine", hint="Use https: keys would be readable on the way."
        )
    if parts.scheme == "http" and (ca is not None or cert is not None):
        raise InvalidConfigError(f"`{url}` is plain HTTP, so no certificate is looked at", hint="Use https.")
    tls = _tls(ca, cert) if parts.scheme == "https" else None
    port = parts.port or (80 if tls is None else 443)
    return Target(host=host, port=port, path=parts.path.rstrip("/"), tls=tls)


def _tls(ca: str | Path | None, cert: str | Path | tuple[str | Path, str | Path] | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if cert is not None:
            files = cert if isinstance(cert, tuple) else (cert, cert)
            context.load_cert_chain(*map(str, files))
    except (OSError, ssl.SSLError) as reason:
        raise InvalidConfigError(
            f"the certificates cannot be used: {reason.strerror or reason}",
            hint="`ca` and `cert` are PEM files; a certificate and its key belong together.",
        ) from reason
    return context
