"""Verify SigV4 requests signed with a Doorward key (header and presigned), and sign for upstreams."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import msgspec

from doorward.core.clock import Clock
from doorward.core.errors import InvalidRequestError, UnauthenticatedError
from doorward.core.identity import Caller, KeyRecord
from doorward.core.ports import CredentialRegistry, OneTimeStore
from doorward.core.wire import Request
from doorward.identity.replays import spend
from doorward.identity.sigv4_signing import (
    ALGORITHM,
    DATE_FORMAT,
    UNSIGNED,
    S3Keys,
    Scope,
    canonical_request,
    read_query,
    sign,
    signature,
    signing_key,
    string_to_sign,
)

__all__ = ["S3Keys", "Signed", "parse", "payload_kind", "presented", "sign", "signing_key", "verify"]

SKEW = timedelta(minutes=5)
LONGEST_PRESIGNED = 900
STREAMING_SIGNED = frozenset(
    {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"}
)
STREAMING_UNSIGNED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_READING = frozenset({"GET", "HEAD"})
_HEX = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_AUTHORIZATION = re.compile(
    ALGORITHM + r"[ \t]+Credential=(?P<credential>[^,\s]{1,256})[ \t]*,[ \t]*"
    r"SignedHeaders=(?P<signed>[a-z0-9;-]{1,4096})[ \t]*,[ \t]*Signature=(?P<signature>[0-9a-f]{64})"
)
_CREDENTIAL = re.compile(
    r"(?P<key>[A-Za-z0-9_-]{1,128})/(?P<date>[0-9]{8})/(?P<region>[a-z0-9-]{1,64})/(?P<service>[a-z0-9-]{1,32})"
    r"/aws4_request"
)
_PRESIGNED = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders")
_HINT = "Check the access key, the secret and the endpoint; requests are verified as AWS Signature Version 4."


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """State what a signed request claims, before anything of it is believed."""

    access_key_id: str
    scope: Scope
    date: str
    signed: tuple[str, ...]
    signature: str
    payload: str
    presigned: bool = False
    expires: int = 0
    query: tuple[tuple[str, str], ...] = ()


def presented(request: Request) -> bool:
    """Return whether a request carries a SigV4 credential, in the header or in the query."""
    scheme = ALGORITHM.lower()
    if any(k == "authorization" and v.strip().lower().startswith(scheme) for k, v in request.headers):
        return True
    return any(name.lower().startswith("x-amz-signature") for name, _ in request.query)


async def verify(
    request: Request, registry: Callable[[], CredentialRegistry], clock: Clock, *, one_time: OneTimeStore
) -> Caller:
    """Verify a signed request and return who signed it. Only a write waits, and only for its last step.

    1 read the claim, 2 check its time, 3 find the key, 4 compare signatures in constant time,
    5 check the key's own bounds, 6 spend the signature of a write.
    Raise UnauthenticatedError for whatever does not verify, InvalidRequestError for what is ambiguous,
    UnavailableError when it cannot be known whether a write is a replay.
    """
    claim = parse(request)
    end = _check_time(claim, clock.now())
    record = registry().key_by_access_key_id(claim.access_key_id)
    # An unknown key costs the same as a known one: the comparison is made against a key nobody has.
    secret = (record.s3_secret if record is not None else None) or ""
    expected = signature(signing_key(secret, claim.scope), _text(request, claim))
    matches = hmac.compare_digest(expected, claim.signature)
    if record is None or not record.s3_secret or not matches:
        raise UnauthenticatedError(
            "the request's signature does not verify", hint=_HINT, reason="signature_invalid"
        )
    _check_key(record, registry(), request, clock.now())
    if request.method not in _READING:
        await spend(one_time, claim.signature, invocation=_invocation(request), until=end.timestamp())
    return Caller(
        principal=record.subject,
        credential=record.id,
        method="sigv4",
        device=record.device,
        bound_purpose=record.purpose,
        expires=record.expires,
    )


def parse(request: Request) -> Signed:
    """Read the signature claim of a request; raise UnauthenticatedError if there is none or a broken one."""
    query = read_query(request.raw_query)
    in_query = any(
        name.lower() in {"x-amz-signature", "x-amz-algorithm", "x-amz-credential"} for name, _ in query
    )
    header = request.header("authorization")
    if in_query and header is not None:
        raise InvalidRequestError(
            "the request carries two credentials", hint="Send one: a header or a signed URL."
        )
    if request.header("x-amz-security-token") is not None or any(
        name.lower() == "x-amz-security-token" for name, _ in query
    ):
        raise UnauthenticatedError(
            "Doorward keys have no session token",
            hint="Send access key and secret alone.",
            reason="signature_with_session_token",
        )
    return _parse_query(request, query) if in_query else _parse_header(request, header or "", query)


def _parse_header(request: Request, header: str, query: tuple[tuple[str, str], ...]) -> Signed:
    match = _AUTHORIZATION.fullmatch(header.strip(" \t"))
    if match is None:
        raise UnauthenticatedError(
            "the Authorization header is not AWS Signature Version 4",
            hint=_HINT,
            reason="signature_malformed",
        )
    payload = request.header("x-amz-content-sha256")
    if payload is None:
        raise UnauthenticatedError(
            "the header x-amz-content-sha256 is missing",
            hint="Sign the payload's hash.",
            reason="payload_hash_missing",
        )
    payload_kind(payload, method=request.method, tls=request.peer.tls)
    return _claim(
        request,
        credential=match["credential"],
        date=request.header("x-amz-date") or "",
        signed=match["signed"],
        signature=match["signature"],
        payload=payload,
        query=query,
    )


def _parse_query(request: Request, query: tuple[tuple[str, str], ...]) -> Signed:
    if request.method not in _READING:
        raise UnauthenticatedError(
            "a presigned URL may only read",
            hint="Sign writes with the Authorization header.",
            reason="presigned_write",
        )
    names = (*_PRESIGNED, "X-Amz-Signature")
    values = {name: [v for n, v in query if n.lower() == name.lower()] for name in names}
    if any(len(found) != 1 for found in values.values()) or values["X-Amz-Algorithm"] != [ALGORITHM]:
        raise UnauthenticatedError(
            "the presigned URL is incomplete", hint=_HINT, reason="presigned_malformed"
        )
    one = {name: found[0] for name, found in values.items()}
    if not re.fullmatch(r"[0-9]{1,6}", one["X-Amz-Expires"]) or not _HEX.fullmatch(one["X-Amz-Signature"]):
        raise UnauthenticatedError("the presigned URL is malformed", hint=_HINT, reason="presigned_malformed")
    expires = int(one["X-Amz-Expires"])
    if not 1 <= expires <= LONGEST_PRESIGNED:
        raise UnauthenticatedError(
            "a presigned URL may be valid for at most 15 minutes",
            hint="Sign it with ExpiresIn=900 or less.",
            reason="presigned_too_long",
        )
    claim = _claim(
        request,
        credential=one["X-Amz-Credential"],
        date=one["X-Amz-Date"],
        signed=one["X-Amz-SignedHeaders"],
        signature=one["X-Amz-Signature"],
        payload=UNSIGNED,
        query=tuple((n, v) for n, v in query if n.lower() != "x-amz-signature"),
    )
    return msgspec.structs.replace(claim, presigned=True, expires=expires)


def _claim(  # noqa: PLR0913 -- the fields of the claim, all by name
    request: Request,
    *,
    credential: str,
    date: str,
    signed: str,
    signature: str,
    payload: str,
    query: tuple[tuple[str, str], ...],
) -> Signed:
    match = _CREDENTIAL.fullmatch(credential)
    if match is None or match["service"] != "s3":
        raise UnauthenticatedError(
            "the credential's scope is not one for S3", hint=_HINT, reason="signature_scope_wrong"
        )
    if not _DATE.fullmatch(date) or date[:8] != match["date"]:
        raise UnauthenticatedError(
            "the signing date is missing or contradicts the scope", hint=_HINT, reason="signature_date_wrong"
        )
    names = tuple(signed.split(";"))
    _check_signed_names(request, names)
    return Signed(
        access_key_id=match["key"],
        scope=Scope(match["date"], match["region"], match["service"]),
        date=date,
        signed=names,
        signature=signature,
        payload=payload,
        query=query,
    )


def _check_signed_names(request: Request, names: tuple[str, ...]) -> None:
    if list(names) != sorted(set(names)) or "host" not in names:
        raise UnauthenticatedError(
            "the list of signed headers is not one", hint=_HINT, reason="signed_headers_wrong"
        )
    loose = {name for name, _ in request.headers if name.startswith("x-amz-")} - set(names)
    if loose:
        raise UnauthenticatedError(
            f"the header {min(loose)} is not covered by the signature",
            hint="Sign every x-amz- header.",
            reason="header_not_signed",
        )


def _invocation(request: Request) -> str:
    """Return what tells two calls of a stock SDK apart: its id of the call, and the attempt."""
    return "\n".join(request.header(name) or "" for name in ("amz-sdk-invocation-id", "amz-sdk-request"))


def _check_time(claim: Signed, now: datetime) -> datetime:
    try:
        date = datetime.strptime(claim.date, DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise UnauthenticatedError(
            "the signing date does not exist", hint=_HINT, reason="signature_date_wrong"
        ) from None
    end = date + (timedelta(seconds=claim.expires) if claim.presigned else SKEW)
    if not date - SKEW <= now <= end:
        raise UnauthenticatedError(
            "the presigned URL has expired"
            if claim.presigned
            else "the request was not signed within 5 minutes of now",
            hint="Sign it again; if it was just signed, set the machine's clock.",
            reason="signature_not_made_now",
        )
    return end


def _check_key(record: KeyRecord, registry: CredentialRegistry, request: Request, now: datetime) -> None:
    if record.expires is not None and record.expires <= now:
        raise UnauthenticatedError("this key has expired", hint="Ask for a new key.", reason="key_expired")
    if not registry.is_active(record.subject):
        raise UnauthenticatedError(
            "this key's owner is not active", hint="Ask your administrator.", reason="subject_inactive"
        )
    if record.networks and not _within(request.peer.ip, record.networks):
        raise UnauthenticatedError(
            "this key may not be used from this network",
            hint="Use it from its own network.",
            reason="key_used_from_elsewhere",
        )


def _within(ip: str, networks: tuple[str, ...]) -> bool:
    try:
        address = ip_address(ip.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in ip_network(network, strict=False) for network in networks)
    except ValueError:
        return False


def _text(request: Request, claim: Signed) -> str:
    canonical = canonical_request(
        method=request.method,
        path=request.raw_path,
        query=claim.query,
        headers=[(name, _signed_value(request, name)) for name in claim.signed],
        payload=claim.payload,
    )
    return string_to_sign(canonical, date=claim.date, scope=claim.scope)


def _signed_value(request: Request, name: str) -> str:
    value = request.header(name)
    if value is None and name == "host":
        value = request.host
    if not value and name == "host":
        value = None
    if value is None:
        raise UnauthenticatedError(
            f"the signed header {name} is missing", hint=_HINT, reason="signed_headers_wrong"
        )
    return value


def payload_kind(payload: str, *, method: str, tls: bool) -> str:
    """Return `hash`, `unsigned`, `chunks-signed` or `chunks-unsigned` for x-amz-content-sha256.

    Raise UnauthenticatedError for an unknown value, and for an unprotected body in the clear.
    """
    if _HEX.fullmatch(payload):
        return "hash"
    if payload in STREAMING_SIGNED:
        return "chunks-signed"
    if payload not in {UNSIGNED, STREAMING_UNSIGNED}:
        raise UnauthenticatedError(
            "the value of x-amz-content-sha256 is not supported", hint=_HINT, reason="payload_kind_unknown"
        )
    if not tls and not (payload == UNSIGNED and method in _READING):
        raise UnauthenticatedError(
            "an unsigned body is only accepted over TLS",
            hint="Use https, or let the client sign the payload.",
            reason="payload_unsigned",
        )
    return "unsigned" if payload == UNSIGNED else "chunks-unsigned"


def body_matches(payload: str, body: bytes) -> bool:
    """Return whether a body has the signed SHA-256 (hex), compared in constant time."""
    return hmac.compare_digest(hashlib.sha256(body).hexdigest(), payload)
