"""The local issuer: short-lived access tokens (RFC 9068), so nobody needs an identity provider to start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from doorward.core.clock import Clock
from doorward.core.errors import DeniedError, InvalidRequestError
from doorward.core.identity import Bounds, Descent
from doorward.core.ids import IdSource
from doorward.core.model import EntityUid
from doorward.core.secret import Secret
from doorward.identity.custody import Custodian, KeyUse
from doorward.identity.local_claims import (
    PRINCIPALS,
    PRIVATE,
    BoundsClaim,
    HopClaim,
    PrivateClaims,
    nested,
)
from doorward.identity.signing_key import SigningKeys

CLIENT = "doorward-cli"
_CLOCK_SKEW = timedelta(minutes=1)


class MintedToken(msgspec.Struct, frozen=True):
    """A token and what a record may say of it."""

    text: Secret[str]
    jti: str
    expires: datetime
    expires_in: int


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What a token shall say: for whom, through which client, for which resource server, from what, how far.

    It ends at `until` at the latest. `signed_in_at`, `acr` and `amr` are of the sign-in behind it, if there
    was one; `mfa` is the claim of a test (see `mint`). `proof_key` is the thumbprint it is bound to.
    """

    principal: EntityUid
    client: str
    audience: str
    until: datetime | None = None
    purpose: str | None = None
    minted: bool = False
    mfa: bool = False
    signed_in_at: datetime | None = None
    acr: str = ""
    amr: tuple[str, ...] = ()
    descent: Descent = Descent()
    bounds: tuple[Bounds, ...] = ()
    proof_key: str | None = None
    scope: str = ""


class LocalIssuer:
    """Sign access tokens with the custodian's issuer key. Lives in the control process."""

    def __init__(  # noqa: PLR0913 -- what the composition root wires, by name
        self,
        custodian: Custodian,
        *,
        issuer: str,
        audience: str,
        clock: Clock,
        ids: IdSource,
        lifetime: int = 900,
        test_minting: bool = False,
    ) -> None:
        """Sign as `issuer` (the control plane) for `audience` (the gateway); `lifetime` in seconds."""
        self._clock, self._ids = clock, ids
        self._issuer, self._audience = issuer, audience
        self._lifetime, self._test_minting = lifetime, test_minting
        self._keys = SigningKeys(custodian, KeyUse.ISSUER)
        self._keys.newest()

    @property
    def issuer(self) -> str:
        """Return the issuer's name, as tokens carry it."""
        return self._issuer

    @property
    def audience(self) -> str:
        """Return what tokens are for unless something else is asked: the gateway."""
        return self._audience

    def jwks(self) -> dict[str, Any]:
        """Return the public keys and, beside them, the issuer they belong to.

        After a rotation the earlier key stays for as long as a token it signed may live.
        """
        overlap = timedelta(seconds=self._lifetime) + _CLOCK_SKEW
        return {"issuer": self._issuer, "keys": self._keys.public(overlap=overlap, now=self._clock.now())}

    def mint(
        self,
        principal: EntityUid,
        *,
        purpose: str | None = None,
        audience: str | None = None,
        mfa: bool = False,
        device: str | None = None,
    ) -> MintedToken:
        """Make an access token; whether the principal may have it is the caller's business.

        Raises DeniedError for `mfa` or `device` outside test_minting: a token proves neither.
        """
        if (mfa or device is not None) and not self._test_minting:
            raise DeniedError(
                "a minted token may not claim MFA or a device",
                hint="For tests on loopback set `[identity] test_minting = true`.",
            )
        granted = Granted(
            principal=principal,
            client=CLIENT,
            audience=audience or self._audience,
            purpose=purpose,
            minted=True,
            mfa=mfa,
        )
        return self._signed(granted, device)

    def issue(self, granted: Granted) -> MintedToken:
        """Make an access token that somebody was granted; raise InvalidRequestError if it would be over."""
        return self._signed(granted, None)

    def _signed(self, granted: Granted, device: str | None) -> MintedToken:
        if granted.principal.kind not in PRINCIPALS:
            raise InvalidRequestError(f"{granted.principal} signs in with its certificate, not with a token")
        issued = int(self._clock.now().timestamp())
        ends = issued + self._lifetime
        if granted.until is not None:
            ends = min(ends, int(granted.until.timestamp()))
        if ends <= issued:
            raise InvalidRequestError("what this token would come from is over")
        jti = self._ids.new()
        claims = {"iss": self._issuer, "iat": issued, "exp": ends, "jti": jti, **_claims(granted, device)}
        text = self._keys.newest().sign(claims, typ="at+jwt")
        return MintedToken(Secret(text), jti, datetime.fromtimestamp(ends, UTC), ends - issued)


def _claims(granted: Granted, device: str | None) -> dict[str, Any]:
    descent = granted.descent
    private = PrivateClaims(
        minted=granted.minted,
        purpose=granted.purpose,
        mfa=granted.mfa,
        device=device,
        tokens=descent.tokens,
        keys=descent.keys,
        identities=descent.identities,
        hops=tuple(HopClaim(int(act.since.timestamp()), int(act.until.timestamp())) for act in descent.acts),
        bounds=tuple(map(BoundsClaim.of, granted.bounds)),
    )
    optional = {
        "act": nested(tuple(act.actor for act in descent.acts)),
        "auth_time": None if granted.signed_in_at is None else int(granted.signed_in_at.timestamp()),
        "acr": granted.acr or None,
        "amr": list(granted.amr) or None,
        "scope": granted.scope or None,
        "cnf": None if granted.proof_key is None else {"jkt": granted.proof_key},
    }
    return {
        "sub": str(granted.principal),
        "aud": granted.audience,
        "client_id": granted.client,
        **{name: value for name, value in optional.items() if value is not None},
        PRIVATE: msgspec.to_builtins(private),
    }
