"""Where people, groups and devices come from: SCIM clients, and what their words are worth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from doorward.settings.section import Section

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Level = Annotated[int, Field(ge=0, le=3)]


class SourceSection(Section):
    """What any source may say (`directory.rules`); roles, projects, clearance come from groups named here."""

    issuer: str = ""
    domain: str = ""
    groups: tuple[str, ...] = ("*",)
    roles: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    projects: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    clearance: dict[str, Level] = Field(default_factory=dict)
    adopt: tuple[str, ...] = ()
    govern: bool = False


class ProvisioningSettings(SourceSection):
    """A SCIM client: the service whose key it shows. `posture_max_age` in seconds."""

    service: Name
    subject: Literal["externalId", "userName"] = "externalId"
    posture_max_age: Annotated[float, Field(gt=0)] | None = None

    @property
    def source(self) -> str:
        """Return what records call this source."""
        return f"scim:{self.service}"


def require_sources_apart(provisioning: Iterable[ProvisioningSettings], issuers: set[str]) -> None:
    """Raise ValueError for two sources of one name, or one whose people could sign in nowhere."""
    seen: set[str] = set()
    for section in provisioning:
        if section.source in seen:
            raise ValueError(f"two sources are called `{section.source}`; names must differ")
        seen.add(section.source)
        if section.issuer and section.issuer not in issuers:
            raise ValueError(
                f"{section.source}: issuer `{section.issuer}` is that of no [[issuer]],"
                " so its people could not sign in"
            )
