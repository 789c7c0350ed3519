"""Requests and answers as the gateway's flow sees them, free of any HTTP library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from doorward.core.errors import InvalidRequestError

Headers = tuple[tuple[str, str], ...]


class Peer(msgspec.Struct, frozen=True):
    """State the other end of the connection; `certificate` is the verified client's DER.

    `chain` is how TLS verified it, from the certificate itself upwards (DER); only workloads' needs it.
    `proxy` is the listed proxy that passed the request on; `ip` is then whose request it is.
    """

    ip: str
    tls: bool = False
    certificate: bytes | None = None
    chain: tuple[bytes, ...] = ()
    proxy: str = ""


class Body(Protocol):
    """Read a request body once."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""


class NoBody:
    """The body of a request that has none, or of which only the head is read."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield nothing."""
        nothing: tuple[bytes, ...] = ()
        for chunk in nothing:
            yield chunk


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, in its one canonical reading.

    `path` is decoded and canonical (`/llm/v1/models`), `raw_path` the same bytes as received,
    `query` the decoded pairs in order, `raw_query` as received; header names are lower case.
    """

    id: str
    method: str
    path: str
    raw_path: str
    query: tuple[tuple[str, str], ...]
    raw_query: str
    headers: Headers
    peer: Peer
    body: Body
    host: str = ""

    def header(self, name: str) -> str | None:
        """Return the one value of a header, or None; raise InvalidRequestError if it is repeated."""
        values = [value for key, value in self.headers if key == name]
        if len(values) > 1:
            raise InvalidRequestError(f"header `{name}` is given {len(values)} times", hint="Send it once.")
        return values[0] if values else None

    def parameter(self, name: str) -> str | None:
        """Return the one value of a query parameter, or None; raise InvalidRequestError if repeated."""
        values = [value for key, value in self.query if key == name]
        if len(values) > 1:
            raise InvalidRequestError(
                f"parameter `{name}` is given {len(values)} times", hint="Send it once."
            )
        return values[0] if values else None


class Answer(msgspec.Struct, kw_only=True):
    """One answer; `body` is bytes when whole, an async iterator when streamed."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | AsyncIterator[bytes]


class UpstreamRequest(msgspec.Struct, kw_only=True):
    """What is sent to the protected system: raw target below the upstream's URL, and the bytes."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes | AsyncIterator[bytes] | None
    content_length: int | None = None


class UpstreamAnswer(Protocol):
    """An upstream's answer whose body has not been read yet; always close it."""

    status: int
    headers: list[tuple[str, str]]

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""

    async def close(self) -> None:
        """Drop the connection if the body was not read to its end."""


class UpstreamClient(Protocol):
    """Speak to one upstream. Down or too slow: raise UnavailableError (502/504 to the caller)."""

    async def send(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send and return once the answer's headers are there."""

    async def close(self) -> None:
        """Close pooled connections."""
