"""The control plane's web application: management API, console pages, health, public key material."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from doorward import __version__
from doorward.console import (
    api,
    authzen,
    authzen_metadata,
    doors,
    health,
    oauth,
    pages,
    problems,
    signals,
    wellknown,
)
from doorward.console.authorise import is_governed, request_id
from doorward.console.bearer import Bearers
from doorward.console.guard import Guard
from doorward.console.render import STATIC, page, require_vendored
from doorward.console.scim import routes as scim
from doorward.console.versions import Versions
from doorward.core.errors import DoorwardError, UnauthenticatedError

if TYPE_CHECKING:
    from doorward.console.services import Services

API = "/api/v1"
# Every route that is not governed: the application does not start with another.
PUBLIC = frozenset(
    {
        "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs",
        "/jwks", "/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource",
        "/enrol", "/enrol/options", "/enrol/finish", "/enrol/app", "/enrol/app/finish",
        "/open", "/open/redeem",
        "/sign-in", "/sign-in/options", "/sign-in/finish", "/sign-in/code", "/sign-out",
        "/static",
        # A client authenticates itself at each of these.
        *(f"/oauth/{path}" for path in ("token", "revoke", "introspect", "device_authorization")),
        # These pages make sure themselves that a user is signed in.
        "/oauth/authorize", "/oauth/device",
        # An enforcement point shows its own key at each of these.
        *(f"{authzen_metadata.BASE}/{path}" for path in authzen_metadata.ENDPOINTS.values()),
        authzen_metadata.WELL_KNOWN, authzen_metadata.KEYS,
        # A transmitter shows what the settings agreed with it.
        signals.PATH,
    }
)  # fmt: skip
_SAID = {
    HTTPStatus.NOT_FOUND: "there is nothing at this address",
    HTTPStatus.METHOD_NOT_ALLOWED: "this address does not take that method",
}


def build(services: Services, *, api_routers: Sequence[APIRouter] | None = None) -> FastAPI:
    """Build the application; `api_routers` replaces the default nouns under /api/v1.

    Raises InvalidConfigError when the console's scripts and fonts have not been built, RuntimeError
    for a route that nobody authorises.
    """
    require_vendored()
    app = FastAPI(
        title="Doorward control plane",
        version=__version__,
        description="Everything the console and the command line do.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.services = services
    app.state.bearers = Bearers(services)
    for router in api.routers(services) if api_routers is None else api_routers:
        _include(app, router, API)
    for part in (health, wellknown, oauth, doors, pages, authzen, scim, signals):
        _include(app, part.router(services))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(DoorwardError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_middleware(Versions, services=services)
    app.add_middleware(Guard, settings=services.settings, ids=services.ids)
    return app


def _include(app: FastAPI, router: APIRouter, prefix: str = "") -> None:
    for route in router.routes:
        path = prefix + str(getattr(route, "path", "?"))
        if path not in PUBLIC and not (isinstance(route, APIRoute) and is_governed(route.dependant)):
            raise RuntimeError(f"route {path} is neither governed nor on the list of public routes")
    app.include_router(router, prefix=prefix)


def _on_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, DoorwardError):
        raise error
    if request.url.path.startswith(scim.BASE):
        return scim.refused(error)
    answer = _answer(
        request,
        problems.status_of(error),
        error.message,
        error.hint,
        lambda: problems.of_error(error, request_id(request)),
    )
    if isinstance(error, UnauthenticatedError) and request.url.path.startswith(API):
        answer.headers["WWW-Authenticate"] = error.challenge
    return answer


def _on_invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    told = problems.of_validation(error, request_id(request))
    return _answer(
        request, HTTPStatus.BAD_REQUEST, "the address or form holds a value it cannot", "", lambda: told
    )


def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    if status == HTTPStatus.NOT_MODIFIED:
        return Response(status_code=status, headers=error.headers)
    detail = _SAID.get(status, str(error.detail))
    answer = _answer(
        request,
        status,
        detail,
        "",
        lambda: problems.problem(status, detail=detail, request_id=request_id(request)),
    )
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


def _answer(
    request: Request, status: int, detail: str, hint: str, as_problem: Callable[[], Response]
) -> Response:
    """Answer a program with a problem document and a person with a page (or the sign-in page)."""
    if not _is_for_people(request):
        return as_problem()
    sign_in = status == HTTPStatus.UNAUTHORIZED
    if sign_in and "hx-request" in request.headers:
        return Response(status_code=status, headers={"HX-Redirect": "/sign-in"})
    if sign_in:
        return RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
    values: dict[str, Any] = {"detail": detail, "hint": hint, "request_id": request_id(request)}
    return page(request, "error.html", status, title=HTTPStatus(status).phrase, **values)


def _is_for_people(request: Request) -> bool:
    own_page = not request.url.path.startswith((API, "/.well-known"))
    return own_page and request.method in {"GET", "HEAD"} and "text/html" in request.headers.get("accept", "")
