"""What all sections share: no unknown keys, secrets by reference only, and what counts as this machine."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address never leaves this machine."""
    if host in {"localhost", ""}:
        return host == "localhost"
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _resolved(reference: str) -> str:
    """Resolve `${ENV}` and `file:PATH`; a literal secret in a config file is refused."""
    if reference.startswith("file:"):
        try:
            return Path(reference.removeprefix("file:")).read_text(encoding="utf-8").strip()
        except OSError as reason:
            raise ValueError(f"the secret's file cannot be read ({reason.strerror})") from reason
    names = _REFERENCE.findall(reference)
    if not names:
        raise ValueError("a literal secret does not belong here: write ${NAME} or file:PATH")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ValueError(f"the environment variable {missing[0]} is not set")
    return _REFERENCE.sub(lambda match: os.environ[match[1]], reference)


_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# A field of this type says `repr=False` itself: inside `| None` the type cannot.
Secret = Annotated[str, AfterValidator(_resolved)]


def _checked_issuer(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("plain HTTP is refused off loopback: use https://")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"`{url}` is not an issuer's address, like https://idp.example")
    return url


def _checked_provider(provider: str) -> str:
    if not provider.startswith(("file:", "pkcs11:")) or provider == "file:":
        raise ValueError(f'`{provider}` is not one: write "file:keys" or "pkcs11:token=…?module-path=…"')
    return provider


IssuerUrl = Annotated[str, AfterValidator(_checked_issuer)]
KeyProvider = Annotated[str, AfterValidator(_checked_provider)]
