"""Speak MLflow's REST API (tracking, model registry, artifact proxy) as an allow-list of routes."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import msgspec

from doorward.core.errors import InvalidRequestError, UnavailableError
from doorward.core.model import Action, EntityUid
from doorward.core.obligation import Limit, Obligation
from doorward.core.wire import Answer, Request, UpstreamAnswer, UpstreamClient, UpstreamRequest
from doorward.gateway.adapter import Ask, BodyNeed, Catalogue, Naming, Permit, Refusal, UnknownRouteError
from doorward.gateway.protocols import mlflow_lists, passing
from doorward.gateway.protocols.mlflow_calls import Call, Kind, Subject
from doorward.gateway.protocols.mlflow_lists import Viewer
from doorward.gateway.protocols.mlflow_names import ArtifactPath, Fields, Names, refuse, refuse_unknown
from doorward.gateway.protocols.mlflow_routes import API, ARTIFACTS, Route, find
from doorward.gateway.refusal import event, sentence
from doorward.gateway.strict_json import read_json_body
from doorward.settings import UpstreamSettings

_OK = 200
_MAX_OWNERS = 1000
_ERROR_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    413: "INVALID_PARAMETER_VALUE",
    415: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    502: "TEMPORARILY_UNAVAILABLE",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "TEMPORARILY_UNAVAILABLE",
}
_ARTIFACT_ACTIONS = {"GET": Action.EXPORT, "PUT": Action.MODIFY, "DELETE": Action.DELETE}


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """What `name` found out and `refine`, `forward` and `not_found` need again.

    `asks` are those of a pending naming that has none yet: without `refine` it stays denied.
    """

    subject: Subject
    kind: Kind = Kind.PASS
    fields: dict[str, Any] = {}
    artifact: ArtifactPath | None = None
    asks: tuple[Ask, ...] = ()
    pending: bool = False
    owned: bool = False


class MlflowAdapter:
    """Name, filter and pass requests of MLflow clients; the names are those of `mlflow_names`."""

    kind = "mlflow"

    def __init__(self, settings: UpstreamSettings) -> None:
        """Take the upstream's settings; its name starts every resource's."""
        self.settings = settings
        self._names = Names(settings.name)

    def keeps(self, naming: Naming) -> frozenset[type[Obligation]]:  # noqa: ARG002 -- the port's signature
        """Return the obligations that hold here: limits only."""
        return frozenset({Limit})

    def body_need(self, request: Request) -> BodyNeed:
        """Return that artifacts stream upwards and every other body is read whole."""
        uploads = request.method == "PUT" and self._path(request).startswith(f"{ARTIFACTS}/")
        return BodyNeed.STREAM if uploads else BodyNeed.WHOLE

    def name(self, request: Request, body: bytes, catalogue: Catalogue) -> Naming:  # noqa: ARG002 -- the port's
        """Name actions and resources; raise UnknownRouteError off the allow-list."""
        path = self._path(request)
        if path == ARTIFACTS or path.startswith(f"{ARTIFACTS}/"):
            return self._name_artifact(request, body, path.removeprefix(ARTIFACTS).removeprefix("/"))
        found = find(request.method, path)
        if found is None:
            raise UnknownRouteError(f"{request.method} {path}")
        route, named = found
        values = _read_values(request, body, route)
        for key, value in named.items():
            if values.setdefault(key, value) != value:
                refuse(f"`{key}` differs between the path and the body", "Give the same value.")
        asks = route.asks(Call(self._names, Fields(values), self.settings))
        detail = Detail(
            subject=route.subject, kind=route.kind, fields=values, asks=asks, pending=route.pending
        )
        # A stage's naming is the strictest there is; a logged model's is not known before `refine`.
        known = not route.pending or route.subject is Subject.VERSION
        return Naming(
            asks=asks if known else (),
            route=f"{route.method} {route.path}",
            model=str(values.get("name") or ""),
            lists=route.kind in {Kind.SEARCH, Kind.EXPERIMENT},
            detail=detail,
        )

    def _name_artifact(self, request: Request, body: bytes, path: str) -> Naming:
        listed = not path
        action = Action.VIEW if listed else _ARTIFACT_ACTIONS.get(request.method)
        if action is None or (listed and request.method != "GET"):
            raise UnknownRouteError(f"{request.method} {ARTIFACTS}")
        values: dict[str, Any] = {"path": path}
        if listed:
            values = _query(request, frozenset({"path"}), frozenset())
            path = Fields(values).text("path")
        elif request.raw_query:
            refuse("an artifact is named by its path alone", "Send no query parameters.")
        if body and request.method != "PUT" and body.strip() != b"{}":
            refuse(f"a {request.method} of an artifact has a body", "Send none.")
        artifact = self._names.artifact(path)
        owner, experiment = artifact.owners(self._names)
        detail = Detail(
            subject=Subject.NOTHING if listed else Subject.ARTIFACT,
            fields=values,
            artifact=artifact,
            asks=(Ask(action, owner), Ask(Action.VIEW, experiment)),
            pending=True,
        )
        route = f"{request.method} {ARTIFACTS}" + ("" if listed else "/{path}")
        return Naming(asks=(), route=route, detail=detail)

    async def refine(self, request: Request, naming: Naming, upstream: UpstreamClient) -> Naming:  # noqa: ARG002 -- the port's
        """Complete a naming that depends on the upstream: whose bytes these are, what is deployed now.

        The bytes of a logged model or run that were registered are those of the registered versions, and
        are decided on under these names.
        """
        detail = _detail(naming)
        if not detail.pending:
            return naming
        call = Call(self._names, Fields(detail.fields), self.settings)
        if naming.route.endswith("/transition-stage"):
            asks = await self._refine_transition(naming, call, upstream)
        else:
            asks = await self._refine_owner(detail, upstream)
        owned = asks != detail.asks and detail.kind is Kind.LOGGED_MODEL
        done = msgspec.structs.replace(detail, pending=False, owned=owned)
        return msgspec.structs.replace(naming, asks=asks, detail=done)

    async def _refine_transition(
        self, naming: Naming, call: Call, upstream: UpstreamClient
    ) -> tuple[Ask, ...]:
        if call.is_deployed_stage(call.fields.text("stage")) or call.fields.flag("archive_existing_versions"):
            return naming.asks
        query = {"name": call.fields.text("name"), "version": call.fields.text("version")}
        document = await self._ask_registry("model-versions/get", query, upstream)
        version = (document or {}).get("model_version")
        stage = version.get("current_stage", "None") if isinstance(version, dict) else ""
        # A version that does not exist is nobody's deployment: the upstream will say so.
        deployed = document is not None and (
            not isinstance(stage, str) or not stage or call.is_deployed_stage(stage)
        )
        return (Ask(Action.DEPLOY if deployed else Action.MODIFY, call.version()),)

    async def _refine_owner(self, detail: Detail, upstream: UpstreamClient) -> tuple[Ask, ...]:
        identifier = detail.artifact.identifier if detail.artifact else str(detail.fields["model_id"])
        versions = await self._versions_made_from(identifier, detail.artifact, upstream)
        if not versions:
            return detail.asks
        action = detail.asks[0].action
        # Changing what a registered version consists of is what deploying it anew would be.
        touches_bytes = detail.artifact is not None and action in {Action.MODIFY, Action.DELETE}
        actions = (action, Action.DEPLOY) if touches_bytes else (action,)
        return tuple(Ask(each, version) for version in versions for each in actions)

    async def _versions_made_from(
        self, identifier: str, artifact: ArtifactPath | None, upstream: UpstreamClient
    ) -> tuple[EntityUid, ...]:
        # The identifier has MLflow's own form (hexadecimal), so it cannot end the quoted text.
        query = {"filter": f"source_path LIKE '%{identifier}%'", "max_results": _MAX_OWNERS}
        document = await self._ask_registry("model-versions/search", query, upstream)
        if document is None or document.get("next_page_token"):
            raise UnavailableError(
                "the owners of this artifact cannot be found out",
                hint="Ask the operator to check the registry.",
            )
        return tuple(
            self._names.version(item.get("name"), item.get("version"))
            for item in document.get("model_versions") or []
            if artifact is None or artifact.lies_in(str(item.get("source", "")))
        )

    async def _ask_registry(
        self, route: str, query: dict[str, Any], upstream: UpstreamClient
    ) -> dict[str, Any] | None:
        request = UpstreamRequest(
            method="GET",
            target=f"{API}/{route}?{urlencode(query)}",
            headers=[("accept", "application/json"), ("accept-encoding", "identity")],
            body=None,
        )
        answer = await passing.checked(await upstream.send(request), self.settings)
        content = await passing.whole(answer, self.settings)
        if answer.status == _OK:
            return mlflow_lists.read_object(content, self.settings)
        if answer.status == 404:  # noqa: PLR2004 -- RESOURCE_DOES_NOT_EXIST
            return None
        raise UnavailableError(
            f"the registry `{self.settings.name}` answered {answer.status}", code="upstream_unavailable"
        )

    async def forward(self, permit: Permit, upstream: UpstreamClient) -> Answer:
        """Send the authorised bytes; take hidden names out of what comes back."""
        detail = _detail(permit.naming)
        if detail.pending:
            raise UnavailableError("the request was not decided on the upstream's state")
        if detail.kind is Kind.SEARCH:
            route = permit.naming.route.split(" ")[1].removeprefix(f"{API}/")
            return await mlflow_lists.search(
                permit, upstream, settings=self.settings, route=route, fields=detail.fields
            )
        if permit.request.method == "PUT":
            return passing.passed(await self._upload(permit, upstream))
        answer = await passing.send(permit, upstream, self.settings)
        if detail.kind is Kind.PASS or answer.status != _OK:
            return passing.passed(answer)
        content = await passing.whole(answer, self.settings)
        return self._shown(permit, detail, mlflow_lists.read_object(content, self.settings))

    async def _upload(self, permit: Permit, upstream: UpstreamClient) -> UpstreamAnswer:
        length = permit.request.header("content-length")
        request = UpstreamRequest(
            method="PUT",
            target=passing.target_of(permit.request, self.settings),
            headers=passing.request_headers(permit.request),
            body=permit.request.body.chunks(),
            content_length=int(length) if length is not None else None,
        )
        return await passing.checked(await upstream.send(request), self.settings)

    def _shown(self, permit: Permit, detail: Detail, document: dict[str, Any]) -> Answer:
        viewer = Viewer(permit, self._names)
        inner = document.get(detail.kind.value)
        match detail.kind:
            case Kind.MODEL:
                # The name itself was decided; what is filtered is what its answer carries of others.
                shown = viewer.trims(inner)
            case Kind.VERSIONS:
                kept = [item for item in inner or [] if viewer.version(item)]
                permit.outcome.update(shown=len(kept), hidden=len(inner or []) - len(kept))
                return mlflow_lists.json_answer({"model_versions": kept} if kept else {})
            case Kind.VERSION:
                if not viewer.version(inner):
                    message = f"Registered model alias {detail.fields.get('alias')} not found."
                    return _error(400, message, code=("INVALID_PARAMETER_VALUE", "INVALID_PARAMETER_VALUE"))
                shown = True
            case Kind.EXPERIMENT:
                shown = viewer.experiment(inner)
            case _:  # a run, or a logged model that was not decided under a registered version's name
                shown = detail.owned or viewer.lies_in_visible_experiment(inner)
        return mlflow_lists.json_answer(document) if shown else self._missing(detail)

    def refuse(self, request: Request, refusal: Refusal) -> Answer:  # noqa: ARG002 -- the port's signature
        """Return MLflow's error object, whose message the stock client prints."""
        code = _ERROR_CODES.get(refusal.status, "INTERNAL_ERROR")
        body = {"error_code": code, "message": sentence(refusal)}
        return Answer(
            status=refusal.status, headers=passing.refusal_headers(refusal), body=json.dumps(body).encode()
        )

    def broken_off(self, request: Request, refusal: Refusal) -> bytes:  # noqa: ARG002 -- the port's signature
        """Return the generic event: this protocol streams none of its own."""
        return event(refusal)

    def not_found(self, request: Request, naming: Naming, request_id: str) -> Answer:  # noqa: ARG002 -- the port's
        """Return MLflow's own words for a name that does not exist."""
        return self._missing(_detail(naming))

    def _missing(self, detail: Detail) -> Answer:
        if detail.subject is Subject.NOTHING:
            return mlflow_lists.json_answer({})
        values = {key: value for key, value in detail.fields.items() if isinstance(value, str)}
        values["run_id"] = values.get("run_id") or values.get("run_uuid", "")
        return _error(404, detail.subject.value.format_map(values), compact=detail.artifact is not None)

    def _path(self, request: Request) -> str:
        return request.path.removeprefix(f"/{self.settings.name}")


