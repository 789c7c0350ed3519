"""Authenticator apps (TOTP, RFC 6238) and recovery codes: the second factor of who has no passkey at hand.

A code is accepted for its own time step and the one before or after (5.2), once, and after five wrong ones
in a row not at all for a while that doubles. The secret is kept sealed (AES-256-GCM) under a key of the
custodian.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import pyotp
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from doorward.core.accounts import AccountRepository, Authenticator
from doorward.core.errors import ConflictError, UnauthenticatedError
from doorward.identity.custody import Custodian, KeyUse

if TYPE_CHECKING:
    from doorward.core.clock import Clock
    from doorward.core.model import EntityUid

STEP: Final = 30  # seconds
_DIGITS: Final = 6
_NONCE: Final = 12
_FREE_TRIES: Final = 5
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=30), timedelta(minutes=15)
CODES: Final = 10
# Without the letters and digits that are read for one another.
_ALPHABET: Final = "ABCDEFGHJKMNPQRSTVWXYZ23456789"
_CODE_LENGTH: Final = 12  # 59 bits


class AuthenticatorApps:
    """Enrol authenticator apps and check their codes."""

    def __init__(self, accounts: AccountRepository, custodian: Custodian, clock: Clock) -> None:
        """Take where they are kept, what seals them, and the clock that codes go by."""
        self._accounts, self._custodian, self._clock = accounts, custodian, clock

    def offer(self, principal: EntityUid) -> tuple[str, str]:
        """Return a new secret and its `otpauth` address; nothing is kept before `confirm`."""
        secret = pyotp.random_base32()
        address = pyotp.TOTP(secret).provisioning_uri(name=principal.id, issuer_name="Doorward")
        return secret, address

    def confirm(self, principal: EntityUid, secret: str, code: str) -> list[str]:
        """Keep an app that shows the right code, and return its recovery codes, shown this once.

        Raises UnauthenticatedError for a wrong code, ConflictError for a secret that is none.
        """
        step = self.verify_new(secret, code)
        generation = self._custodian.generation(KeyUse.AUTHENTICATORS)
        self._accounts.set_authenticator(
            Authenticator(
                principal=principal,
                sealed=self._seal(principal, secret, generation),
                generation=generation,
                created=self._clock.now(),
                last_step=step,
            )
        )
        return self.new_recovery_codes(principal)

    def verify_new(self, secret: str, code: str) -> int:
        """Return the time step of a code that an app not yet kept shows; raise UnauthenticatedError."""
        step = self._step_of(_checked(secret), code)
        if step is None:
            raise _wrong()
        return step

    def new_recovery_codes(self, principal: EntityUid) -> list[str]:
        """Return new recovery codes, shown this once; the earlier ones end."""
        codes = [_new_code() for _ in range(CODES)]
        self._accounts.set_recovery_codes(principal, [_digest(code) for code in codes], self._clock.now())
        return codes

    def check(self, principal: EntityUid, code: str) -> None:
        """Use up a code of the app, or a recovery code; raise UnauthenticatedError if it is neither."""
        now = self._clock.now()
        # Counted before it is judged: tries in parallel are as many as they are.
        held = self._accounts.begin_try(principal, now, lambda tries: _locked_until(tries, now))
        if held is None:
            raise _wrong()
        if held.locked is not None and now < held.locked:
            seconds = int((held.locked - now).total_seconds()) + 1
            raise UnauthenticatedError(
                "too many wrong codes", hint=f"Try again in {seconds} seconds.", reason="authenticator_locked"
            )
        step = self._step_of(self._open(held), code)
        if step is not None and self._accounts.use_step(principal, step):
            return
        if self._accounts.use_recovery_code(principal, _digest(code)):
            self._accounts.end_tries(principal)
            return
        raise _wrong()

    def _step_of(self, secret: str, code: str) -> int | None:
        """Return the time step that a code belongs to, among the current one and its neighbours."""
        if len(code) != _DIGITS or not code.isdecimal() or not code.isascii():
            return None
        current = int(self._clock.now().timestamp()) // STEP
        app = pyotp.TOTP(secret)
        # All three are computed, so that time does not tell which one it was.
        matching = [
            step
            for step in (current - 1, current, current + 1)
            if hmac.compare_digest(app.generate_otp(step), code)
        ]
        return matching[0] if matching else None

    def _seal(self, principal: EntityUid, secret: str, generation: int) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        key = self._custodian.sealing_key(KeyUse.AUTHENTICATORS, generation)
        return nonce + AESGCM(key).encrypt(nonce, secret.encode(), principal.cedar.encode())

    def _open(self, held: Authenticator) -> str:
        key = self._custodian.sealing_key(KeyUse.AUTHENTICATORS, held.generation)
        try:
            # The name is bound in: a row moved to another user opens for nobody.
            plain = AESGCM(key).decrypt(
                held.sealed[:_NONCE], held.sealed[_NONCE:], held.principal.cedar.encode()
            )
        except InvalidTag:
            raise _wrong() from None
        return plain.decode()


def _locked_until(failures: int, now: datetime) -> datetime | None:
    if failures < _FREE_TRIES:
        return None
    doubled: timedelta = _FIRST_PAUSE * (1 << min(failures - _FREE_TRIES, 10))
    return now + min(doubled, _LONGEST_PAUSE)


def _checked(secret: str) -> str:
    if len(secret) != _SECRET_LENGTH or any(letter not in _BASE32 for letter in secret):
        raise ConflictError("this is not the secret that was offered", hint="Start again.")
    return secret


_SECRET_LENGTH: Final = 32
_BASE32: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def _new_code() -> str:
    text = "".join(secrets.choice(_ALPHABET) for _ in range(_CODE_LENGTH))
    return "-".join(text[start : start + 4] for start in range(0, _CODE_LENGTH, 4))


def _digest(code: str) -> str:
    plain = code.replace("-", "").replace(" ", "").upper()
    return hashlib.sha256(b"doorward-recovery\0" + plain.encode("utf-8", "replace")).hexdigest()


def _wrong() -> UnauthenticatedError:
    return UnauthenticatedError(
        "the code is not accepted",
        hint="Wait for the next code, or use a recovery code.",
        reason="authenticator_code_wrong",
    )
