"""Whose security events are heard: Shared Signals transmitters (SSF 1.0), pushed to us or polled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from doorward.settings.provisioning import Name
from doorward.settings.section import Secret, Section, is_loopback

Level = Annotated[int, Field(ge=0, le=100)]


class SignalSettings(Section):
    """One transmitter. Seconds, but `risk`, which says what its words are worth (0..100).

    It may push (`authorization` is what it must send in that header), or be polled at `poll` with
    `poll_authorization`. `subjects` is the issuer its `iss_sub` and opaque subjects belong to.
    """

    name: Name
    issuer: str
    audience: str
    subjects: str = ""
    jwks_uri: str = ""
    jwks_ttl: Annotated[float, Field(gt=0)] = 300.0
    authorization: Secret | None = Field(default=None, repr=False)
    poll: str = ""
    poll_authorization: Secret | None = Field(default=None, repr=False)
    poll_every: Annotated[float, Field(gt=0)] = 1.0
    max_age: Annotated[float, Field(gt=0)] | None = None
    risk: dict[str, Level] = Field(default_factory=lambda: {"LOW": 10, "MEDIUM": 50, "HIGH": 90})

    @property
    def source(self) -> str:
        """Return what records call this transmitter."""
        return f"signals:{self.name}"

    @model_validator(mode="after")
    def _heard(self) -> Self:
        if self.authorization is None and not self.poll:
            raise ValueError(
                f"signals `{self.name}`: set `authorization` (it pushes to us) or `poll` (we ask)"
            )
        for url in filter(None, (self.issuer, self.jwks_uri, self.poll)):
            parts = urlsplit(url)
            plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
            if not parts.hostname or not (parts.scheme == "https" or plain) or "@" in parts.netloc:
                raise ValueError(f"signals `{self.name}`: `{url}` is neither https:// nor on loopback")
        return self


def require_transmitters_apart(transmitters: Iterable[SignalSettings]) -> None:
    """Raise ValueError for two transmitters of one name."""
    names = [one.name for one in transmitters]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two [[signals]] are called `{min(twice)}`; names must differ")
