"""The local issuer: short-lived access tokens (RFC 9068), so nobody needs an identity provider to start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from doorward.core.clock import Clock
from doorward.core.errors import DeniedError, InvalidRequestError
from doorward.core.ids import IdSource
from doorward.core.model import EntityUid
from doorward.core.secret import Secret
from doorward.identity.claims import PRIVATE, PrivateClaims
from doorward.identity.custody import Custodian, KeyUse
from doorward.identity.signing_key import SigningKey

CLIENT = "doorward-cli"
_CLOCK_SKEW = timedelta(minutes=1)
_KINDS = frozenset({"User", "Service", "Agent"})


class MintedToken(msgspec.Struct, frozen=True):
    """A token and what a record may say of it."""

    text: Secret[str]
    jti: str
    expires: datetime
    expires_in: int


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
        self._custodian = custodian
        self._keys: dict[int, SigningKey] = {}
        self._newest()

    @property
    def issuer(self) -> str:
        """Return the issuer's name, as tokens carry it."""
        return self._issuer

    def jwks(self) -> dict[str, Any]:
        """Return the public keys and, beside them, the issuer they belong to.

        After a rotation the earlier key stays for as long as a token it signed may live.
        """
        overlap = timedelta(seconds=self._lifetime) + _CLOCK_SKEW
        counting = self._custodian.honoured(KeyUse.ISSUER, overlap=overlap, now=self._clock.now())
        return {"issuer": self._issuer, "keys": [self._key(number).public() for number in counting]}

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
        if principal.kind not in _KINDS:
            raise InvalidRequestError(f"{principal} signs in with its certificate, not with a token")
        if (mfa or device is not None) and not self._test_minting:
            raise DeniedError(
                "a minted token may not claim MFA or a device",
                hint="For tests on loopback set `[identity] test_minting = true`.",
            )
        now = self._clock.now()
        private = PrivateClaims(minted=True, purpose=purpose, mfa=mfa, device=device)
        issued = int(now.timestamp())
        jti = self._ids.new()
        claims = {
            "iss": self._issuer,
            "sub": str(principal),
            "aud": audience or self._audience,
            "client_id": CLIENT,
            "iat": issued,
            "exp": issued + self._lifetime,
            "jti": jti,
            PRIVATE: msgspec.to_builtins(private),
        }
        text = self._newest().sign(claims, typ="at+jwt")
        expires = datetime.fromtimestamp(issued, UTC) + timedelta(seconds=self._lifetime)
        return MintedToken(Secret(text), jti, expires, self._lifetime)

    def _newest(self) -> SigningKey:
        return self._key(self._custodian.generation(KeyUse.ISSUER))

    def _key(self, generation: int) -> SigningKey:
        key = self._keys.get(generation)
        if key is None:
            key = self._keys[generation] = SigningKey(self._custodian.p256(KeyUse.ISSUER, generation))
        return key
