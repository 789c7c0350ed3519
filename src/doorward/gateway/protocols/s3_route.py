"""Read which S3 operation a request is: an allow-list; whatever is not on it is no route."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from doorward.core.errors import InvalidRequestError
from doorward.core.wire import Request
from doorward.gateway.adapter import UnknownRouteError
from doorward.identity.sigv4_signing import read_query

LISTING = frozenset({"ListBuckets", "ListObjects", "ListObjectsV2"})
MULTIPART = frozenset(
    {"CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload",
     "AbortMultipartUpload", "ListParts"}
)  # fmt: skip
WRITING = MULTIPART | {"PutObject", "CopyObject"}


class _Rule(NamedTuple):
    method: str
    level: int
    required: frozenset[str]
    optional: frozenset[str]
    operation: str


def _rule(method: str, level: int, operation: str, required: str = "", optional: str = "") -> _Rule:
    return _Rule(method, level, frozenset(required.split()), frozenset(optional.split()), operation)


_SERVICE, _BUCKET, _OBJECT = 0, 1, 2
_LIST = "prefix delimiter max-keys encoding-type fetch-owner"
_RULES = (
    _rule("GET", _SERVICE, "ListBuckets"),
    _rule("HEAD", _BUCKET, "HeadBucket"),
    _rule("GET", _BUCKET, "GetBucketLocation", "location"),
    _rule("GET", _BUCKET, "ListObjectsV2", "list-type", f"{_LIST} start-after continuation-token"),
    _rule("GET", _BUCKET, "ListObjects", "", f"{_LIST} marker"),
    _rule("POST", _BUCKET, "DeleteObjects", "delete"),
    _rule("GET", _OBJECT, "GetObject"),
    _rule("HEAD", _OBJECT, "HeadObject"),
    _rule("PUT", _OBJECT, "PutObject"),
    _rule("DELETE", _OBJECT, "DeleteObject"),
    _rule("POST", _OBJECT, "CreateMultipartUpload", "uploads"),
    _rule("PUT", _OBJECT, "UploadPart", "uploadId partNumber"),
    _rule("POST", _OBJECT, "CompleteMultipartUpload", "uploadId"),
    _rule("DELETE", _OBJECT, "AbortMultipartUpload", "uploadId"),
    _rule("GET", _OBJECT, "ListParts", "uploadId", "max-parts part-number-marker"),
)
_SIGNED = frozenset(
    {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders",
     "X-Amz-Signature"}
)  # fmt: skip
_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_NUMBER = re.compile(r"[0-9]{1,5}")
_FLAG = re.compile("")
# What each parameter may say; prefixes and markers may be any text. A delimiter other than `/` would cut
# the names of hidden keys into prefixes that show.
_VALUES = {
    "list-type": re.compile("2"),
    "uploadId": re.compile(r"[A-Za-z0-9._~+/=-]{1,1024}"),
    "partNumber": re.compile(r"[1-9][0-9]{0,3}|10000"),
    "max-keys": _NUMBER,
    "max-parts": _NUMBER,
    "part-number-marker": _NUMBER,
    "encoding-type": re.compile("url"),
    "fetch-owner": re.compile("true|false"),
    "delimiter": re.compile("/?"),
    "location": _FLAG,
    "delete": _FLAG,
    "uploads": _FLAG,
}
# Slashes, dots and a quoting sign that some stores fold into the plain ones when they write a file's name.
_LOOKALIKES = re.compile(
    "[\x00-\x1f\x7f-\x9f\\\\\u2024\u2025\u2044\u2215\u29f8\u29f5\ufe52\uff0e\uff0f\uff3c\u201b\u2028\u2029]"
)
_MAX_KEY = 1024


class S3Call(msgspec.Struct, frozen=True, kw_only=True):
    """State one operation; `query` holds its own parameters, decoded, without those of a signed URL."""

    operation: str
    bucket: str = ""
    key: str = ""
    query: dict[str, str] = msgspec.field(default_factory=dict)
    source: tuple[str, str] | None = None
    presigned: bool = False


def read_call(request: Request) -> S3Call:
    """Return the operation; raise UnknownRouteError off the list, InvalidRequestError for two readings."""
    bucket, key = _read_path(request.raw_path)
    query, presigned = _read_query(request.raw_query)
    level = _OBJECT if key else _BUCKET if bucket else _SERVICE
    names = frozenset(query) - {"x-id"}
    for rule in _RULES:
        if (request.method, level) == (
            rule.method,
            rule.level,
        ) and rule.required <= names <= rule.required | rule.optional:
            break
    else:
        raise UnknownRouteError(f"{request.method} with the parameters {', '.join(sorted(names)) or 'none'}")
    query.pop("x-id", None)
    _check_values(rule.operation, query)
    call = S3Call(operation=rule.operation, bucket=bucket, key=key, query=query, presigned=presigned)
    source = request.header("x-amz-copy-source")
    return call if source is None else _copy(call, source)


def _copy(call: S3Call, source: str) -> S3Call:
    operation = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}.get(call.operation)
    if operation is None:
        raise UnknownRouteError("a copy source on something that is no copy")
    if "?" in source:
        raise UnknownRouteError("a copy from a version")
    bucket, _, key = source.removeprefix("/").partition("/")
    if "+" in source:
        raise InvalidRequestError(
            "the copy source holds a `+`", hint="Write a space as %20 and a plus as %2B."
        )
    return msgspec.structs.replace(
        call, operation=operation, source=(check_bucket(_decode(bucket)), check_key(_decode(key)))
    )


def _read_path(raw_path: str) -> tuple[str, str]:
    """Split `/<upstream>/<bucket>/<key>`; the upstream's own segment was matched already."""
    _, _, rest = raw_path.removeprefix("/").partition("/")
    bucket, slash, key = rest.partition("/")
    if not bucket:
        if slash:
            raise InvalidRequestError("the path holds an empty segment")
        return "", ""
    # A key's own slashes are never encoded: an encoded one would be another key to the next reader.
    if "%2f" in key.lower():
        raise InvalidRequestError("the key holds an encoded slash", hint="Write slashes in keys as they are.")
    return check_bucket(_decode(bucket)), check_key(_decode(key)) if key else ""


