"""The 401s: one sentence per kind of credential, whatever was wrong; the reason goes to the record only."""

from __future__ import annotations

from doorward.core.errors import UnauthenticatedError
from doorward.identity import challenges


def no_credential() -> UnauthenticatedError:
    """Refuse a request that shows nothing."""
    return UnauthenticatedError(
        "this needs a credential and the request has none",
        hint="Send an API key or an access token as `Authorization: Bearer ...`.",
        challenge=challenges.either(),
        reason="no_credential",
    )


def unknown_scheme(reason: str) -> UnauthenticatedError:
    """Refuse an Authorization header of a kind that is not spoken here."""
    return UnauthenticatedError(
        "this kind of credential is not accepted",
        hint="Send an API key or an access token as `Authorization: Bearer ...`.",
        challenge=challenges.either(),
        reason=reason,
    )


def old_signature() -> UnauthenticatedError:
    """Refuse a signature of AWS's second version (SHA-1), which some clients still make for URLs."""
    return UnauthenticatedError(
        "signatures of version 2 are not accepted",
        hint='Sign with AWS Signature Version 4: in boto3 `Config(signature_version="s3v4")`.',
        challenge=challenges.bearer(),
        reason="signature_v2",
    )


def key_refused(reason: str) -> UnauthenticatedError:
    """Refuse an API key: malformed, unknown, expired or used from elsewhere look alike."""
    return UnauthenticatedError(
        "the API key is not accepted",
        hint="Check that it is whole and current; `doorward key list` shows which keys are.",
        challenge=challenges.bearer("invalid_token", "the API key is not accepted"),
        reason=reason,
    )


def token_refused(reason: str, *, bound: bool = False) -> UnauthenticatedError:
    """Refuse an access token: malformed, forged, expired or for someone else look alike (RFC 6750, 3.1).

    `bound` asks for a DPoP proof the next time: the scheme the token was sent, or should be sent with.
    """
    challenge = challenges.dpop if bound else challenges.bearer
    return UnauthenticatedError(
        "the access token is not accepted",
        hint="Sign in again to get a new one.",
        challenge=challenge("invalid_token", "the access token is not accepted"),
        reason=reason,
    )


def proof_refused(reason: str) -> UnauthenticatedError:
    """Refuse a DPoP proof: forged, replayed, or made for something else look alike (RFC 9449, 7.1)."""
    return UnauthenticatedError(
        "the proof of possession is not accepted",
        hint="Make a new one for this request, with the key the token is bound to.",
        challenge=challenges.dpop("invalid_dpop_proof", "the proof of possession is not accepted"),
        reason=reason,
    )


def nonce_wanted(nonce: str) -> UnauthenticatedError:
    """Ask for a proof with this nonce (RFC 9449, 9); stock clients make one and try again."""
    return UnauthenticatedError(
        "the proof of possession must hold the nonce of this answer",
        hint="Make a new proof with the value of the `DPoP-Nonce` header.",
        challenge=challenges.dpop("use_dpop_nonce", "the proof must hold the nonce of this answer"),
        reason="proof_nonce_wanted",
        headers=(("DPoP-Nonce", nonce),),
    )


def not_linked(*, bound: bool = False) -> UnauthenticatedError:
    """Refuse a valid token whose identity nobody linked to a principal; its holder may know that."""
    challenge = challenges.dpop if bound else challenges.bearer
    return UnauthenticatedError(
        "the access token is valid, but its identity is not linked to anyone here",
        hint="Ask an administrator to add its issuer and subject to your `identities`.",
        challenge=challenge("invalid_token", "the identity is not linked"),
        reason="identity_not_linked",
    )


def certificate_refused(reason: str) -> UnauthenticatedError:
    """Refuse a client certificate that TLS accepted but no active device is bound to."""
    return UnauthenticatedError(
        "the client certificate is not accepted",
        hint="Enrol the device again: `doorward devices enrol NAME`.",
        challenge=challenges.bearer(),
        reason=reason,
    )
