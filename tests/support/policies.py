"""Entities, requests and the starter pack's story, for tests of policies and decisions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from doorward.core.context import Context
from doorward.core.decision import AccessRequest
from doorward.core.model import Action, Entity, EntityUid

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
STARTER = Path(__file__).parents[2] / "src" / "doorward" / "policies" / "packs" / "starter"


def user(name: str, *, parents: tuple[EntityUid, ...] = (), **attrs: Any) -> Entity:
    stated: dict[str, Any] = {
        "active": True,
        "employment": "employee",
        "clearance": 0,
        "purposes": frozenset(),
        "risk": 0,
    }
    return Entity(EntityUid.of("User", name), {**stated, **attrs}, frozenset(parents))


def dataset(name: str, *, parents: tuple[EntityUid, ...] = (), **attrs: Any) -> Entity:
    stated: dict[str, Any] = {
        "sensitivity": 1,
        "environment": EntityUid.of("Environment", "production"),
        "purposes": frozenset(),
        "live": False,
    }
    return Entity(EntityUid.of("Dataset", name), {**stated, **attrs}, frozenset(parents))


def request(
    principal: str = "dana", action: Action = Action.READ, resource: str = "store/a", **context: Any
) -> AccessRequest:
    return AccessRequest(
        EntityUid.of("User", principal),
        action.uid,
        EntityUid.of("Dataset", resource),
        Context(now=NOW, **context),
    )


def world(*entities: Entity) -> dict[EntityUid, Entity]:
    return {entity.uid: entity for entity in entities}