def _decode(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise InvalidRequestError("a name in the request is not UTF-8") from None


def check_bucket(bucket: str) -> str:
    """Return a bucket name; raise InvalidRequestError for anything that is none."""
    if not _BUCKET_NAME.fullmatch(bucket) or ".." in bucket:
        raise InvalidRequestError("this is not a bucket name", hint="Use letters, digits, dots and hyphens.")
    return bucket


def check_key(key: str) -> str:
    """Return an object key; raise InvalidRequestError for one that two systems could read differently.

    One slash at the end (a folder marker) is kept; it names the same asset as the key without it.
    """
    if not key or len(key.encode("utf-8", "surrogatepass")) > _MAX_KEY:
        raise InvalidRequestError("the key is empty or longer than 1024 bytes")
    segments = key.removesuffix("/").split("/")
    if any(segment.strip() in {"", ".", ".."} for segment in segments):
        raise InvalidRequestError("the key holds an empty or dotted segment", hint="Use a plain key.")
    if _LOOKALIKES.search(key) or any("\ud800" <= c <= "\udfff" for c in key):
        raise InvalidRequestError("the key holds a character that stores read in different ways")
    return key


def _read_query(raw_query: str) -> tuple[dict[str, str], bool]:
    pairs = read_query(raw_query)
    presigned = any(name == "X-Amz-Signature" for name, _ in pairs)
    query: dict[str, str] = {}
    for name, value in pairs:
        if presigned and name in _SIGNED:
            continue
        if name in query:
            raise InvalidRequestError(f"parameter `{name[:40]}` is given twice", hint="Send it once.")
        query[name] = value
    return query, presigned


def _check_values(operation: str, query: dict[str, str]) -> None:
    for name, value in query.items():
        pattern = _VALUES.get(name)
        if pattern is not None and pattern.fullmatch(value) is None:
            raise InvalidRequestError(f"`{operation}` does not take this value of `{name}`")
