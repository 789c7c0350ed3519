"""The management API under /api/v1: one module per noun, each with `router(services)`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import APIRouter

    from doorward.console.services import Services

MODULES = (
    "apply", "custodian", "people", "identities", "arrivals", "assets", "devices", "keys", "tokens",
    "can", "questions", "decisions", "admin", "state", "packs", "sources", "sessions", "me",
)  # fmt: skip


def routers(services: Services) -> list[APIRouter]:
    """Build the router of every noun."""
    return [import_module(f"{__name__}.{name}").router(services) for name in MODULES]
