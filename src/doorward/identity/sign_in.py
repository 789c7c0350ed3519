"""The sign-in behind a token: when it was, and what is left of it after it was ended."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from doorward.core.identity import Caller, SignOut

# A sign-in nobody vouches for counts as the oldest there is, so no rule about age takes it for fresh.
UNKNOWN_SIGN_IN = datetime.fromtimestamp(0, UTC)


def sign_in_of(caller: Caller) -> datetime:
    """Return when whoever shows a token signed in; if it does not say, when it was issued."""
    at = caller.signed_in_at
    known = at if at is not None and at != UNKNOWN_SIGN_IN else caller.vouched_at
    return UNKNOWN_SIGN_IN if known is None else known


def without_ended_mfa(caller: Caller, out: SignOut) -> Caller:
    """Return a caller without the MFA, and the level it reached, that a sign-out ended."""
    if caller.mfa_at is not None and not out.ends_mfa(caller.mfa_at):
        return caller
    if out.mfa_before is None or sign_in_of(caller) > out.mfa_before:
        return caller
    return msgspec.structs.replace(caller, mfa_at=None, acr="")
