"""What an identity provider says of somebody who just came in: only what the settings map, never more."""

from __future__ import annotations

import msgspec


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One person as her issuer describes her in a token that verified.

    Roles, clearance, purposes and the like are never a provider's to say: nothing here holds them.
    `provision` lets her become somebody here if she is nobody yet. After `max_age` seconds without
    another token the words count no more.
    """

    issuer: str
    subject: str
    attrs: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] | None = None
    name: str = ""
    provision: bool = False
    max_age: float

    @property
    def source(self) -> str:
        """Return what records and statements call this source."""
        return f"oidc:{self.issuer}"
