"""The claims of an access token that count, and nothing else it says (RFC 9068, 2.2; RFC 7519, 4.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import msgspec

from doorward.core.arrival import Arrival
from doorward.core.identity import Bounds, Descent
from doorward.core.model import EntityUid
from doorward.identity import local_claims
from doorward.identity.strict_jose import TokenFaultError

SKEW = 60  # seconds a foreign clock may be off
_LAST_TIME = 253_402_300_799  # 9999-12-31T23:59:59Z
_MAX_TEXT = 255
_MAX_GROUPS = 200
_DAY = 86_400
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
# One segment after another in its only spelling: no dots alone, no escapes, no slash at the end.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+){1,8}", re.ASCII)
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
# Authentication context classes that mean more than one factor: NIST SP 800-63B, OpenID EAP, PAPE, REFEDS.
_MFA_ACR = frozenset({
    "aal2", "aal3", "phr", "phrh", "https://refeds.org/profile/mfa",
    "http://schemas.openid.net/pape/policies/2007/06/multi-factor",
})  # fmt: skip


class VerifiedToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified token says. `principal` is set by the local issuer only; others are looked up.

    `certificate` is the SHA-256 (base64url) of the client certificate the token is bound to (RFC 8705),
    `proof_key` the thumbprint of the key a DPoP proof must be made with (RFC 9449).
    A `workload`'s subject is the path of its SPIFFE ID.
    `arrival` is what the settings map of its claims. `descent` and `bounds` are the local issuer's words:
    what the token was made from, and what it may be used for at most.
    `path` is where the token may be used, if it is for a part of this gateway only: `/llm`.
    """

    issuer: str
    subject: str
    jti: str
    client_id: str
    expires: datetime
    principal: EntityUid | None = None
    acr: str = ""
    signed_in_at: datetime | None = None
    mfa_at: datetime | None = None
    certificate: str | None = None
    proof_key: str | None = None
    path: str = ""
    vouched_until: datetime | None = None
    purpose: str | None = None
    minted: bool = False
    minted_mfa: bool = False
    minted_device: str | None = None
    workload: bool = False
    arrival: Arrival | None = None
    descent: Descent | None = None
    bounds: tuple[Bounds, ...] = ()
    issued: datetime

    @property
    def actors(self) -> tuple[EntityUid, ...]:
        """Return the agents that act for the principal, the one that acts now first."""
        return () if self.descent is None else tuple(act.actor for act in self.descent.acts)


def read(  # noqa: PLR0913 -- the claims, and what each is held against
    payload: Mapping[str, Any],
    *,
    issuer: str,
    audience: str,
    now: datetime,
    leeway: int,
    trust: frozenset[str],
    local: bool,
    max_age: int | None = None,
    mapped: Mapping[str, str] = MappingProxyType({}),
    provision: bool = False,
) -> VerifiedToken:
    """Check and pick the claims of a token whose signature holds; raise TokenFaultError.

    `mapped` says which claim becomes which attribute of the directory, and `provision` whether somebody
    unknown becomes known. For `max_age` seconds after it was issued a token's word on this is believed.
    """
    # 9. It is for us and for no one else: a token for several audiences could be replayed by another.
    path = for_us(payload.get("aud"), audience)
    # 10. It has begun and not ended; all times are whole seconds.
    expires = _lifetime(payload, now, leeway)
    # 11. It says whose it is, through which client, and which token it is.
    subject, client = _text(payload, "sub"), _text(payload, "client_id")
    jti = payload.get("jti")
    if not isinstance(jti, str) or not _VISIBLE.fullmatch(jti):
        raise TokenFaultError("jti_invalid")
    # 12. A chain of delegation is believed from our own issuer only: nobody else knows our agents.
    if "act" in payload and not local:
        raise TokenFaultError("delegation_not_supported")
    certificate, proof_key = _confirmation(payload)
    issued = _time(payload, "iat")
    token = VerifiedToken(
        issuer=issuer,
        subject=subject,
        jti=jti,
        client_id=client,
        expires=expires,
        issued=issued,
        # 13. A token bound to a key is worth nothing without it.
        certificate=certificate,
        proof_key=proof_key,
        path=path,
        vouched_until=None if max_age is None else issued + timedelta(seconds=max_age),
        arrival=None
        if local or not (mapped or provision)
        else _arrival(payload, issuer, subject, mapped, provision=provision, max_age=max_age or _DAY),
    )
    # 14. How the caller signed in, as far as this issuer is believed.
    return _with_local_claims(token, payload, now) if local else _with_sign_in(token, payload, now, trust)


