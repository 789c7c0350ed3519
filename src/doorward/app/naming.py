"""Names that both roles must agree on."""

from __future__ import annotations

from doorward.settings import Settings


def audience_of(settings: Settings) -> str:
    """Return what the local issuer's tokens must be for: the gateway's address."""
    return f"{'https' if settings.gateway.tls else 'http'}://{settings.gateway.listen}"


def issuer_of(settings: Settings) -> str:
    """Return the local issuer's name: the control plane's address."""
    return settings.control_url
