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


ORG = """
users:
  dana: { roles: [data-scientist], projects: [fraud], purposes: [fraud-model, marketing] }
  omar: { roles: [asset-owner] }
  eli: { roles: [data-engineer] }
  rhea: { roles: [release-manager] }
  bea: { roles: [business-user] }
  ada: { roles: [admin] }
  gone: { roles: [data-scientist], projects: [fraud], purposes: [fraud-model], active: false }
services:
  etl: { roles: [ingestion], environment: production, owner: omar }
  etl-test: { roles: [ingestion], environment: testing, owner: omar }
agents:
  scout: { owner: dana, environment: production }
  retired: { owner: dana, environment: production, active: false }
devices:
  laptop-7: { managed: true, compliant: true, owner: dana }
  desk-1: { managed: true, compliant: true, owner: bea }
projects: { fraud: {} }
zones: { office: [10.0.0.0/8], lab: [192.168.7.0/24] }
assets:
  Dataset::"store/training": { owner: omar, sensitivity: 2, environment: production, live: true, purposes: [fraud-model], projects: [fraud] }
  Dataset::"store/sealed": { owner: omar, sensitivity: 3, environment: production }
  Model::"store/models": { owner: omar, sensitivity: 2, environment: production, projects: [fraud] }
  Model::"registry/fraud-detector": { owner: omar, sensitivity: 2, environment: production, projects: [fraud] }
  Model::"llm/smollm2": { sensitivity: 1, environment: production }
"""  # noqa: E501 -- YAML in the org file's own shape


def ask(
    principal: str, action: Action, resource: str, *, context: Context | None = None, **fields: Any
) -> AccessRequest:
    """Ask about uids in their short form, in the neutral context or with `fields` of it changed."""
    return AccessRequest(
        EntityUid.parse(principal),
        action.uid,
        EntityUid.parse(resource),
        context or Context(now=NOW, **fields),
    )
