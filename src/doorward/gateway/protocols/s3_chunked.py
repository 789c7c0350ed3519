"""Decode `aws-chunked` bodies: every chunk's signature, the trailer's checksum, the declared length."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import zlib
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from doorward.core.errors import InvalidRequestError, UnsupportedMediaError
from doorward.identity.sigv4_signing import EMPTY_SHA256, Scope, signature

_HEADER = re.compile(rb"([0-9a-fA-F]{1,8})(?:;chunk-signature=([0-9a-f]{64}))?")
_TRAILER = re.compile(rb"([A-Za-z0-9-]{1,64}):[ \t]*([^\r\n]{0,512}?)[ \t]*")
CHECKSUMS = frozenset({"content-md5", "x-amz-checksum-crc32", "x-amz-checksum-sha1", "x-amz-checksum-sha256"})
_MAX_CHUNK = 16 * 1024 * 1024
_MAX_LINE = 1024


class ChunkSigner(msgspec.Struct, frozen=True):
    """State what chunk signatures are made with: the request's key, date, scope and own signature."""

    key: bytes
    date: str
    scope: Scope
    seed: str

    def __repr__(self) -> str:
        """Return no key."""
        return f"ChunkSigner({self.scope})"


class Checksum(Protocol):
    """Sum bytes up as they come."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""

    def digest(self) -> bytes:
        """Return the sum of all bytes so far."""


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def checksum_of(name: str) -> Checksum:
    """Return an empty checksum for a trailer's name; raise UnsupportedMediaError for one not known."""
    match name.strip().lower():
        case "content-md5":
            return hashlib.md5(usedforsecurity=False)
        case "x-amz-checksum-crc32":
            return _Crc32()
        case "x-amz-checksum-sha256":
            return hashlib.sha256()
        case "x-amz-checksum-sha1":
            return hashlib.sha1(usedforsecurity=False)
    raise UnsupportedMediaError(
        f"the trailing checksum {name[:64]} is not supported",
        hint="Use CRC32, SHA1 or SHA256, or set request_checksum_calculation to when_required.",
    )


def _broken(why: str) -> InvalidRequestError:
    return InvalidRequestError(f"the chunked body {why}", hint="Send it again.")


class ChunkedBody:
    """Turn an `aws-chunked` stream into its content, verified.

    The last piece is held back until everything is verified, so that an upstream never gets a whole body
    of which a part was false.
    """

    def __init__(
        self, source: AsyncIterator[bytes], *, length: int, signer: ChunkSigner | None, trailer: str | None
    ) -> None:
        """Take the raw stream, the declared length of the content, and what it must be verified with."""
        self._source = source
        self._buffer = bytearray()
        self._left = length
        self._signer = signer
        self._previous = signer.seed if signer is not None else ""
        self._trailer = trailer.strip().lower() if trailer else None
        self._checksum = checksum_of(trailer) if trailer else None

    async def content(self) -> AsyncIterator[bytes]:
        """Yield the content; raise InvalidRequestError at the first thing that does not verify."""
        held = b""
        while chunk := await self._chunk():
            self._left -= len(chunk)
            if self._left < 0:
                raise _broken("is longer than declared")
            if held:
                yield held
            held = chunk
        if self._left:
            raise _broken("is shorter than declared")
        await self._end()
        if held:
            yield held

    async def _chunk(self) -> bytes:
        match = _HEADER.fullmatch(await self._line())
        if match is None or (match[2] is None) != (self._signer is None):
            raise _broken("has a malformed chunk")
        size = int(match[1], 16)
        if size > _MAX_CHUNK:
            raise _broken("has a chunk over 16 MiB")
        chunk = await self._take(size)
        if self._signer is not None:
            self._verify(chunk, match[2].decode())
        if size and await self._take(2) != b"\r\n":
            raise _broken("has a malformed chunk")
        if self._checksum is not None:
            self._checksum.update(chunk)
        return chunk

    def _verify(self, chunk: bytes, given: str) -> None:
        if self._signer is None:
            return
        digest = hashlib.sha256(chunk).hexdigest()
        self._previous = self._check(("AWS4-HMAC-SHA256-PAYLOAD", EMPTY_SHA256, digest), given)

    def _check(self, parts: tuple[str, ...], given: str) -> str:
        signer = self._signer
        if signer is None:
            raise _broken("cannot be verified")
        text = "\n".join((parts[0], signer.date, str(signer.scope), self._previous, *parts[1:]))
        if not hmac.compare_digest(signature(signer.key, text), given):
            raise _broken("has a chunk whose signature does not verify")
        return given

    async def _end(self) -> None:
        """Read the trailers and the end (RFC 9112 §7.1.2, with AWS's signature of the trailers)."""
        trailers: dict[str, str] = {}
        # The chunk of size 0 ends with its line; then trailers, if announced, then an empty line.
        while line := await self._line(final=True):
            match = _TRAILER.fullmatch(line)
            if match is None or (name := match[1].decode().lower()) in trailers:
                raise _broken("has a malformed trailer")
            trailers[name] = match[2].decode("latin-1")
        if self._buffer or await self._more():
            raise _broken("goes on behind its end")
        given = trailers.pop("x-amz-trailer-signature", None)
        if set(trailers) != ({self._trailer} if self._trailer else set()):
            raise _broken("does not have the trailer that was announced")
        if self._trailer is None or self._checksum is None:
            return
        if self._signer is not None:
            text = f"{self._trailer}:{trailers[self._trailer]}\n"
            digest = hashlib.sha256(text.encode("latin-1")).hexdigest()
            self._check(("AWS4-HMAC-SHA256-TRAILER", digest), given or "")
        try:
            sent = base64.b64decode(trailers[self._trailer], validate=True)
        except binascii.Error:
            raise _broken("has a malformed checksum") from None
        if not hmac.compare_digest(sent, self._checksum.digest()):
            raise _broken("does not have the checksum it claims")

    async def _line(self, *, final: bool = False) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _MAX_LINE or not await self._more():
                # Signers that send no trailer may leave out the last empty line.
                if final and not self._buffer:
                    return b""
                raise _broken("ends too early")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not await self._more():
                raise _broken("ends too early")
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _more(self) -> bool:
        async for data in self._source:
            if data:
                self._buffer += data
                return True
        return False