def _arrival(  # noqa: PLR0913 -- the claims, and what is made of them
    payload: Mapping[str, Any],
    issuer: str,
    subject: str,
    mapped: Mapping[str, str],
    *,
    provision: bool,
    max_age: int,
) -> Arrival:
    """Pick the claims that become attributes; one of another shape is refused, never guessed at."""
    found = {name: payload[claim] for name, claim in mapped.items() if claim in payload}
    groups = found.pop("groups", None) if "groups" in mapped else None
    if "groups" in mapped and groups is None:
        groups = []
    if groups is not None and not (isinstance(groups, list) and len(groups) <= _MAX_GROUPS):
        raise TokenFaultError("mapped_claim_invalid")
    texts = [*found.values(), *(groups or ())]
    if not all(isinstance(one, str) and 0 < len(one) <= _MAX_TEXT and one.isprintable() for one in texts):
        raise TokenFaultError("mapped_claim_invalid")
    return Arrival(
        issuer=issuer,
        subject=subject,
        attrs=tuple(sorted((name, text) for name, text in found.items() if name != "name")),
        groups=None if groups is None else tuple(sorted(set(groups))),
        name=found.get("name", ""),
        provision=provision,
        max_age=float(max_age),
    )


def for_us(stated: Any, audience: str) -> str:
    """Return the path a token is for, "" for the whole gateway; raise TokenFaultError if it is not for us.

    Beside the configured audience only a URL below it counts: one that RFC 9728 metadata gave out.
    """
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    if not isinstance(stated, str):
        raise TokenFaultError("audience_wrong")
    if stated == audience:
        return ""
    base = audience.rstrip("/")
    path = stated.removeprefix(base)
    if "://" not in base or path == stated or not _PATH.fullmatch(path):
        raise TokenFaultError("audience_wrong")
    return path


def _time(payload: Mapping[str, Any], name: str) -> datetime:
    value = payload.get(name)
    if type(value) is not int or not 0 <= value <= _LAST_TIME - SKEW:
        raise TokenFaultError(f"{name}_invalid")
    return datetime.fromtimestamp(value, UTC)


def _lifetime(payload: Mapping[str, Any], now: datetime, leeway: int) -> datetime:
    skew = timedelta(seconds=SKEW)
    ends = _time(payload, "exp") + timedelta(seconds=leeway)
    if now >= ends + timedelta(seconds=1 if leeway else 0):
        raise TokenFaultError("token_expired")
    if _time(payload, "iat") > now + skew:
        raise TokenFaultError("issued_in_the_future")
    if "nbf" in payload and _time(payload, "nbf") > now + skew:
        raise TokenFaultError("not_yet_valid")
    return ends


def lifetime_of_svid(payload: Mapping[str, Any], now: datetime) -> datetime:
    """Return when a JWT-SVID ends; it need not say when it was issued. Raises TokenFaultError."""
    return _lifetime({"iat": 0, **payload}, now, SKEW)


def _text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
        raise TokenFaultError(f"{name}_invalid")
    return value


def _confirmation(payload: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the certificate and the proof key a token is bound to (RFC 7800); both must then be shown."""
    if "cnf" not in payload:
        return None, None
    bound = payload["cnf"]
    if not isinstance(bound, dict) or not bound or bound.keys() - {"x5t#S256", "jkt"}:
        raise TokenFaultError("bound_to_a_key_not_shown")
    if not all(isinstance(value, str) and _THUMBPRINT.fullmatch(value) for value in bound.values()):
        raise TokenFaultError("bound_to_a_key_not_shown")
    return bound.get("x5t#S256"), bound.get("jkt")


def _with_sign_in(
    token: VerifiedToken, payload: Mapping[str, Any], now: datetime, trust: frozenset[str]
) -> VerifiedToken:
    signed_in = _time(payload, "auth_time") if "auth_time" in trust and "auth_time" in payload else None
    if signed_in is not None and signed_in > now + timedelta(seconds=SKEW):
        raise TokenFaultError("auth_time_in_the_future")
    acr = payload.get("acr", "") if "acr" in trust else ""
    amr = payload.get("amr", []) if "amr" in trust else []
    if not isinstance(acr, str) or len(acr) > _MAX_TEXT or not isinstance(amr, list):
        raise TokenFaultError("sign_in_claims_invalid")
    # RFC 8176: only `mfa` says that several factors were used. When is part of it: no time, no MFA.
    several = "mfa" in amr or acr in _MFA_ACR
    return msgspec.structs.replace(
        token, acr=acr, signed_in_at=signed_in, mfa_at=signed_in if several else None
    )


def _with_local_claims(token: VerifiedToken, payload: Mapping[str, Any], now: datetime) -> VerifiedToken:
    said = local_claims.read(token.subject, payload, issued=token.issued, now=now)
    # Whoever minted a token without a sign-in can state none.
    told = payload if not said.private.minted else {"auth_time": payload.get("auth_time", ...)}
    known = {name: value for name, value in told.items() if value is not ...}
    signed_in = _with_sign_in(token, known, now, local_claims.TRUSTED)
    return msgspec.structs.replace(
        signed_in,
        principal=said.principal,
        signed_in_at=signed_in.signed_in_at or token.issued,
        purpose=said.private.purpose,
        minted=said.private.minted,
        minted_mfa=said.private.mfa,
        minted_device=said.private.device,
        descent=said.descent,
        bounds=said.bounds,
    )
