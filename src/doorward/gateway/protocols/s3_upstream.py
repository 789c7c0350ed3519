"""Speak to the S3 upstream in the gateway's own name: signed anew, one spelling of every name."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import msgspec

from doorward.core.clock import Clock
from doorward.core.errors import UnavailableError
from doorward.core.wire import UpstreamAnswer, UpstreamClient, UpstreamRequest
from doorward.gateway.upstream import host_of
from doorward.identity.sigv4_signing import UNSIGNED, S3Keys, canonical_query, encode, sign
from doorward.settings import S3CredentialHolder, UpstreamSettings

_FORBIDDEN = 403
_MAX_WHOLE = 32 * 1024 * 1024


class Outgoing(msgspec.Struct, kw_only=True):
    """State one request of the gateway's: names decoded, body whole or streamed with its length."""

    method: str
    bucket: str = ""
    key: str = ""
    query: Mapping[str, str] = {}
    headers: list[tuple[str, str]] = []
    body: bytes | AsyncIterator[bytes] | None = None
    length: int | None = None


class S3Upstream:
    """Sign and send; hold the upstream's address and keys."""

    def __init__(self, settings: UpstreamSettings, clock: Clock) -> None:
        """Read address and credential; without S3 keys requests go out unsigned."""
        self._name = settings.name
        self._clock = clock
        self._keys: S3Keys | None = None
        if isinstance(settings.credential, S3CredentialHolder):
            s3 = settings.credential.s3
            self._keys = S3Keys(s3.access_key_id, s3.secret_access_key, s3.region)
        parts = urlsplit(settings.url)
        self._base = "" if parts.scheme == "unix" else parts.path.rstrip("/")
        self._host = host_of(settings.url)

    async def send(self, client: UpstreamClient, outgoing: Outgoing) -> UpstreamAnswer:
        """Send one request; raise UnavailableError if the upstream refuses us or points elsewhere."""
        target = "/" + encode(outgoing.bucket)
        if outgoing.key:
            target += "/" + encode(outgoing.key, safe="/")
        query = canonical_query(outgoing.query.items())
        headers = [*outgoing.headers, ("accept-encoding", "identity")]
        if self._keys is not None:
            headers = sign(
                method=outgoing.method,
                host=self._host,
                path=self._base + target,
                query=outgoing.query.items(),
                headers=headers,
                payload=_payload(outgoing.body),
                keys=self._keys,
                now=self._clock.now(),
            )
        answer = await client.send(
            UpstreamRequest(
                method=outgoing.method,
                target=f"{target}?{query}" if query else target,
                headers=headers,
                body=outgoing.body,
                content_length=len(outgoing.body) if isinstance(outgoing.body, bytes) else outgoing.length,
            )
        )
        if answer.status == _FORBIDDEN or 301 <= answer.status <= 303 or 305 <= answer.status < 400:  # noqa: PLR2004 -- redirects; 304 is none
            await answer.close()
            raise UnavailableError(
                f"upstream `{self._name}` does not serve Doorward's own credential",
                hint="Ask your operator to check the upstream's `credential` and `url`.",
                code="upstream_unavailable",
            )
        return answer


def _payload(body: bytes | AsyncIterator[bytes] | None) -> str:
    if body is None or isinstance(body, bytes):
        return hashlib.sha256(body or b"").hexdigest()
    return UNSIGNED


async def read_whole(answer: UpstreamAnswer) -> bytes:
    """Read an answer that must be seen whole, and close it; raise UnavailableError beyond 32 MiB."""
    body = bytearray()
    try:
        async for chunk in answer.chunks():
            body += chunk
            if len(body) > _MAX_WHOLE:
                raise UnavailableError("the upstream's answer is too large", hint="Ask for a smaller page.")
    finally:
        await answer.close()
    return bytes(body)
