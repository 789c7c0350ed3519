"""Connections to the protected systems: one fixed host each, bytes as they are.

No redirects, no proxies from the environment, no cookies, no decompression; repeated is only what
reads, and only when a kept connection turned out to be closed. On failure: UnavailableError (502, 504).
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.core.wire import UpstreamRequest
from doorward.gateway.faults import UnreachableError
from doorward.http1.budget import UNBOUNDED, Budget
from doorward.http1.heads import lines
from doorward.http1.link import Link, LinkLostError, UnsentError
from doorward.http1.pool import Origin, Pool, UnconnectedError
from doorward.http1.reply import Reply
from doorward.settings import MtlsCredentialHolder, UpstreamSettings, is_loopback

_CONNECT_SECONDS = 5.0
_MAX_CONNECTIONS = 4096
_UNIX_HOST = "localhost"
# Only what changes nothing may be sent twice (RFC 9110 §9.2.1).
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_TARGET = re.compile(r"/[!-~]*")


def host_of(url: str) -> str:
    """Return the Host header an upstream is spoken to with, for protocols that sign it."""
    if url.startswith("unix:"):
        return _UNIX_HOST
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in {None, {"http": 80, "https": 443}[parts.scheme]} else f"{host}:{parts.port}"


def _checked(settings: UpstreamSettings) -> SplitResult:
    """Return the parts of an upstream's URL; refuse what would carry credentials in the clear."""
    try:
        parts = urlsplit(settings.url)
        wrong = parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0
    except ValueError:
        wrong = True
    if wrong or parts.query or parts.fragment or parts.username is not None:
        raise InvalidConfigError(
            f"upstream `{settings.name}`: the url is not usable",
            hint="Write http(s)://HOST[:PORT][/PATH] or unix:/PATH; credentials have their own setting.",
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise InvalidConfigError(
            f"upstream `{settings.name}` would be spoken to in the clear across the network",
            hint="Use https://, a Unix socket (unix:/PATH), or an address of this machine.",
        )
    return parts


def _existing(path: Path, settings: UpstreamSettings) -> str:
    if not path.is_file():
        raise InvalidConfigError(
            f"upstream `{settings.name}`: there is no file {path}", hint="Check `ca` and `credential`."
        )
    return str(path)


def tls_context(settings: UpstreamSettings, base: Path = Path()) -> ssl.SSLContext:
    """Return the TLS context for one upstream: its own CA if set, our client certificate if set.

    Paths are relative to `base`. Raises InvalidConfigError for a file that is missing or not usable.
    """
    mtls = settings.credential.mtls if isinstance(settings.credential, MtlsCredentialHolder) else None
    authority = settings.ca if settings.ca is not None else (mtls.ca if mtls is not None else None)
    try:
        context = ssl.create_default_context(
            cafile=_existing(base / authority, settings) if authority is not None else None
        )
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if mtls is not None:
            context.load_cert_chain(
                _existing(base / mtls.cert, settings), _existing(base / mtls.key, settings)
            )
    except (ssl.SSLError, OSError) as reason:
        raise InvalidConfigError(
            f"upstream `{settings.name}`: its TLS files cannot be used ({reason.strerror or reason})",
            hint="They must be PEM, and the key must fit the certificate.",
        ) from reason
    return context


class HttpUpstream:
    """Speak HTTP/1.1 to one upstream over pooled connections."""

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        timeout: float,
        base: Path = Path(),
        budget: Budget | None = None,
        connect_timeout: float = _CONNECT_SECONDS,
    ) -> None:
        """Check the settings; connect on first use.

        `timeout` bounds each wait for the upstream and `connect_timeout` a connection, in seconds;
        `budget` counts the bytes of answers that wait to be read.
        """
        self._name, self._timeout, self._connect_timeout = settings.name, timeout, connect_timeout
        self._budget = budget or Budget(UNBOUNDED)
        if settings.url.startswith("unix:"):
            self._origin, self._prefix = Origin(unix=settings.url.removeprefix("unix:")), ""
        else:
            parts = _checked(settings)
            secure = parts.scheme == "https"
            port = parts.port or (443 if secure else 80)
            tls = tls_context(settings, base) if secure else None
            self._origin = Origin(parts.hostname or "", port, tls=tls)
            self._prefix = parts.path.rstrip("/")
        self._host = host_of(settings.url)
        self._pool: Pool | None = None

    async def send(self, request: UpstreamRequest) -> Reply:
        """Send and return once the answer's head is there.

        Raises UnreachableError if no connection could be made, UnavailableError for every other failure.
        """
        try:
            return await self._exchanged(request, self._head(request))
        except UnconnectedError as reason:
            raise UnreachableError(
                f"upstream `{self._name}` cannot be reached", hint="Ask your operator whether it runs."
            ) from reason

    def _head(self, request: UpstreamRequest) -> bytes:
        """Write the head; the bytes that were authorised are the bytes sent."""
        headers = [("Host", self._host)]
        headers += [pair for pair in request.headers if pair[0].lower() not in _FRAMING]
        body = request.body
        if isinstance(body, bytes):
            headers.append(("Content-Length", str(len(body))))
        elif body is None:
            if request.method not in _BODILESS:
                headers.append(("Content-Length", "0"))
        elif request.content_length is not None:
            headers.append(("Content-Length", str(request.content_length)))
        else:
            headers.append(("Transfer-Encoding", "chunked"))
        target = self._prefix + request.target
        if _TARGET.fullmatch(target) is None:
            raise _unsendable(self._name)
        try:
            return lines(f"{request.method} {target} HTTP/1.1", headers)
        except ValueError:
            raise _unsendable(self._name) from None

    async def _exchanged(self, request: UpstreamRequest, head: bytes) -> Reply:
        pool = self._opened()
        repeatable = request.method in _SAFE and (request.body is None or isinstance(request.body, bytes))
        link, used = await pool.take()
        try:
            return await self._over(link, request, head)
        except LinkLostError as lost:
            if not used or not (repeatable or isinstance(lost, UnsentError)):
                raise
        # The other server had closed a connection we kept. Nothing came back, and nothing was changed.
        link, _ = await pool.take(fresh=True)
        return await self._over(link, request, head)

    async def _over(self, link: Link, request: UpstreamRequest, head: bytes) -> Reply:
        return await link.exchange(
            request.method, head, request.body, length=request.content_length, patience=self._timeout
        )

    def _opened(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(
                self._origin,
                self._name,
                budget=self._budget,
                limit=_MAX_CONNECTIONS,
                connect_seconds=self._connect_timeout,
            )
        return self._pool

    async def close(self) -> None:
        """Close pooled connections."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None


def _unsendable(name: str) -> UnavailableError:
    return UnavailableError(f"the request for upstream `{name}` cannot be written", code="internal")
