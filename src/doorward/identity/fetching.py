"""Fetch an issuer's documents: bounded in size and time, no redirects, no cookies, no proxies."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import aiohttp

from doorward.core.errors import UnavailableError

MAX_DOCUMENT = 256 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=5.0, connect=3.0)
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "doorward"}


class HttpFetcher:
    """Get small JSON documents over HTTP; made inside a running event loop, on first use."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, url: str) -> bytes:
        """Return the body of a 200 answer; raise UnavailableError for anything else."""
        try:
            # A redirect could lead off TLS or to an inside address, so it counts as a failure.
            async with self._opened().get(url, allow_redirects=False) as answer:
                return await _bounded(answer, url)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as reason:
            raise UnavailableError(f"{url} cannot be reached ({type(reason).__name__})") from reason

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, bytes]:
        """Send a form; return the type and body of a 200 answer, raise UnavailableError for anything else."""
        try:
            async with self._opened().post(
                url, data=dict(form), headers=dict(headers), allow_redirects=False
            ) as answer:
                return answer.content_type, await _bounded(answer, url)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as reason:
            raise UnavailableError(f"{url} cannot be reached ({type(reason).__name__})") from reason

    async def post_json(self, url: str, content: bytes, headers: Mapping[str, str]) -> bytes:
        """Send a document and return the body of a 200 answer; raise UnavailableError for anything else."""
        try:
            async with self._opened().post(
                url, data=content, headers=dict(headers), allow_redirects=False
            ) as answer:
                return await _bounded(answer, url)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as reason:
            raise UnavailableError(f"{url} cannot be reached ({type(reason).__name__})") from reason

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=_TIMEOUT,
                headers=_HEADERS,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=8),
            )
        return self._session


async def _bounded(answer: aiohttp.ClientResponse, url: str) -> bytes:
    if answer.status != HTTPStatus.OK or "Content-Encoding" in answer.headers:
        raise UnavailableError(f"{url} answered {answer.status}")
    body = bytearray()
    async for chunk in answer.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) > MAX_DOCUMENT:
            raise UnavailableError(f"{url} answered more than {MAX_DOCUMENT} bytes")
    return bytes(body)
