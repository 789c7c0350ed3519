"""The circumstances of a request, exactly as `Context` stands in the domain schema."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING

import msgspec

from doorward.core.model import EntityUid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doorward.core.model import Entity, Value


class DeviceContext(msgspec.Struct, frozen=True):
    """Posture of the device; `proven` means possession was shown on this very request."""

    known: bool = False
    proven: bool = False
    managed: bool = False
    compliant: bool = False
    id: EntityUid | None = None

    @classmethod
    def of(cls, device: Entity | None, *, proven: bool) -> DeviceContext:
        """Return the posture of a device as known; one that is unknown or not active is nothing."""
        if device is None or device.attrs.get("active") is not True:
            return cls()
        return cls(
            known=True,
            proven=proven,
            managed=device.attrs.get("managed") is True,
            compliant=device.attrs.get("compliant") is True,
            id=device.uid,
        )


class NetworkContext(msgspec.Struct, frozen=True):
    """Where the request came from; `zone` is a name from the organisation's list or `unknown`."""

    zone: str = "unknown"
    ip: IPv4Interface | IPv6Interface | None = None
    country: str | None = None


class SessionContext(msgspec.Struct, frozen=True):
    """How and how long ago the caller signed in; ages in seconds."""

    method: str = "none"
    acr: str = ""
    mfa: bool = False
    age: int = 0
    mfa_age: int | None = None
    minted: bool = False


class RequestContext(msgspec.Struct, frozen=True):
    """What the request itself says; `tools` are the tools it offers to a model."""

    bytes: int = 0
    stream: bool = False
    tools: frozenset[str] = frozenset()
    max_tokens: int | None = None
    arguments: EntityUid | None = None


class Context(msgspec.Struct, frozen=True):
    """Everything a policy may read under `context`."""

    now: datetime
    device: DeviceContext = DeviceContext()
    network: NetworkContext = NetworkContext()
    session: SessionContext = SessionContext()
    request: RequestContext = RequestContext()
    risk: int = 0
    depth: int = 0
    purpose: str | None = None
    environment: EntityUid | None = None
    actor: EntityUid | None = None
    signals: frozenset[str] = frozenset()

    def to_record(self) -> Mapping[str, Value]:
        """Return the Cedar record; optional attributes that are not known are absent."""
        return _record(self)


def _record(struct: msgspec.Struct) -> dict[str, Value]:
    record: dict[str, Value] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if value is None:
            continue
        nested = isinstance(value, msgspec.Struct) and not isinstance(value, EntityUid)
        record[name] = _record(value) if nested else value
    return record