def _detail(naming: Naming) -> Detail:
    if not isinstance(naming.detail, Detail):
        raise UnavailableError("the request was not named by this protocol")
    return naming.detail


def _error(
    status: int,
    message: str,
    *,
    code: tuple[str, str] = ("RESOURCE_DOES_NOT_EXIST", "RESOURCE_NOT_FOUND"),
    compact: bool = False,
) -> Answer:
    # The artifact routes of MLflow write JSON without spaces; a difference would tell the two apart.
    body = {"error_code": code[0], "message": message, "sqlstate": "KAM00", "error_class": code[1]}
    text = json.dumps(body, separators=(",", ":") if compact else None)
    return Answer(status=status, headers=[("content-type", "application/json")], body=text.encode())


def _read_values(request: Request, body: bytes, route: Route) -> dict[str, Any]:
    """Return the fields of a request: a GET's from its query, any other's from its body, never both."""
    if request.method == "GET":
        if body:
            refuse("a GET request has a body", "Send the fields as query parameters.")
        return _query(request, route.fields, route.repeated)
    if request.raw_query:
        refuse(f"a {request.method} request has query parameters", "Send the fields as a JSON body.")
    # MLflow reads no body as an empty object, so this is its one reading too.
    document = read_json_body(request, body, known=route.fields) if body else {}
    refuse_unknown(document, route.fields, "the body")
    return document


def _query(request: Request, allowed: frozenset[str], repeated: frozenset[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in request.query:
        if key in repeated:
            values.setdefault(key, []).append(value)
        elif key in values:
            raise InvalidRequestError(f"parameter `{key[:64]}` is given twice", hint="Send it once.")
        else:
            values[key] = value
    refuse_unknown(values, allowed, "the query")
    return values
