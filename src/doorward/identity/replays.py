"""Carry out each signed write once, for as long as its signature could be used again."""

from __future__ import annotations

from doorward.core.errors import UnauthenticatedError
from doorward.core.ports import OneTimeStore

# Dates in signatures have whole seconds, so two equal calls of one client within a second are signed alike.
# Stock SDKs tell them apart by an invocation id that they do not sign: it counts for this long, in seconds.
_ALIKE_SECONDS = 2.0


async def spend(store: OneTimeStore, signature: str, *, invocation: str, until: float) -> None:
    """Use up a signature valid until `until` (Unix seconds); `invocation` is the SDK's own id of the call.

    Raise UnauthenticatedError if it was used, UnavailableError if that cannot be known.
    """
    new = await store.claim("signed-write", signature, expires=until, again_within=_ALIKE_SECONDS)
    if not new or not await store.claim("signed-call", f"{signature}\n{invocation}", expires=until):
        raise UnauthenticatedError(
            "this signed write was carried out already",
            hint="Sign the request again and send it once.",
            reason="signature_replayed",
        )
