"""`aws-chunked` bodies: every chunk verified, and never a whole body of which a part was false."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import AsyncIterator

import pytest

from doorward.core.errors import InvalidRequestError, UnsupportedMediaError
from doorward.gateway.protocols.s3_chunked import ChunkedBody, ChunkSigner
from doorward.identity.sigv4_signing import EMPTY_SHA256, Scope, signature, signing_key

SCOPE = Scope("20261123", "eu-west-1")
SIGNER = ChunkSigner(signing_key("secret", SCOPE), "20261123T120000Z", SCOPE, "a" * 64)
CRC32 = base64.b64encode(zlib.crc32(b"hello world").to_bytes(4, "big")).decode()


def signed(*chunks: bytes, trailer: str = "") -> bytes:
    previous, out = SIGNER.seed, b""

    def sign(kind: str, *parts: str) -> str:
        return signature(SIGNER.key, "\n".join((kind, SIGNER.date, str(SCOPE), previous, *parts)))

    for chunk in (*chunks, b""):
        previous = sign("AWS4-HMAC-SHA256-PAYLOAD", EMPTY_SHA256, hashlib.sha256(chunk).hexdigest())
        out += f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk + (b"\r\n" if chunk else b"")
    if trailer:
        digest = hashlib.sha256(f"{trailer}\n".encode()).hexdigest()
        previous = sign("AWS4-HMAC-SHA256-TRAILER", digest)
        out += f"{trailer}\r\nx-amz-trailer-signature:{previous}\r\n".encode()
    return out + b"\r\n"


async def decode(
    raw: bytes,
    *,
    length: int = 11,
    signer: ChunkSigner | None = None,
    trailer: str | None = None,
    step: int = 7,
) -> list[bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), step):
            yield raw[start : start + step]

    got: list[bytes] = []
    body = ChunkedBody(pieces(), length=length, signer=signer, trailer=trailer)
    try:
        async for piece in body.content():
            got.append(piece)  # noqa: PERF401 -- what came before an error is looked at
    except (InvalidRequestError, UnsupportedMediaError):
        # An upstream that got this far must not believe it has everything.
        assert sum(map(len, got)) < length
        raise
    return got


@pytest.mark.parametrize("step", [1, 2, 5, 1000])
async def test_signed_chunks_are_decoded(step: int) -> None:
    assert b"".join(await decode(signed(b"hello ", b"world"), signer=SIGNER, step=step)) == b"hello world"


async def test_unsigned_chunks_with_a_trailing_checksum_are_decoded() -> None:
    raw = f"6\r\nhello \r\n5\r\nworld\r\n0\r\nx-amz-checksum-crc32:{CRC32}\r\n\r\n".encode()
    assert b"".join(await decode(raw, trailer="x-amz-checksum-crc32")) == b"hello world"


@pytest.mark.parametrize("name", ["sha1", "sha256"])
async def test_signed_trailers_are_verified(name: str) -> None:
    value = base64.b64encode(hashlib.new(name, b"hello world").digest()).decode()
    trailer = f"x-amz-checksum-{name}:{value}"
    good = signed(b"hello world", trailer=trailer)
    assert b"".join(await decode(good, signer=SIGNER, trailer=f"x-amz-checksum-{name}")) == b"hello world"
    with pytest.raises(InvalidRequestError):
        await decode(
            good.replace(value.encode(), b"A" * 27 + b"="), signer=SIGNER, trailer=f"x-amz-checksum-{name}"
        )
    with pytest.raises(InvalidRequestError):
        await decode(
            good.replace(b"trailer-signature:", b"trailer-signature:0"),
            signer=SIGNER,
            trailer=f"x-amz-checksum-{name}",
        )


@pytest.mark.parametrize(
    "raw",
    [
        signed(b"hello ", b"world").replace(b"world", b"w0rld"),
        signed(b"hello ", b"world")[:-90],
        signed(b"hello ", b"world") + b"x",
        signed(b"hello ", b"world").replace(b"0;chunk-signature", b"0;chunk-signatur3"),
        b"b\r\nhello world\r\n0\r\n\r\n",
        b"",
        signed(b"hello ").replace(b"6;", b"5;"),
        signed(b"world", b"hello "),
        signed(b"hello world", b"!"),
    ],
)
async def test_a_changed_signed_body_never_arrives_whole(raw: bytes) -> None:
    if raw == signed(b"world", b"hello "):
        raw = signed(b"hello ", b"world")
        first, second = raw.index(b"6;"), raw.index(b"5;")
        raw = raw[second : raw.index(b"0;")] + raw[first:second] + raw[raw.index(b"0;") :]
    with pytest.raises(InvalidRequestError):
        await decode(raw, signer=SIGNER)


@pytest.mark.parametrize(
    "raw",
    [
        b"6\r\nhello \r\n5\r\nworld\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
        b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n",
        b"6\r\nhello \r\n5\r\nworld\r\n0\r\nx-amz-checksum-crc32:"
        + CRC32.encode()
        + b"\r\nx-amz-meta-x:1\r\n\r\n",
        b"6\r\nhello \r\n5\r\nworld\r\n0\r\nx-amz-checksum-crc32:!\r\n\r\n",
        b"-6\r\nhello \r\n",
        b"0x6\r\nhello \r\n",
        b"6 \r\nhello \r\n",
        b"6;ext\r\nhello \r\n",
        b"6\nhello \n",
        b"ffffffff\r\n",
        b"b\r\nhello world",
        b"7\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n",
        b"6\r\nhello \r\n6\r\nworld!\r\n0\r\nx-amz-checksum-crc32:" + CRC32.encode() + b"\r\n\r\n",
    ],
)
async def test_a_malformed_or_false_unsigned_body_never_arrives_whole(raw: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        await decode(raw, trailer="x-amz-checksum-crc32")


async def test_a_checksum_not_computed_here_is_refused_with_the_ones_that_are() -> None:
    with pytest.raises(UnsupportedMediaError, match="CRC32"):
        await decode(b"", trailer="x-amz-checksum-crc64nvme")


def test_the_signer_does_not_print_its_key() -> None:
    assert SIGNER.key.hex() not in repr(SIGNER)
    assert str(SIGNER.key) not in repr(SIGNER)
