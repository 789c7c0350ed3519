"""Whether the control plane lives, is ready, and how it does."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Gauge, generate_latest

from doorward.console.authorise import local_operator, peer_uid
from doorward.console.links import has_admin
from doorward.core.errors import DoorwardError, NotFoundError
from doorward.settings import is_loopback

if TYPE_CHECKING:
    from doorward.console.services import Services

_log = structlog.get_logger()


def readiness(services: Services) -> dict[str, Any]:
    """Return `ready`, the versions decided on, and what the local operator may do."""
    try:
        standpoint = services.point.pin()
    except DoorwardError as error:
        return {"ready": False, "why": error.message, **_operator(services)}
    return {
        "ready": True,
        "bundle": standpoint.bundle_digest,
        "entities": standpoint.entities_version,
        "policies_refused": services.workspace.refused,
        **({} if services.shadow is None else {"shadow": services.shadow.report()}),
        **_operator(services),
    }


def _operator(services: Services) -> dict[str, Any]:
    return {
        "local_operator": local_operator(services),
        "admin_enrolled": has_admin(services),
    }


def _own(services: Services) -> CollectorRegistry:
    """Return the numbers of this very application."""
    registry = CollectorRegistry()
    for name, text, read in () if services.shadow is None else services.shadow.numbers():
        Gauge(name, text, registry=registry).set_function(read)
    return registry


def router(services: Services) -> APIRouter:
    """Build the routes that need no session; they name nobody and nothing."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def alive() -> dict[str, str]:
        """Answer as long as the process does."""
        return {"status": "ok"}

    @routes.get("/readyz")
    def ready(response: Response) -> dict[str, Any]:
        """Answer 200 once decisions can be made, else 503 with the reason."""
        try:
            state = readiness(services)
        except Exception:  # noqa: BLE001 -- a broken database must read as not ready
            _log.exception("readiness_failed")
            state = {"ready": False, "why": "the database does not answer"}
        if not state["ready"]:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return state

    @routes.get("/metrics")
    def metrics(request: Request) -> Response:
        """Answer Prometheus text to scrapers on this machine."""
        near = peer_uid(request) is not None or (request.client and is_loopback(request.client.host))
        if not near:
            raise NotFoundError("there is nothing here")
        return Response(
            generate_latest(REGISTRY) + generate_latest(_own(services)), media_type=CONTENT_TYPE_LATEST
        )

    return routes
