"""Speak the OpenAI API, as OpenAI-compatible servers (llama.cpp, vLLM, …) do: an allow-list of routes."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from doorward.core.errors import InvalidRequestError, UnavailableError
from doorward.core.model import Action, EntityUid
from doorward.core.obligation import Limit, Obligation
from doorward.core.wire import Answer, Request, UpstreamClient
from doorward.gateway.adapter import Ask, BodyNeed, Catalogue, Naming, Permit, Refusal, UnknownRouteError
from doorward.gateway.protocols import openai_body, passing
from doorward.gateway.protocols.usage import UsageScanner
from doorward.gateway.refusal import sentence
from doorward.gateway.strict_json import read_json_body
from doorward.settings import UpstreamSettings

_MODELS = "/v1/models"
_MODEL_PREFIX = "/v1/models/"
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "server_error",
    504: "server_error",
}


class OpenAIAdapter:
    """Name, filter and pass requests of the OpenAI API; resources are `Model::"<upstream>/<model>"`."""

    kind = "openai"

    def __init__(self, settings: UpstreamSettings) -> None:
        """Take the upstream's settings; its name starts every resource's."""
        self.settings = settings

    def keeps(self, naming: Naming) -> frozenset[type[Obligation]]:  # noqa: ARG002 -- the port's signature
        """Return the obligations that hold here: limits only."""
        return frozenset({Limit})

    def body_need(self, request: Request) -> BodyNeed:  # noqa: ARG002 -- a GET's body is read to refuse it
        """Return that the body is read whole: it names the model."""
        return BodyNeed.WHOLE

    def name(self, request: Request, body: bytes, catalogue: Catalogue) -> Naming:  # noqa: ARG002 -- as above
        """Name the model and the action; raise UnknownRouteError off the allow-list."""
        route = request.path.removeprefix(f"/{self.settings.name}")
        match request.method, route:
            case "POST", path if path in openai_body.ALLOWED:
                return self._name_call(request, body, path)
            case "GET", path if path == _MODELS:
                _require_bare(request, body)
                return Naming(asks=(), route="GET /v1/models", lists=True)
            case "GET", path if path.startswith(_MODEL_PREFIX) and len(path) > len(_MODEL_PREFIX):
                _require_bare(request, body)
                model = path.removeprefix(_MODEL_PREFIX)
                ask = Ask(Action.VIEW, self._uid(model))
                return Naming(asks=(ask,), route="GET /v1/models/{model}", model=model)
        raise UnknownRouteError(f"{request.method} {route}")

    def _name_call(self, request: Request, body: bytes, route: str) -> Naming:
        _require_no_query(request)
        document = read_json_body(request, body, known=openai_body.ALLOWED[route])
        model, facts = openai_body.read_facts(route, document, size=len(body))
        return Naming(
            asks=(Ask(Action.INVOKE, self._uid(model)),), route=f"POST {route}", facts=facts, model=model
        )

    def _uid(self, model: str) -> EntityUid:
        # An empty or dotted segment would let a name slip below another one's.
        if any(segment in {"", ".", ".."} for segment in model.split("/")):
            raise InvalidRequestError(
                "the model's name has an empty or dotted part", hint="Write the name as the list shows it."
            )
        return EntityUid.of("Model", f"{self.settings.name}/{model}")

    async def forward(self, permit: Permit, upstream: UpstreamClient) -> Answer:
        """Send the authorised bytes; filter lists, pass everything else as bytes and count its tokens."""
        answer = await passing.send(permit, upstream, self.settings)
        if permit.naming.lists:
            content = await passing.whole(answer, self.settings)
            if answer.status == 200:  # noqa: PLR2004 -- only a list is filtered
                content = self._filtered(content, permit)
            headers = passing.answer_headers(answer.headers, resized=True)
            return Answer(status=answer.status, headers=headers, body=content)
        scanner = UsageScanner()

        def note() -> None:
            permit.outcome.update(scanner.tokens())
            if (answered := scanner.model()) is not None and answered != permit.naming.model:
                permit.outcome["model_mismatch"] = 1

        return passing.passed(answer, watch=scanner.watch, finished=note)

    def _filtered(self, content: bytes, permit: Permit) -> bytes:
        document = _read_list(content, self.settings.name)
        # llama.cpp lists its models twice: once as OpenAI does, once as Ollama does.
        lists = {"data": ("id",), "models": ("model", "name")}
        shown: set[str] = set()
        hidden: set[str] = set()
        kept: dict[str, Any] = {}
        for key, value in document.items():
            if key in lists and isinstance(value, list):
                kept[key] = [item for item in value if self._shows(item, lists[key], permit, shown, hidden)]
            elif not isinstance(value, (list, dict)):
                kept[key] = value
        permit.outcome.update(shown=len(shown), hidden=len(hidden))
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()

    def _shows(
        self, item: Any, keys: tuple[str, ...], permit: Permit, shown: set[str], hidden: set[str]
    ) -> bool:
        names = (
            {item[key] for key in keys if isinstance(item.get(key), str)} if isinstance(item, dict) else {""}
        )
        # Every name that it goes by must be visible: a hidden one must not ride on a visible one.
        if isinstance(item, dict) and isinstance(item.get("aliases"), list):
            item["aliases"] = [a for a in item["aliases"] if isinstance(a, str) and self._sees(a, permit)]
        visible = bool(names) and all(self._sees(name, permit) for name in names)
        (shown if visible else hidden).update(names)
        return visible

    def _sees(self, model: str, permit: Permit) -> bool:
        try:
            return permit.sees(self._uid(model))
        except InvalidRequestError:
            return False

    def refuse(self, request: Request, refusal: Refusal) -> Answer:  # noqa: ARG002 -- the port's signature
        """Return an OpenAI error object whose message the stock SDK prints."""
        return _error(
            refusal.status,
            message=sentence(refusal),
            kind=_ERROR_TYPES.get(refusal.status, "invalid_request_error"),
            code=refusal.code,
            # The verdict would be the same at once: the SDK shall show it, not repeat the request.
            headers=[*passing.refusal_headers(refusal), ("x-should-retry", "false")],
        )

    def broken_off(self, request: Request, refusal: Refusal) -> bytes:
        """Return the error event that OpenAI's own SDKs raise, for chat streams and for responses."""
        error = _error_object(
            sentence(refusal), _ERROR_TYPES.get(refusal.status, "server_error"), refusal.code
        )
        if request.path.endswith("/responses"):
            return b"event: error\ndata: " + msgspec.json.encode({"type": "error", **error}) + b"\n\n"
        return b"data: " + msgspec.json.encode(error) + b"\n\n"

    def not_found(self, request: Request, naming: Naming, request_id: str) -> Answer:  # noqa: ARG002 -- as above
        """Return OpenAI's `model_not_found`, the same for a hidden and for an unknown model."""
        return _error(
            404,
            message=f"The model `{naming.model}` does not exist or you do not have access to it.",
            kind="invalid_request_error",
            code="model_not_found",
            headers=[("content-type", "application/json")],
        )


def _error(status: int, *, message: str, kind: str, code: str, headers: list[tuple[str, str]]) -> Answer:
    body = msgspec.json.encode(_error_object(message, kind, code))
    return Answer(status=status, headers=headers, body=body)


def _error_object(message: str, kind: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _require_bare(request: Request, body: bytes) -> None:
    _require_no_query(request)
    if body:
        raise InvalidRequestError("a GET request has a body", hint="Send it without one.")


def _require_no_query(request: Request) -> None:
    if request.raw_query:
        raise InvalidRequestError(
            "this route takes no query parameters", hint="Send what you ask for in the body."
        )


def _read_list(content: bytes, upstream: str) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(content)
    except msgspec.DecodeError:
        document = None
    if not isinstance(document, dict):
        raise UnavailableError(
            f"the model list of `{upstream}` is not a JSON object", code="upstream_unavailable"
        )
    return document
