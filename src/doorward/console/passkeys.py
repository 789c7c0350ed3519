"""Passkeys (WebAuthn Level 3): enrol one, sign in with one; user verification is always required."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import struct
from typing import TYPE_CHECKING, Any

from webauthn import (
    base64url_to_bytes,
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from doorward.core.accounts import Passkey
from doorward.core.errors import UnauthenticatedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doorward.core.clock import Clock
    from doorward.core.model import EntityUid

_CEREMONY_SECONDS = 300
_NONCE_BYTES = 16
_STAMP = struct.Struct(">d")
_MAC_BYTES = 32
_CHALLENGE_BYTES = _NONCE_BYTES + _STAMP.size + _MAC_BYTES
_TIMEOUT_MS = _CEREMONY_SECONDS * 1000


class Challenges:
    """Issue challenges that need no memory until they are answered, and accept each answer once.

    A challenge is nonce, expiry and a MAC over both and its purpose, so floods of unanswered
    ceremonies cost nothing; only challenges answered correctly are remembered until they expire.
    """

    def __init__(self, clock: Clock, key: bytes | None = None) -> None:
        """Take a clock; the key lives and dies with the process."""
        self._clock = clock
        self._key = key or secrets.token_bytes(_MAC_BYTES)
        self._answered: dict[bytes, float] = {}

    def issue(self, purpose: str) -> bytes:
        """Return a challenge for one purpose, good for five minutes."""
        body = secrets.token_bytes(_NONCE_BYTES) + _STAMP.pack(self._clock.monotonic() + _CEREMONY_SECONDS)
        return body + self._mac(purpose, body)

    def check(self, challenge: bytes, purpose: str) -> None:
        """Raise UnauthenticatedError unless we issued it for this purpose, in time, and unanswered."""
        body, mac = challenge[:-_MAC_BYTES], challenge[-_MAC_BYTES:]
        if len(challenge) != _CHALLENGE_BYTES or not hmac.compare_digest(mac, self._mac(purpose, body)):
            raise _refused("the challenge is not one of ours")
        if _STAMP.unpack(body[_NONCE_BYTES:])[0] <= self._clock.monotonic():
            raise _refused("it took longer than five minutes")
        if challenge in self._answered:
            raise _refused("this answer was given before")

    def answered(self, challenge: bytes) -> None:
        """Remember a correct answer until its challenge would have expired."""
        now = self._clock.monotonic()
        self._answered = {known: end for known, end in self._answered.items() if end > now}
        self._answered[challenge] = now + _CEREMONY_SECONDS

    def _mac(self, purpose: str, body: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\0" + body, "sha256")


def _refused(why: str) -> UnauthenticatedError:
    return UnauthenticatedError(f"the passkey was not accepted: {why}", hint="Try again from the start.")


def user_handle(principal: EntityUid) -> bytes:
    """Return the opaque user handle of a principal (no personal data in it, 32 bytes)."""
    return hashlib.sha256(b"doorward-user\0" + principal.cedar.encode()).digest()


def enrol_options(
    challenges: Challenges, *, rp_id: str, principal: EntityUid, known: Sequence[Passkey], purpose: str
) -> dict[str, Any]:
    """Return the options for `navigator.credentials.create` as JSON."""
    options = generate_registration_options(
        rp_id=rp_id,
        rp_name="Doorward",
        user_name=principal.id,
        user_id=user_handle(principal),
        challenge=challenges.issue(purpose),
        timeout=_TIMEOUT_MS,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=key.credential_id) for key in known],
    )
    return dict(json.loads(options_to_json(options)))


def enrol(  # noqa: PLR0913 -- the parts of one ceremony
    challenges: Challenges,
    credential: dict[str, Any],
    *,
    rp_id: str,
    origin: str,
    principal: EntityUid,
    purpose: str,
    clock: Clock,
) -> Passkey:
    """Verify a registration (WebAuthn 7.1) and return the passkey; raise UnauthenticatedError."""
    challenge = _challenge_in(credential)
    challenges.check(challenge, purpose)
    try:
        verified = verify_registration_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=rp_id,
            expected_origin=origin,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as reason:
        raise _refused("the authenticator's answer does not verify") from reason
    challenges.answered(challenge)
    return Passkey(
        credential_id=verified.credential_id,
        principal=principal,
        public_key=verified.credential_public_key,
        sign_count=verified.sign_count,
        created=clock.now(),
    )


def sign_in_options(challenges: Challenges, *, rp_id: str) -> dict[str, Any]:
    """Return the options for `navigator.credentials.get` as JSON; they name no user and no key."""
    options = generate_authentication_options(
        rp_id=rp_id,
        challenge=challenges.issue("sign-in"),
        timeout=_TIMEOUT_MS,
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return dict(json.loads(options_to_json(options)))


def sign_in(
    challenges: Challenges, credential: dict[str, Any], *, rp_id: str, origin: str, known: Sequence[Passkey]
) -> Passkey:
    """Verify an assertion (WebAuthn 7.2); return the passkey with its new counter.

    Raises UnauthenticatedError for a challenge that is not ours or was answered, another origin or
    relying party, no user verification, an unknown key, a user handle of someone else, or a counter
    that did not grow (a cloned authenticator).
    """
    challenge = _challenge_in(credential)
    challenges.check(challenge, "sign-in")
    passkey = _named_by(credential, known)
    try:
        verified = verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=rp_id,
            expected_origin=origin,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=passkey.sign_count,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as reason:
        raise _refused("the authenticator's answer does not verify") from reason
    challenges.answered(challenge)
    return Passkey(
        credential_id=passkey.credential_id,
        principal=passkey.principal,
        public_key=passkey.public_key,
        sign_count=verified.new_sign_count,
        created=passkey.created,
    )


def _challenge_in(credential: dict[str, Any]) -> bytes:
    try:
        client_data = json.loads(base64url_to_bytes(credential["response"]["clientDataJSON"]))
        return base64url_to_bytes(client_data["challenge"])
    except (ValueError, KeyError, TypeError) as reason:
        raise _refused("the answer cannot be read") from reason


def _named_by(credential: dict[str, Any], known: Sequence[Passkey]) -> Passkey:
    try:
        credential_id = base64url_to_bytes(credential["rawId"])
        handle = base64url_to_bytes(credential["response"]["userHandle"])
    except (ValueError, KeyError, TypeError) as reason:
        raise _refused("the answer cannot be read") from reason
    for passkey in known:
        if passkey.credential_id == credential_id and hmac.compare_digest(
            user_handle(passkey.principal), handle
        ):
            return passkey
    raise _refused("this passkey is not known here")
