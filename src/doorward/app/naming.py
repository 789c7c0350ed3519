"""Names that both roles must agree on."""

from __future__ import annotations

from doorward.settings import Settings


def audience_of(settings: Settings) -> str:
    """Return what the local issuer's tokens must be for: the gateway's address."""
    if settings.gateway.public_url is not None:
        return settings.gateway.public_url
    return listen_url_of(settings)


def listen_url_of(settings: Settings) -> str:
    """Return the gateway's address as it is listened on, whatever it is called outside."""
    return f"{'https' if settings.gateway.tls else 'http'}://{settings.gateway.listen}"


def authorization_servers_of(settings: Settings) -> tuple[str, ...]:
    """Return who issues tokens for the gateway: the configured providers, and the local issuer.

    The providers come first: most clients take the first one.
    """
    return (*(issuer.issuer for issuer in settings.issuer), issuer_of(settings))


def issuer_of(settings: Settings) -> str:
    """Return the local issuer's name: the control plane's address."""
    return settings.control_url
