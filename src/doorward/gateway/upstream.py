"""Connections to the protected systems (aiohttp client): one fixed host each, bytes as they are.

No redirects, no proxies from the environment, no cookies, no decompression, no retries of anything
that may have been sent. On failure: UnavailableError, answered 502 or 504.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import aiohttp
from yarl import URL

from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.core.wire import UpstreamRequest
from doorward.gateway.faults import UnreachableError
from doorward.settings import MtlsCredentialHolder, UpstreamSettings, is_loopback

_CONNECT_SECONDS = 5.0
# Shorter than the idle time of the usual servers (uvicorn: 5 s): a pooled connection is dropped by us
# before it goes stale, because a request on a stale one could not be repeated without risk.
_IDLE_SECONDS = 4.0
_MAX_CONNECTIONS = 512
_READ_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 32 * 1024
_UNIX_HOST = "localhost"


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

    def __init__(self, settings: UpstreamSettings, *, timeout: float, base: Path = Path()) -> None:
        """Check the settings; connect on first use. `timeout` bounds the wait for each answer, in seconds."""
        self._settings = settings
        self._timeout = timeout
        self._unix = settings.url.removeprefix("unix:") if settings.url.startswith("unix:") else None
        self._ssl: ssl.SSLContext | bool = True
        if self._unix is None:
            parts = _checked(settings)
            self._origin = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
            if parts.scheme == "https":
                self._ssl = tls_context(settings, base)
        else:
            self._origin = f"http://{_UNIX_HOST}"
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: UpstreamRequest) -> HttpAnswer:
        """Send and return once the answer's head is there.

        Raises UnreachableError if no connection could be made, UnavailableError for every other failure.
        """
        try:
            return HttpAnswer(await self._try(request), self._settings.name)
        except aiohttp.ClientConnectorError as reason:
            raise UnreachableError(
                f"upstream `{self._settings.name}` cannot be reached",
                hint="Ask your operator whether it runs.",
            ) from reason
        except TimeoutError as reason:
            raise UnavailableError(
                f"upstream `{self._settings.name}` did not answer in time", code="upstream_timeout"
            ) from reason
        except (aiohttp.ClientError, OSError, ValueError) as reason:
            raise UnavailableError(
                f"upstream `{self._settings.name}` failed before it answered", code="upstream_unavailable"
            ) from reason

    async def _try(self, request: UpstreamRequest) -> aiohttp.ClientResponse:
        headers = [(name, value) for name, value in request.headers if name.lower() != "host"]
        if request.content_length is not None:
            headers.append(("Content-Length", str(request.content_length)))
        # `encoded`: the bytes that were authorised are the bytes sent.
        url = URL(self._origin + request.target, encoded=True)
        return await self._opened().request(
            request.method,
            url,
            headers=headers,
            data=request.body,
            allow_redirects=False,
        )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                raise_for_status=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=_CONNECT_SECONDS, sock_read=self._timeout
                ),
                read_bufsize=_READ_BYTES,
                max_line_size=_MAX_HEADER_BYTES,
                max_field_size=_MAX_HEADER_BYTES,
            )
            # aiohttp repeats idempotent requests that may already have been carried out; we do not.
            self._session._retry_connection = False  # noqa: SLF001 -- there is no public switch
        return self._session

    def _connector(self) -> aiohttp.BaseConnector:
        if self._unix is not None:
            return aiohttp.UnixConnector(
                path=self._unix, limit=_MAX_CONNECTIONS, keepalive_timeout=_IDLE_SECONDS
            )
        return aiohttp.TCPConnector(
            limit=_MAX_CONNECTIONS, keepalive_timeout=_IDLE_SECONDS, ssl=self._ssl, ttl_dns_cache=60
        )

    async def close(self) -> None:
        """Close pooled connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class HttpAnswer:
    """An upstream's answer whose body is read as it arrives."""

    def __init__(self, response: aiohttp.ClientResponse, name: str) -> None:
        """Take an answer whose head has arrived."""
        self._response = response
        self._name = name
        self.status = response.status
        self.headers = [
            (key.decode("ascii", "replace"), value.decode("utf-8", "surrogateescape"))
            for key, value in response.raw_headers
        ]

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body; raise UnavailableError if the upstream breaks off or stalls."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (TimeoutError, asyncio.IncompleteReadError) as reason:
            raise UnavailableError(
                f"upstream `{self._name}` stalled in the middle of its answer", code="upstream_timeout"
            ) from reason
        except (aiohttp.ClientError, OSError, ValueError) as reason:
            raise UnavailableError(
                f"upstream `{self._name}` broke off its answer", code="upstream_unavailable"
            ) from reason

    async def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()
