"""The 401s: one sentence per kind of credential, whatever was wrong; the reason goes to the record only."""

from __future__ import annotations

from doorward.core.errors import UnauthenticatedError

REALM = 'Bearer realm="doorward"'


def no_credential() -> UnauthenticatedError:
    """Refuse a request that shows nothing."""
    return UnauthenticatedError(
        "this needs a credential and the request has none",
        hint="Send an API key or an access token as `Authorization: Bearer ...`.",
        challenge=REALM,
        reason="no_credential",
    )


def unknown_scheme(reason: str) -> UnauthenticatedError:
    """Refuse an Authorization header of a kind that is not spoken here."""
    return UnauthenticatedError(
        "this kind of credential is not accepted",
        hint="Send an API key or an access token as `Authorization: Bearer ...`.",
        challenge=REALM,
        reason=reason,
    )


def old_signature() -> UnauthenticatedError:
    """Refuse a signature of AWS's second version (SHA-1), which some clients still make for URLs."""
    return UnauthenticatedError(
        "signatures of version 2 are not accepted",
        hint='Sign with AWS Signature Version 4: in boto3 `Config(signature_version="s3v4")`.',
        challenge=REALM,
        reason="signature_v2",
    )


def key_refused(reason: str) -> UnauthenticatedError:
    """Refuse an API key: malformed, unknown, expired or used from elsewhere look alike."""
    return UnauthenticatedError(
        "the API key is not accepted",
        hint="Check that it is whole and current; `doorward key list` shows which keys are.",
        challenge=f'{REALM}, error="invalid_token", error_description="the API key is not accepted"',
        reason=reason,
    )


def token_refused(reason: str) -> UnauthenticatedError:
    """Refuse an access token: malformed, forged, expired or for someone else look alike (RFC 6750, 3.1)."""
    return UnauthenticatedError(
        "the access token is not accepted",
        hint="Sign in again to get a new one.",
        challenge=f'{REALM}, error="invalid_token", error_description="the access token is not accepted"',
        reason=reason,
    )


def not_linked() -> UnauthenticatedError:
    """Refuse a valid token whose identity nobody linked to a principal; its holder may know that."""
    return UnauthenticatedError(
        "the access token is valid, but its identity is not linked to anyone here",
        hint="Ask an administrator to add its issuer and subject to your `identities`.",
        challenge=f'{REALM}, error="invalid_token", error_description="the identity is not linked"',
        reason="identity_not_linked",
    )


def certificate_refused(reason: str) -> UnauthenticatedError:
    """Refuse a client certificate that TLS accepted but no active device is bound to."""
    return UnauthenticatedError(
        "the client certificate is not accepted",
        hint="Enrol the device again: `doorward devices enrol NAME`.",
        challenge=REALM,
        reason=reason,
    )
