"""AuthZEN Authorization API 1.0 on the control plane: evaluation, batches, searches, discovery.

Each calling enforcement point shows its own Service key. What it may do is Cedar policy: `inspect` of
`Control::"policies"` to have requests evaluated, of `Control::"directory"` to search, of
`Control::"audit"` to be told reasons. What it may ask about is `pep.toml` (`decisions.authzen_scope`).
The local operator on the Unix socket is such a point too, for all of Doorward's own types.
Every evaluation is on durable record before it is answered; a denial is HTTP 200.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from doorward.console.authorise import request_id
from doorward.console.authzen_callers import Pep, caller_of
from doorward.console.authzen_metadata import BASE, KEYS, WELL_KNOWN, Metadata
from doorward.console.authzen_paging import Paging
from doorward.console.authzen_records import evaluation_record, search_record
from doorward.console.problems import of_error
from doorward.console.services import Services
from doorward.core.errors import DoorwardError, InvalidRequestError, UnauthenticatedError
from doorward.core.record import DecisionRecord
from doorward.decisions import authzen_wire as wire
from doorward.decisions.authzen import Inquirer, Judged, answer_of, first
from doorward.decisions.authzen_wire import Semantic
from doorward.decisions.together import OWNER_FORBIDDEN

MOST_RESULTS = 1000

Answering = Callable[[Pep, dict[str, Any], str], Awaitable[dict[str, Any]]]


def router(services: Services) -> APIRouter:
    """Build the routes; each proves its caller itself."""
    routes = APIRouter(tags=["authzen"])
    desk = _Desk(services)

    def serve(path: str, answering: Answering) -> None:
        async def route(request: Request) -> Response:
            return await _answered(request, services, answering)

        routes.add_api_route(f"{BASE}/{path}", route, methods=["POST"], name=path, response_model=None)

    serve("evaluation", desk.evaluation)
    serve("evaluations", desk.evaluations)
    for wanted in ("subject", "resource", "action"):
        serve(f"search/{wanted}", desk.searching(wanted))

    metadata = Metadata(services)

    @routes.get(WELL_KNOWN)
    def configuration(request: Request) -> Response:
        """Return the metadata (section 9 of the specification)."""
        return _json(metadata.document(request.headers.get("host", "")))

    @routes.get(KEYS)
    def keys() -> Response:
        """Return the key that signs the metadata."""
        return _json(metadata.keys())

    return routes


async def _answered(request: Request, services: Services, answering: Answering) -> Response:
    """Read, authenticate and answer one request; the guard echoes X-Request-ID on every answer."""
    try:
        pep = await caller_of(request, services)
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            raise InvalidRequestError("the Content-Type must be application/json")
        document = wire.document_of(await request.body())
        return _json(await answering(pep, document, request_id(request)))
    except DoorwardError as error:
        refused = of_error(error, request_id(request))
        if isinstance(error, UnauthenticatedError):
            refused.headers["WWW-Authenticate"] = error.challenge
        return refused


def _json(document: Mapping[str, Any]) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")


class _Told(msgspec.Struct, frozen=True):
    """One answer and its record; an item that could not be read has none."""

    answer: dict[str, Any]
    record: DecisionRecord | None = None


class _Desk:
    """Answer read requests of known callers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._paging = Paging()

    async def evaluation(self, pep: Pep, document: dict[str, Any], asked_as: str) -> dict[str, Any]:
        """Answer one evaluation."""
        inquirer = self._inquirer(pep)
        asked = wire.evaluation_of(document)
        name = self._services.ids.new()
        told = await asyncio.to_thread(
            lambda: self._told(pep, inquirer.evaluate(asked), asked, name=name, asked_as=asked_as)
        )
        if told.record is not None:
            await self._services.audit.write(told.record)
        return told.answer

    async def evaluations(self, pep: Pep, document: dict[str, Any], asked_as: str) -> dict[str, Any]:
        """Answer a batch, in order; an item that cannot be read is a denial of its own."""
        batch = wire.batch_of(document)
        if batch is None:
            return await self.evaluation(pep, document, asked_as)
        items, semantic = batch
        for key in ("subject", "action", "resource", "context", "options"):
            wire.mapping(document, key)
        # Ids are made here: their source belongs to the event loop.
        named = [(self._services.ids.new(), item) for item in items]
        told = await asyncio.to_thread(self._each, pep, document, named, semantic, asked_as)
        # All records become durable together, and before anything is answered.
        await asyncio.gather(
            *(self._services.audit.write(one.record) for one in told if one.record is not None)
        )
        return {"evaluations": [one.answer for one in told]}

    def _each(
        self,
        pep: Pep,
        document: dict[str, Any],
        items: list[tuple[str, Any]],
        semantic: Semantic,
        asked_as: str,
    ) -> list[_Told]:
        """Decide a batch on one standpoint, in order, as far as its semantic goes."""
        inquirer, told = self._inquirer(pep), []
        stops = {Semantic.DENY_ON_FIRST_DENY: False, Semantic.PERMIT_ON_FIRST_PERMIT: True}
        for name, item in items:
            try:
                asked = wire.evaluation_of(wire.merged(document, item))
            except InvalidRequestError as reason:
                error = {"status": 400, "message": reason.message}
                told.append(_Told({"decision": False, "context": {"error": error}}))
            else:
                judged = inquirer.evaluate(asked)
                told.append(self._told(pep, judged, asked, name=name, asked_as=asked_as))
            if semantic in stops and told[-1].answer["decision"] is stops[semantic]:
                break
        return told

    def searching(self, wanted: str) -> Answering:
        """Return what answers one of the three searches."""

        async def search(pep: Pep, document: dict[str, Any], asked_as: str) -> dict[str, Any]:
            asked = _searched(wanted, document)
            page = wire.page_of(document)
            query = wire.digest_of(wanted, pep.name, msgspec.to_builtins(asked))
            after, limit = self._paging.start(page, query, most=MOST_RESULTS)
            results: list[dict[str, str]] = []
            last = ""
            if pep.searches:
                inquirer = self._inquirer(pep)
                source = {
                    "subject": inquirer.subjects, "resource": inquirer.resources, "action": inquirer.actions,
                }[wanted]  # fmt: skip
                entry = _entry(wanted, asked)
                results, last = await asyncio.to_thread(lambda: first(source(asked, after), limit, entry))
            await self._services.audit.write(
                search_record(
                    self._services, pep, asked, wanted=wanted, shown=len(results), asked_as=asked_as
                )
            )
            if page is None and not last:
                return {"results": results}
            token = self._paging.token(query, last, limit) if last else ""
            return {"page": {"next_token": token, "count": len(results)}, "results": results}

        return search

    def _inquirer(self, pep: Pep) -> Inquirer:
        return Inquirer(self._services.point.pin(), pep.scope, self._services.clock.now())

    def _told(self, pep: Pep, judged: Judged, asked: wire.Evaluation, *, name: str, asked_as: str) -> _Told:
        """Return an answer with the record (`name` is its id) that must be durable before it leaves."""
        of_owner = OWNER_FORBIDDEN in judged.decision.determining
        if pep.reasons and judged.request is not None and judged.standpoint is not None and not of_owner:
            explained = judged.standpoint.explain(judged.request, judged.decision, None)
            judged = msgspec.structs.replace(judged, decision=explained)
        answer = answer_of(judged, supported=asked.context.get("supported_obligations"), reasons=pep.reasons)
        record = evaluation_record(
            self._services, pep, judged, name=name, allowed=bool(answer["decision"]), asked_as=asked_as
        )
        return _Told(answer, record)


def _searched(wanted: str, document: dict[str, Any]) -> wire.Evaluation:
    """Read a search: what is looked for has no id, what is given has one."""
    return wire.Evaluation(
        subject=wire.named(document, "subject", wanted=wanted == "subject"),
        action=wire.Act("") if wanted == "action" else wire.act(document),
        resource=wire.named(document, "resource", wanted=wanted == "resource"),
        context=wire.mapping(document, "context"),
    )


def _entry(wanted: str, asked: wire.Evaluation) -> Callable[[str], dict[str, str]]:
    if wanted == "action":
        return lambda name: {"name": name}
    kind = asked.subject.type if wanted == "subject" else asked.resource.type
    return lambda name: {"type": kind, "id": name}
