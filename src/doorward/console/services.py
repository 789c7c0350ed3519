"""What the routes of the control plane may use; built once by `app`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from doorward.audit.reader import AuditReader
    from doorward.console.signals import Receiver
    from doorward.core.clock import Clock
    from doorward.core.ids import IdSource
    from doorward.core.ports import AuditLog, OneTimeStore
    from doorward.core.provisioning import SourceState
    from doorward.decisions.point import DecisionPoint
    from doorward.decisions.shadow_link import ShadowLink
    from doorward.directory.administration import Directory
    from doorward.identity.access_tokens import TokenVerifier
    from doorward.identity.custody import Custodian
    from doorward.identity.device_authority import DeviceAuthority
    from doorward.identity.issuer import LocalIssuer
    from doorward.policies.workspace import Workspace
    from doorward.settings import Settings


class Followed(Protocol):
    """A directory that `app` follows."""

    @property
    def state(self) -> SourceState:
        """Return how it stands."""

    def confirm(self) -> None:
        """Let the next reading take out however many it takes out."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a route needs; no route builds its own."""

    settings: Settings
    clock: Clock
    ids: IdSource
    directory: Directory
    custodian: Custodian
    issuer: LocalIssuer
    device_authority: DeviceAuthority
    point: DecisionPoint
    audit: AuditLog
    reader: AuditReader
    workspace: Workspace
    signals: dict[str, Receiver] = field(default_factory=dict)
    shadow: ShadowLink | None = None
    tokens: TokenVerifier | None = None
    followed: dict[str, Followed] = field(default_factory=dict)
    one_time: OneTimeStore | None = None
