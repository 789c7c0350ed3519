"""Where people, groups and devices come from: SCIM clients and followed directories."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from doorward.settings.section import Secret, Section, is_loopback

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
# An attribute description of LDAP (RFC 4512, 1.4), without options.
AttributeName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,127}$")]
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


class Inactive(Section):
    """Values of an attribute that mean: this account is not to be let in."""

    attribute: AttributeName
    values: Annotated[tuple[str, ...], Field(min_length=1)]


class DirectorySourceSettings(SourceSection):
    """An LDAP directory or Active Directory that is followed. Times in seconds, `max_removals` a share.

    Without `bind_dn` the connection itself says who we are (SASL EXTERNAL, ldapi:// only).
    """

    name: Name
    kind: Literal["ldap"] = "ldap"
    server: Literal["ad", "openldap"]
    url: str
    start_tls: bool = False
    ca: Path | None = None
    bind_dn: str = ""
    password: Secret | None = Field(default=None, repr=False)
    base: Annotated[str, Field(min_length=1)]
    user_filter: str = ""
    group_filter: str = ""
    attributes: dict[
        Literal["id", "name", "group_name", "email", "department", "employment", "subject"], AttributeName
    ] = Field(default_factory=dict)
    member: tuple[AttributeName, ...] = ()
    inactive: Inactive | None = None
    interval: Annotated[float, Field(ge=0.2, le=3600)] = 1.0
    timeout: Annotated[float, Field(gt=0, le=600)] = 10.0
    max_age: Annotated[float, Field(gt=0)] = 86_400.0
    max_removals: Annotated[float, Field(gt=0, le=1)] = 0.1

    @property
    def source(self) -> str:
        """Return what records call this source."""
        return f"ldap:{self.name}"

    @model_validator(mode="after")
    def _private(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in {"ldap", "ldaps", "ldapi"} or (parts.scheme != "ldapi" and not parts.hostname):
            raise ValueError(f"`{self.url}` is not ldaps://HOST, ldap://HOST or ldapi://%2fPATH")
        if parts.username or (parts.path.strip("/") and parts.scheme != "ldapi") or parts.query:
            raise ValueError("a directory's URL has no user, path or query; they stand in keys of their own")
        if self.start_tls and parts.scheme != "ldap":
            raise ValueError("start_tls is for ldap://; the others are private already")
        if parts.scheme == "ldap" and not self.start_tls and not is_loopback(str(parts.hostname)):
            raise ValueError("plain LDAP is refused off loopback: use ldaps:// or start_tls = true")
        if self.bind_dn and not self.password:
            # A name with an empty password is taken for nobody at all, and succeeds (RFC 4513, 5.1.2).
            raise ValueError("bind_dn needs a password that is not empty: ${NAME} or file:PATH")
        if not self.bind_dn and parts.scheme != "ldapi":
            raise ValueError("bind_dn is missing: only ldapi:// knows who connects without one")
        if self.issuer and "subject" not in self.attributes:
            raise ValueError("issuer needs attributes.subject: the attribute that holds its `sub`")
        return self


def require_sources_apart(
    sources: Iterable[ProvisioningSettings | DirectorySourceSettings], issuers: set[str]
) -> None:
    """Raise ValueError for two sources of one name, or one whose people could sign in nowhere."""
    seen: set[str] = set()
    for section in sources:
        if section.source in seen:
            raise ValueError(f"two sources are called `{section.source}`; names must differ")
        seen.add(section.source)
        if section.issuer and section.issuer not in issuers:
            raise ValueError(
                f"{section.source}: issuer `{section.issuer}` is that of no [[issuer]],"
                " so its people could not sign in"
            )
