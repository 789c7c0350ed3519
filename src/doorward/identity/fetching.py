"""Fetch an issuer's documents: bounded in size and time, no redirects, no cookies, no proxies."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlencode

from doorward.core.errors import UnavailableError
from doorward.http1.client import Document, DocumentClient

MAX_DOCUMENT = 256 * 1024
_SECONDS, _CONNECT_SECONDS = 5.0, 3.0
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "doorward"}
_FORM = "application/x-www-form-urlencoded"


class HttpFetcher:
    """Get small JSON documents over HTTP; used inside one running event loop."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._client: DocumentClient | None = None

    async def __call__(self, url: str) -> bytes:
        """Return the body of a 200 answer; raise UnavailableError for anything else."""
        return _checked(await self._opened().ask("GET", url, headers=_HEADERS), url).body

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, bytes]:
        """Send a form; return the type and body of a 200 answer, raise UnavailableError for anything else."""
        sent = {**_HEADERS, "Content-Type": _FORM, **headers}
        answer = await self._opened().ask("POST", url, headers=sent, body=urlencode(form).encode())
        kind = _checked(answer, url).headers.get("content-type", "application/octet-stream")
        return kind.partition(";")[0].strip().lower(), answer.body

    async def post_json(self, url: str, content: bytes, headers: Mapping[str, str]) -> bytes:
        """Send a document and return the body of a 200 answer; raise UnavailableError for anything else."""
        sent = {**_HEADERS, **headers}
        return _checked(await self._opened().ask("POST", url, headers=sent, body=content), url).body

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _opened(self) -> DocumentClient:
        if self._client is None:
            self._client = DocumentClient(
                seconds=_SECONDS, connect_seconds=_CONNECT_SECONDS, max_bytes=MAX_DOCUMENT
            )
        return self._client


def _checked(answer: Document, url: str) -> Document:
    # A redirect could lead off TLS or to an inside address, so it counts as a failure.
    if answer.status != HTTPStatus.OK or "content-encoding" in answer.headers:
        raise UnavailableError(f"{url} answered {answer.status}")
    return answer
