"""`/scim/v2`: each route is one action on the directory; every change is judged and recorded, then done."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from scim2_models import (
    Error,
    InvalidSyntaxException,
    Resource,
    SCIMException,
)
from scim2_server.conditions import Conditions
from scim2_server.handler import ScimHandler
from scim2_server.requests import ScimRequest
from scim2_server.responses import SCIM_MEDIA_TYPE, ScimResponse
from scim2_server.service import ScimService

from doorward.console.authorise import request_id
from doorward.console.problems import status_of
from doorward.console.provisioned import record_of, require_no_governor
from doorward.console.scim.clients import Client, provisions
from doorward.console.scim.schemas import provider
from doorward.console.scim.storage import DirectoryStorage
from doorward.core.errors import DoorwardError, UnauthenticatedError
from doorward.core.model import Action

if TYPE_CHECKING:
    from doorward.console.services import Services
    from doorward.directory.draft import ProvisionPlan

BASE = "/scim/v2"
_RECORD_SECONDS = 30.0


class _Service(ScimService):
    """Count a device's posture as said anew even where it says the same: its age depends on it."""

    def apply_replacement(
        self, current: Resource[Any], replacement: Resource[Any], conditions: Conditions
    ) -> Resource[Any] | None:
        changed = super().apply_replacement(current, replacement, conditions)
        return replacement if changed is None and _ages(current) else changed

    def apply_patch(
        self, current: Resource[Any], patch_op: Any, conditions: Conditions
    ) -> Resource[Any] | None:
        changed = super().apply_patch(current, patch_op, conditions)
        return current if changed is None and _ages(current) else changed


def _ages(resource: Resource[Any]) -> bool:
    return resource.meta is not None and resource.meta.resource_type == "Device"


def router(services: Services) -> APIRouter:
    """Build the routes. Methods that only look are `inspect`, all others `assign`."""
    routes = APIRouter(tags=["scim"])
    desk = _Desk(services)

    async def look(
        request: Request, client: Annotated[Client, Depends(provisions(Action.INSPECT))]
    ) -> Response:
        """Answer GET and searches (RFC 7644, 3.4)."""
        return await desk.answer(request, client)

    async def change(
        request: Request, client: Annotated[Client, Depends(provisions(Action.ASSIGN))]
    ) -> Response:
        """Carry out POST, PUT, PATCH, DELETE and bulk requests (RFC 7644, 3.3 to 3.7)."""
        return await desk.answer(request, client)

    add = routes.add_api_route
    for path in ("/.search", "/{endpoint}/.search"):
        add(BASE + path, look, methods=["POST"], include_in_schema=False, response_model=None)
    for path in ("", "/{path:path}"):
        add(BASE + path, look, methods=["GET"], include_in_schema=False, response_model=None)
        changing = ["POST", "PUT", "PATCH", "DELETE"]
        add(BASE + path, change, methods=changing, include_in_schema=False, response_model=None)
    return routes


def refused(error: DoorwardError) -> Response:
    """Return one of our own errors as SCIM says it (RFC 7644, 3.12)."""
    status = status_of(error)
    told = Error(status=status, detail=str(error)).model_dump()
    answer = Response(msgspec.json.encode(told), status, media_type=SCIM_MEDIA_TYPE)
    if isinstance(error, UnauthenticatedError):
        answer.headers["WWW-Authenticate"] = error.challenge
    return answer


class _Desk:
    """Answer requests of known clients, one at a time: what one reads is what it then changes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._service = _Service(provider())
        # Its own thread: a change waits there for its record, which needs the common ones.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scim")

    async def answer(self, request: Request, client: Client) -> Response:
        asked = await self._read(request)
        loop = asyncio.get_running_loop()
        answered = await loop.run_in_executor(
            self._thread, self._answered, asked, client, request_id(request), loop
        )
        headers = {k: v for k, v in answered.headers.items() if k.lower() != "content-type"}
        body = b"" if answered.body is None else msgspec.json.encode(answered.body)
        return Response(body, answered.status, headers, media_type=SCIM_MEDIA_TYPE)

    async def _read(self, request: Request) -> ScimRequest:
        return ScimRequest(
            method=request.method,
            base_url=self._services.settings.control_url + BASE,
            path=request.url.path.removeprefix(BASE) or "/",
            query=dict(request.query_params),
            headers=list(request.headers.items()),
            body=await request.body(),
        )

    def _answered(
        self, asked: ScimRequest, client: Client, asked_as: str, loop: asyncio.AbstractEventLoop
    ) -> ScimResponse:
        services = self._services

        def carry_out(plan: ProvisionPlan) -> None:
            require_no_governor(services, plan)
            if not plan.empty:
                entry = record_of(
                    services,
                    plan,
                    who=client.name,
                    asked_as=asked_as,
                    detail=f"{asked.method} {asked.path}",
                    via="scim",
                    credential=client.credential,
                )
                writing = asyncio.run_coroutine_threadsafe(services.audit.write(entry), loop)
                writing.result(_RECORD_SECONDS)
            services.directory.provision(plan, operator=client.name)

        storage = DirectoryStorage(
            directory=services.directory,
            provider=self._service.provider,
            rules=client.rules,
            clock=services.clock,
            ids=services.ids,
            carry_out=carry_out,
        )
        try:
            _require_one_reading(asked.body)
            return ScimHandler(self._service, storage).handle(asked)
        except SCIMException as error:
            return self._service.error_response(error)


def _require_one_reading(body: bytes) -> None:
    """Refuse a body in which a name stands twice, in whatever case: two readers could take different ones."""
    if not body:
        return
    try:
        json.loads(body, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as reason:
        raise InvalidSyntaxException(detail="the body is not JSON with one reading") from reason


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name.casefold() for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)
